//! Finds out how this process was started.

use std::sync::Arc;
use std::time::Duration;

use super::Communicator;
#[cfg(not(feature = "mpi"))]
use crate::Error;
use crate::Result;

/// The variables by which launchers tell a process how many there are, and which one it is: Open MPI, then MPICH, Intel MPI
/// and others by Hydra, then SLURM's `srun`. SLURM_NTASKS would not do, which a batch script has that starts one process.
const LAUNCHERS: [(&str, &str); 3] = [
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PMI_SIZE", "PMI_RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
];

/// Opens the communicator of this process: that of the job if it was started by `mpirun` or `srun`, or that of one process
/// otherwise. Only one can be open at a time, and it must be dropped before the program ends.
///
/// A rank that waits for another longer than `timeout` ends the job with a message that names the lost rank.
///
/// # Errors
/// Returns an error if there are several processes but they cannot reach each other: the program was built without the
/// feature `mpi`, or for another MPI than that of the launcher.
pub fn open(timeout: Duration) -> Result<Arc<dyn Communicator>> {
    let launched = launched(|name| std::env::var(name).ok());
    open_in(launched.map(|(variable, size, _)| (variable, size)), timeout)
}

/// Returns the rank that `mpirun` or `srun` gave this process, or 0 if neither started it. It is known before the ranks are
/// [open](open()), so that of several processes with the same bad argument one can say so.
pub fn launched_rank() -> usize {
    launched(|name| std::env::var(name).ok()).map_or(0, |(_, _, rank)| rank)
}

/// Returns the variable that a launcher has set, the number of processes that it tells, and the rank of this one.
fn launched(variable: impl Fn(&str) -> Option<String>) -> Option<(&'static str, usize, usize)> {
    let number = |name| variable(name)?.parse().ok();
    LAUNCHERS.into_iter().find_map(|(size, rank)| Some((size, number(size)?, number(rank).unwrap_or(0))))
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
        let found = |set: &[(&str, &str)]| {
            launched(|name| set.iter().find(|(other, _)| *other == name).map(|(_, value)| value.to_string()))
        };
        let open_mpi = [("OMPI_COMM_WORLD_SIZE", "4"), ("OMPI_COMM_WORLD_RANK", "3"), ("SLURM_STEP_NUM_TASKS", "2")];
        assert_eq!(found(&open_mpi), Some(("OMPI_COMM_WORLD_SIZE", 4, 3)));
        assert_eq!(found(&[("PMI_SIZE", "2"), ("PMI_RANK", "1")]), Some(("PMI_SIZE", 2, 1)));
        let step = [("SLURM_NTASKS", "3"), ("SLURM_STEP_NUM_TASKS", "3"), ("SLURM_PROCID", "2")];
        assert_eq!(found(&step), Some(("SLURM_STEP_NUM_TASKS", 3, 2)));
        // A batch script, which is one process.
        assert_eq!(found(&[("SLURM_NTASKS", "3"), ("SLURM_PROCID", "0")]), None);
        assert_eq!(found(&[("SLURM_STEP_NUM_TASKS", "many")]), None);
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
