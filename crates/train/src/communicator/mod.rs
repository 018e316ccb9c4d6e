//! The ranks of a job that trains one model, and how they exchange data.
//!
//! A communicator only moves bytes. MPI promises no order for the additions of a reduction, so ranks exchange numbers and
//! each adds them in rank order; bf16, which is no type of MPI, travels like any other bytes.

mod device;
mod launch;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "nccl")]
mod nccl;
#[cfg(feature = "mpi")]
mod roll_call;
mod threads;
#[cfg(feature = "mpi")]
mod watch;

use std::time::{Duration, Instant};

use bytemuck::Pod;
#[cfg(feature = "cuda")]
use cloze_tensor::{GpuExchange, Tensor};

use crate::{Error, Result};
pub use device::{open_device, over_gpus};
pub use launch::{launched_rank, open};
#[cfg(feature = "mpi")]
pub use mpi::Mpi;
#[cfg(feature = "nccl")]
pub use nccl::Nccl;
pub use threads::Threads;

/// A waiting rank yields its core between polls for this long, then it sleeps between them: backward may need the core.
const YIELDING: Duration = Duration::from_micros(200);
const SLEEP: Duration = Duration::from_micros(20);

/// The ranks of a job: processes that train one model together, each on its share of every step.
///
/// [`communicator::open`](open) returns the communicator of this process. All ranks must make the same calls in the same
/// order. A call returns when this rank has what it asked for; only [`barrier`](Communicator::barrier) waits for all.
///
/// ```
/// use cloze_train::communicator::{self, Communicator as _};
/// // One process, unless it was started by `mpirun` or `srun`.
/// let ranks = communicator::open(std::time::Duration::from_secs(600))?;
/// let mut everyone = vec![0; ranks.size()];
/// ranks.all_gather(&[ranks.rank() as u8], &mut everyone, &vec![1; ranks.size()])?;
/// assert_eq!(everyone, [0]);
/// # Ok::<(), cloze_train::Error>(())
/// ```
pub trait Communicator: Send + Sync {
    /// Returns the number of this rank, from 0.
    fn rank(&self) -> usize;

    /// Returns the number of ranks.
    fn size(&self) -> usize;

    /// Returns the name of a rank for messages, with its host if that is known: `rank 3 on node7`.
    fn name(&self, rank: usize) -> String {
        format!("rank {rank}")
    }

    /// Sends a part of `send` to each rank and receives a part from each, in rank order. The parts have `sent[rank]` and
    /// `received[rank]` bytes.
    ///
    /// # Errors
    /// Returns an error if the lengths do not add up to those of the buffers, or if a rank has left the job.
    fn all_to_all(&self, send: &[u8], sent: &[usize], receive: &mut [u8], received: &[usize]) -> Result<()>;

    /// Collects the bytes `own` of every rank in `all`, in rank order. Those of rank `r` are `lengths[r]` bytes.
    ///
    /// # Errors
    /// Returns an error if the lengths do not add up to those of the buffers, or if a rank has left the job.
    fn all_gather(&self, own: &[u8], all: &mut [u8], lengths: &[usize]) -> Result<()>;

    /// Replaces `bytes` by those of rank `root`, which have the same length.
    ///
    /// # Errors
    /// Returns an error if a rank has left the job.
    fn broadcast(&self, bytes: &mut [u8], root: usize) -> Result<()>;

    /// Waits until all ranks are here.
    ///
    /// # Errors
    /// Returns an error if a rank has left the job.
    fn barrier(&self) -> Result<()>;

    /// Ends the job for all ranks, with `message` on standard error and an exit status other than 0. Ranks that are threads
    /// do not end; their next exchange returns `message` as an error.
    fn abort(&self, message: &str);

    /// Tells the optimizer step, from 1, that messages about lost ranks name.
    fn at_step(&self, _step: u32) {}

    /// Waits until `is_done` returns true, which takes other ranks. If one of them is lost, ends the job as an exchange does.
    ///
    /// # Errors
    /// Returns the errors of `is_done`, and an error if a rank has left the job.
    fn wait_until(&self, is_done: &mut dyn FnMut() -> Result<bool>) -> Result<()> {
        poll(is_done, &mut |_| {})
    }

    /// Sends a part of a tensor to each rank and receives a part of another from each, as [`all_to_all`] does for the memory of
    /// the host. The lengths of the parts are in bytes. By default they travel through the memory of the host; a communicator
    /// that can reach GPUs returns when the exchange is enqueued.
    ///
    /// # Errors
    /// Returns an error if lengths or devices do not fit, or if a rank has left the job.
    ///
    /// [`all_to_all`]: Communicator::all_to_all
    #[cfg(feature = "cuda")]
    fn all_to_all_on_gpu(
        &self,
        exchange: &GpuExchange,
        (send, sent): (&Tensor, &[usize]),
        (receive, received): (&Tensor, &[usize]),
    ) -> Result<()> {
        let mut bytes = vec![0; received.iter().sum()];
        self.all_to_all(&exchange.read(send)?, sent, &mut bytes, received)?;
        Ok(exchange.write(&bytes, receive)?)
    }

