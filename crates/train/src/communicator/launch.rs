//! Finds out how this process was started.

use std::sync::Arc;
use std::time::Duration;

use super::Communicator;
#[cfg(not(feature = "mpi"))]
use crate::Error;
use crate::Result;

/// The variables by which launchers tell a process how many there are: Open MPI, then MPICH, Intel MPI and others by
/// Hydra, then SLURM.
const SIZES: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS"];

/// Opens the communicator of this process: that of the job if it was started by `mpirun` or `srun`, or that of one process
/// otherwise. Only one can be open at a time, and it must be dropped before the program ends.
///
/// A rank that waits for another longer than `timeout` ends the job with a message that names the lost rank.
///
/// # Errors
/// Returns an error if there are several processes but they cannot reach each other: the program was built without the
/// feature `mpi`, or for another MPI than that of the launcher.
pub fn open(timeout: Duration) -> Result<Arc<dyn Communicator>> {
    open_in(launched(|name| std::env::var(name).ok()), timeout)
}

/// Returns the variable that a launcher has set, and the number of processes that it tells.
fn launched(variable: impl Fn(&str) -> Option<String>) -> Option<(&'static str, usize)> {
    let size = |name| Some((name, variable(name)?.parse().ok()?));
    SIZES.into_iter().find_map(size)
}

#[cfg(feature = "mpi")]
fn open_in(launched: Option<(&'static str, usize)>, timeout: Duration) -> Result<Arc<dyn Communicator>> {
    // Initialising MPI without a launcher takes a second, and fails on some machines.
    match launched {
        None => Ok(Arc::new(super::Alone)),
        Some((variable, size)) => Ok(Arc::new(super::Mpi::new(variable, size, timeout)?)),
    }
}

#[cfg(not(feature = "mpi"))]
fn open_in(launched: Option<(&'static str, usize)>, _timeout: Duration) -> Result<Arc<dyn Communicator>> {
    match launched {
        Some((variable, size)) if size > 1 => {
            let why = format!(
                "{size} processes were started together ({variable} is set), but this program was built without MPI, \
                 so each would train alone: build it with --features mpi, or start one process"
            );
            Err(Error::data("ranks", why))
        }
        _ => Ok(Arc::new(super::Alone)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launchers_are_recognised() {
        let found = |name: &'static str, value: &'static str| launched(|other| (other == name).then(|| value.into()));
        assert_eq!(found("OMPI_COMM_WORLD_SIZE", "4"), Some(("OMPI_COMM_WORLD_SIZE", 4)));
        assert_eq!(found("PMI_SIZE", "2"), Some(("PMI_SIZE", 2)));
        assert_eq!(found("SLURM_NTASKS", "1"), Some(("SLURM_NTASKS", 1)));
        assert_eq!(found("SLURM_NTASKS", "many"), None);
        assert_eq!(found("HOME", "4"), None);
    }

    #[cfg(not(feature = "mpi"))]
    #[test]
    fn several_processes_without_mpi_are_refused() {
        assert_eq!(open_in(Some(("PMI_SIZE", 1)), Duration::ZERO).unwrap().size(), 1);
        let error = open_in(Some(("PMI_SIZE", 3)), Duration::ZERO).err().unwrap().to_string();
        assert!(error.starts_with("ranks: 3 processes were started together (PMI_SIZE is set)"), "{error}");
        assert!(error.contains("--features mpi"), "{error}");
    }
}
