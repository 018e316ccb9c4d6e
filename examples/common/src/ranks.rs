//! Examples as ranks of a job, which `mpirun` or `srun` starts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cloze::prelude::*;
use cloze::train::communicator::{self, Alone, Communicator};

use crate::{DeviceArgument, Result};

/// The communicator of this process. The end of the program closes it, so it must not be a local value.
static OPEN: Mutex<Option<Arc<dyn Communicator>>> = Mutex::new(None);

/// The time for which ranks other than 0 leave it to rank 0 to report an error, which all may have. They must not end before: then
/// the launcher could end rank 0 before it has said anything.
const RANK_0_FIRST: Duration = Duration::from_secs(2);

/// The arguments that only matter under `mpirun` or `srun`.
#[derive(clap::Args, serde::Serialize)]
pub struct RankArguments {
    /// Under mpirun or srun: type in which gradients are exchanged, f32 or bf16
    #[arg(long, default_value = "f32", value_parser = ["f32", "bf16"])]
    reduce: String,
    /// Under mpirun or srun: seconds without progress of a rank after which the job ends; longer than an evaluation
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..), value_name = "SECONDS")]
    timeout: u64,
    /// Under mpirun or srun with GPUs: exchange their memory through that of the hosts, over MPI, instead of over NCCL
    #[arg(long)]
    through_hosts: bool,
}

impl RankArguments {
    /// Joins the job if this process was started by `mpirun` or `srun`, and opens the device. Ranks other than 0 print nothing
    /// from now on.
    ///
    /// # Errors
    /// Returns an error if this program cannot reach the other processes, or if the device cannot be opened.
    pub fn join(&self, device: &DeviceArgument) -> Result {
        let ranks = communicator::open(Duration::from_secs(self.timeout))?;
        set_open(ranks.clone());
        if ranks.rank() > 0 {
            silence()?;
        } else if ranks.size() > 1 {
            println!("{} ranks", ranks.size());
        }
        let device = device.open_for(&*ranks)?;
        if !self.through_hosts {
            set_open(communicator::over_gpus(ranks, device)?);
        }
        Ok(())
    }

    /// Returns the type in which gradients are exchanged.
    pub fn reduce_dtype(&self) -> DType {
        if self.reduce == "bf16" { DType::BF16 } else { DType::F32 }
    }
}

fn set_open(ranks: Arc<dyn Communicator>) {
    *OPEN.lock().unwrap_or_else(PoisonError::into_inner) = Some(ranks);
}

/// Parses the command line. Of several ranks, which have the same one, the first prints the help or what is wrong.
pub fn parse<A: clap::Parser>() -> A {
    A::try_parse().unwrap_or_else(|error| match communicator::launched_rank() {
        0 => error.exit(),
        _ => {
            std::thread::sleep(RANK_0_FIRST);
            std::process::exit(error.exit_code());
        }
    })
}

/// Returns the ranks of this job: one, unless [`RankArguments::join`] found more.
pub fn ranks() -> Arc<dyn Communicator> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_else(|| Arc::new(Alone))
}

/// Leaves the job at the end of the program.
pub(crate) fn leave() {
    drop(OPEN.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// Reports an error and ends the job: the other ranks would wait for this one.
pub(crate) fn fail(error: &dyn std::error::Error) {
    let (ranks, launched_rank) = (ranks(), communicator::launched_rank());
    if ranks.rank() > 0 || launched_rank > 0 {
        std::thread::sleep(RANK_0_FIRST);
    }
    if ranks.size() == 1 {
        // Of several processes that could not join, all have the same error.
        if launched_rank == 0 {
            eprintln!("error: {error}");
        }
        return;
    }
    let (message, name) = (error.to_string(), ranks.name(ranks.rank()));
    // An error that all ranks know names its rank already.
    ranks.abort(&if message.starts_with("ranks: ") { message } else { format!("{name}: {message}") });
}

/// Discards what this process prints on standard output.
fn silence() -> Result {
    #[cfg(unix)]
    rustix::stdio::dup2_stdout(std::fs::File::options().write(true).open("/dev/null")?)?;
    Ok(())
}
