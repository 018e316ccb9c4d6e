//! Ranks that exchange the memory of their GPUs over NCCL, and everything else over another communicator.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloze_tensor::{Device, GpuExchange, Tensor};

use super::{Communicator, broadcast_bytes};
use crate::{Error, Result};

/// A rank with a GPU, whose memory it exchanges with other GPUs directly. [`over_gpus`](super::over_gpus) returns one.
///
/// The communicator that it is made from carries what is in the memory of hosts, and notices ranks that are lost.
pub struct Nccl {
    // Closed before the other communicator.
    gpus: Mutex<cloze_tensor::Nccl>,
    ranks: Arc<dyn Communicator>,
    step: AtomicU32,
}

impl Nccl {
    /// Connects the GPUs `device` of all ranks. All must call this.
    ///
    /// # Errors
    /// Returns an error if `device` is the CPU, NCCL is missing, older than 2.14 or cannot connect, or if a rank has left the
    /// job.
    pub fn new(ranks: Arc<dyn Communicator>, device: &Device) -> Result<Nccl> {
        let made = if ranks.rank() == 0 { cloze_tensor::Nccl::unique_id() } else { Ok(Vec::new()) };
        // The others wait for it. If there is none, they return the error, too.
        let (id, problem) = made.map_or_else(|error| (Vec::new(), error.to_string()), |id| (id, String::new()));
        let problem = broadcast_bytes(&*ranks, problem.into_bytes(), 0)?;
        if !problem.is_empty() {
            return Err(Error::data("ranks", format!("{}: {}", ranks.name(0), String::from_utf8_lossy(&problem))));
        }
        let id = broadcast_bytes(&*ranks, id, 0)?;
        let gpus = cloze_tensor::Nccl::join(device, &id, ranks.rank(), ranks.size())?;
        ranks.wait_until(&mut || Ok(gpus.is_ready()?))?;
        Ok(Nccl { gpus: Mutex::new(gpus), ranks, step: AtomicU32::new(0) })
    }

    /// Makes an exchange, and waits until it is enqueued.
    fn exchange(&self, call: impl FnOnce(&cloze_tensor::Nccl) -> cloze_tensor::Result<()>) -> Result<()> {
        let gpus = self.lock();
        self.named(call(&gpus))?;
        self.ranks.wait_until(&mut || self.named(gpus.is_ready()))
    }

    /// Adds the optimizer step to an error.
    fn named<T>(&self, result: cloze_tensor::Result<T>) -> Result<T> {
        let step = self.step.load(Ordering::Relaxed);
        result.map_err(|error| Error::data("GPUs", format!("{error}, in optimizer step {step}")))
    }

    fn lock(&self) -> MutexGuard<'_, cloze_tensor::Nccl> {
        self.gpus.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Communicator for Nccl {
    fn rank(&self) -> usize {
        self.ranks.rank()
    }

    fn size(&self) -> usize {
        self.ranks.size()
    }

    fn name(&self, rank: usize) -> String {
        self.ranks.name(rank)
    }

    fn all_to_all(&self, send: &[u8], sent: &[usize], receive: &mut [u8], received: &[usize]) -> Result<()> {
        self.ranks.all_to_all(send, sent, receive, received)
    }

    fn all_gather(&self, own: &[u8], all: &mut [u8], lengths: &[usize]) -> Result<()> {
        self.ranks.all_gather(own, all, lengths)
    }

    fn broadcast(&self, bytes: &mut [u8], root: usize) -> Result<()> {
        self.ranks.broadcast(bytes, root)
    }

    fn barrier(&self) -> Result<()> {
        self.ranks.barrier()
    }

    fn abort(&self, message: &str) {
        self.ranks.abort(message);
    }

    fn at_step(&self, step: u32) {
        self.step.store(step, Ordering::Relaxed);
        self.ranks.at_step(step);
    }

    fn wait_until(&self, is_done: &mut dyn FnMut() -> Result<bool>) -> Result<()> {
        let gpus = self.lock();
        self.ranks.wait_until(&mut || {
            // A connection that fails leaves its exchange under way for ever.
            self.named(gpus.is_ready())?;
            is_done()
        })
    }

    fn all_to_all_on_gpu(
        &self,
        exchange: &GpuExchange,
        send: (&Tensor, &[usize]),
        receive: (&Tensor, &[usize]),
    ) -> Result<()> {
        self.exchange(|gpus| gpus.all_to_all(exchange, send, receive))
    }

    fn all_gather_on_gpu(&self, exchange: &GpuExchange, all: &[(Tensor, Vec<usize>)]) -> Result<()> {
        self.exchange(|gpus| gpus.all_gather(exchange, all))
    }
}
