//! A communicator that measures another one, and can make it as slow as a network.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cloze::train::Result;
use cloze::train::communicator::Communicator;

/// The speed of an emulated network: every rank has a port of this rate in each direction.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub latency: Duration,
    pub bytes_per_second: f64,
}

impl Rate {
    /// Returns the time of an exchange in which a rank sends and receives these bytes.
    fn time(self, sent: usize, received: usize) -> Duration {
        self.latency + Duration::from_secs_f64(sent.max(received) as f64 / self.bytes_per_second)
    }
}

/// The time that exchanges took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    pub all_to_all: Duration,
    pub all_gather: Duration,
}

/// Measures the exchanges of `inner`. With a rate, an exchange takes as long as the emulated network needs, from the moment
/// when all ranks are there; the thread that exchanges sleeps meanwhile, so that its core is free.
pub struct Link {
    inner: Arc<dyn Communicator>,
    rate: Option<Rate>,
    spent: Mutex<Spent>,
}

impl Link {
    pub fn new(inner: Arc<dyn Communicator>, rate: Option<Rate>) -> Link {
        Link { inner, rate, spent: Mutex::default() }
    }

    /// Returns the time of exchanges since the last call.
    pub fn take_spent(&self) -> Spent {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Spent> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an exchange in which this rank sends and receives these bytes, and returns its time.
    fn exchange(&self, sent: usize, received: usize, exchange: impl FnOnce() -> Result<()>) -> Result<Duration> {
        if self.rate.is_some() {
            self.inner.barrier()?;
        }
        let start = Instant::now();
        exchange()?;
        if let Some(rate) = self.rate {
            std::thread::sleep(rate.time(sent, received).saturating_sub(start.elapsed()));
        }
        Ok(start.elapsed())
    }

    /// Returns the bytes of all ranks but this one.
    fn of_others(&self, lengths: &[usize]) -> usize {
        let others = lengths.iter().enumerate().filter(|(rank, _)| *rank != self.rank());
        others.map(|(_, length)| length).sum()
    }
}

impl Communicator for Link {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn name(&self, rank: usize) -> String {
        self.inner.name(rank)
    }

    fn all_to_all(&self, send: &[u8], sent: &[usize], receive: &mut [u8], received: &[usize]) -> Result<()> {
        let bytes = (self.of_others(sent), self.of_others(received));
        let time = self.exchange(bytes.0, bytes.1, || self.inner.all_to_all(send, sent, receive, received))?;
        self.lock().all_to_all += time;
        Ok(())
    }

    fn all_gather(&self, own: &[u8], all: &mut [u8], lengths: &[usize]) -> Result<()> {
        let sent = own.len() * (self.size() - 1);
        let time = self.exchange(sent, self.of_others(lengths), || self.inner.all_gather(own, all, lengths))?;
        self.lock().all_gather += time;
        Ok(())
    }

    fn broadcast(&self, bytes: &mut [u8], root: usize) -> Result<()> {
        self.inner.broadcast(bytes, root)
    }

    fn barrier(&self) -> Result<()> {
        self.inner.barrier()
    }

    fn abort(&self, message: &str) {
        self.inner.abort(message);
    }

    fn at_step(&self, step: u32) {
        self.inner.at_step(step);
    }
}