    /// Completes tensors, of each of which every rank has its own part, in rank order. The lengths of the parts are in bytes.
    /// They travel as in [`all_to_all_on_gpu`](Communicator::all_to_all_on_gpu).
    ///
    /// # Errors
    /// Returns an error if lengths or devices do not fit, or if a rank has left the job.
    #[cfg(feature = "cuda")]
    fn all_gather_on_gpu(&self, exchange: &GpuExchange, all: &[(Tensor, Vec<usize>)]) -> Result<()> {
        for (tensor, lengths) in all {
            check_lengths(tensor.elements() * tensor.dtype().size(), lengths, self.size())?;
            let (start, own) = (lengths[..self.rank()].iter().sum::<usize>(), lengths[self.rank()]);
            let size = tensor.dtype().size();
            let own = exchange.read(&tensor.narrow(0, start / size, own / size)?)?;
            let mut bytes = vec![0; lengths.iter().sum()];
            self.all_gather(&own, &mut bytes, lengths)?;
            exchange.write(&bytes, tensor)?;
        }
        Ok(())
    }
}

/// Calls `is_done` until it returns true. After a while, calls `look` with the time passed before each call.
fn poll(is_done: &mut dyn FnMut() -> Result<bool>, look: &mut dyn FnMut(Duration)) -> Result<()> {
    let start = Instant::now();
    while !is_done()? {
        let waited = start.elapsed();
        if waited < YIELDING {
            std::thread::yield_now();
        } else {
            look(waited);
            std::thread::sleep(SLEEP);
        }
    }
    Ok(())
}

/// The communicator of one process on its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Communicator for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_to_all(&self, send: &[u8], sent: &[usize], receive: &mut [u8], received: &[usize]) -> Result<()> {
        check_lengths(send.len(), sent, 1)?;
        check_lengths(receive.len(), received, 1)?;
        self.all_gather(send, receive, received)
    }

    fn all_gather(&self, own: &[u8], all: &mut [u8], lengths: &[usize]) -> Result<()> {
        check_lengths(all.len(), lengths, 1)?;
        check_own(own, lengths[0])?;
        all.copy_from_slice(own);
        Ok(())
    }

    fn broadcast(&self, _bytes: &mut [u8], _root: usize) -> Result<()> {
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }

    fn abort(&self, message: &str) {
        eprintln!("error: {message}");
        std::process::exit(1);
    }
}

/// Gathers one value of each rank, in rank order.
///
/// # Errors
/// Returns the errors of [`Communicator::all_gather`].
pub fn gather_values<T: Pod>(ranks: &dyn Communicator, own: T) -> Result<Vec<T>> {
    let mut all = vec![T::zeroed(); ranks.size()];
    let lengths = vec![size_of::<T>(); ranks.size()];
    ranks.all_gather(bytemuck::bytes_of(&own), bytemuck::cast_slice_mut(&mut all), &lengths)?;
    Ok(all)
}

/// Gathers the bytes of each rank, of any length, in rank order.
///
/// # Errors
/// Returns the errors of [`Communicator::all_gather`].
pub fn gather_bytes(ranks: &dyn Communicator, own: &[u8]) -> Result<Vec<Vec<u8>>> {
    let lengths: Vec<usize> = gather_values(ranks, own.len() as u64)?.into_iter().map(|n| n as usize).collect();
    let mut all = vec![0; lengths.iter().sum()];
    ranks.all_gather(own, &mut all, &lengths)?;
    let mut rest = &all[..];
    Ok(lengths.iter().map(|&length| rest.split_off(..length).unwrap_or_default().to_vec()).collect())
}

/// Returns the bytes of rank `root`, of any length, on every rank.
///
/// # Errors
/// Returns the errors of [`Communicator::broadcast`].
pub fn broadcast_bytes(ranks: &dyn Communicator, own: Vec<u8>, root: usize) -> Result<Vec<u8>> {
    let mut length = own.len() as u64;
    ranks.broadcast(bytemuck::bytes_of_mut(&mut length), root)?;
    let mut bytes = own;
    bytes.resize(length as usize, 0);
    ranks.broadcast(&mut bytes, root)?;
    Ok(bytes)
}

/// Checks that there is a length per rank and that they add up to that of the buffer.
fn check_lengths(buffer: usize, lengths: &[usize], ranks: usize) -> Result<()> {
    if lengths.len() != ranks {
        return Err(Error::data("communicator", format!("{} lengths given for {ranks} ranks", lengths.len())));
    }
    match lengths.iter().sum::<usize>() {
        sum if sum == buffer => Ok(()),
        sum => Err(Error::data("communicator", format!("the parts have {sum} bytes, the buffer {buffer}"))),
    }
}

/// Checks the length of what this rank contributes.
fn check_own(own: &[u8], length: usize) -> Result<()> {
    match own.len() == length {
        true => Ok(()),
        false => {
            let why = format!("this rank gives {} bytes, but its length is {length}", own.len());
            Err(Error::data("communicator", why))
        }
    }
}
