//! Ranks as processes that exchange data over MPI.
//!
//! Every exchange is a non-blocking collective that this module polls. So a rank that waits in vain can say so and end the
//! job, without a second thread that calls MPI: `MPI_THREAD_SERIALIZED` suffices.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mpi::Threading;
use mpi::datatype::{Partition, PartitionMut};
use mpi::environment::{Universe, initialize_with_threading, library_version, processor_name};
use mpi::request::{LocalScope, Request, scope};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator as _, CommunicatorCollectives as _, Root as _};

use super::roll_call::RollCall;
use super::watch::{Watch, print_last};
use super::{Communicator, check_lengths, check_own, gather_bytes, poll};
use crate::{Error, Result};

/// The most bytes of a broadcast message; MPI counts in `i32`.
const MESSAGE: usize = 1 << 30;

/// A rank that is a process started by `mpirun` or `srun`. [`open`](super::open) returns one.
pub struct Mpi {
    /// Dropped first, because the others may leave before MPI is finalized.
    watch: Option<Watch>,
    universe: Universe,
    rank: usize,
    size: usize,
    /// The name of each rank, with its host.
    names: Vec<String>,
    timeout: Duration,
    /// Held during a call of MPI, with the current optimizer step.
    step: Mutex<u32>,
}

impl Mpi {
    /// Initialises MPI. The launcher says in `variable` that it started `size` processes.
    pub(super) fn new(variable: &'static str, size: usize, timeout: Duration) -> Result<Mpi> {
        let cannot = |why: String| Error::data("MPI", why);
        let initialized = initialize_with_threading(Threading::Serialized);
        let (universe, threading) = initialized
            .ok_or_else(|| cannot("is open already: drop the first communicator's users and share it".into()))?;
        if threading < Threading::Serialized {
            return Err(cannot(format!(
                "supports {threading:?}, but calls from other threads are needed (Serialized)"
            )));
        }
        let world = universe.world();
        let (rank, found) = (world.rank() as usize, world.size() as usize);
        if found != size {
            let library = library_version().unwrap_or_default();
            let library = library.lines().next().unwrap_or("unknown");
            return Err(cannot(format!(
                "{variable} tells of {size} processes, MPI of {found}: start the program with the mpirun of the MPI that \
                 it was built with ({library}), or with srun in a SLURM job"
            )));
        }
        let host = processor_name().unwrap_or_else(|_| "an unnamed host".into());
        let names = (0..size).map(|rank| format!("rank {rank}")).collect();
        let mut ranks = Mpi { watch: None, universe, rank, size, names, timeout, step: Mutex::new(0) };
        let hosts = gather_bytes(&ranks, host.as_bytes())?;
        let hosts: Vec<String> = hosts.iter().map(|host| String::from_utf8_lossy(host).into_owned()).collect();
        for (name, host) in ranks.names.iter_mut().zip(&hosts) {
            *name = format!("{name} on {host}");
        }
        ranks.watch = Some(Watch::start(&ranks, &hosts, || SimpleCommunicator::world().abort(1))?);
        Ok(ranks)
    }

    fn world(&self) -> SimpleCommunicator {
        self.universe.world()
    }

    fn lock(&self) -> MutexGuard<'_, u32> {
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Polls a collective until it is complete, or ends the job after the timeout. There is no error to return: MPI may write
    /// to the buffers as long as the collective is under way.
    fn complete<'a, D: ?Sized>(&self, request: Request<'a, D, &LocalScope<'a>>, step: u32) {
        let mut request = Some(request);
        let mut is_done = || {
            request = request.take().and_then(|request| request.test().err());
            Ok(request.is_none())
        };
        // It returns no error.
        let _ = self.poll(&mut is_done, step);
    }

    /// Polls until `is_done` returns true, or ends the job after the timeout.
    fn poll(&self, is_done: &mut dyn FnMut() -> Result<bool>, step: u32) -> Result<()> {
        let mut roll_call = RollCall {
            universe: &self.universe,
            watch: self.watch.as_ref(),
            names: &self.names,
            timeout: self.timeout,
            step,
            looked: Duration::ZERO,
        };
        poll(is_done, &mut |waited| roll_call.poll(waited))
    }

    /// Returns counts and displacements of parts that follow each other.
    fn parts(lengths: &[usize]) -> Result<(Vec<i32>, Vec<i32>)> {
        let total: usize = lengths.iter().sum();
        if i32::try_from(total).is_err() {
            return Err(Error::data(
                "MPI",
                format!("an exchange of {total} bytes is too long: split it below 2^31 bytes"),
            ));
        }
        let mut start = 0;
        let displacement = |&length: &usize| {
            let displacement = start;
            start += length as i32;
            displacement
        };
        Ok((lengths.iter().map(|&length| length as i32).collect(), lengths.iter().map(displacement).collect()))
    }
}

impl Communicator for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn name(&self, rank: usize) -> String {
        self.names.get(rank).cloned().unwrap_or_else(|| format!("rank {rank}"))
    }

    fn all_to_all(&self, send: &[u8], sent: &[usize], receive: &mut [u8], received: &[usize]) -> Result<()> {
        check_lengths(send.len(), sent, self.size)?;
        check_lengths(receive.len(), received, self.size)?;
        let ((sent, sent_at), (received, received_at)) = (Mpi::parts(sent)?, Mpi::parts(received)?);
        let step = self.lock();
        let mut place = [0];
        let send = Partition::new(sent_from(send), sent, sent_at);
        let mut receive = PartitionMut::new(received_in(receive, &mut place), received, received_at);
        scope(|scope| {
            self.complete(self.world().immediate_all_to_all_varcount_into(scope, &send, &mut receive), *step);
        });
        Ok(())
    }

    fn all_gather(&self, own: &[u8], all: &mut [u8], lengths: &[usize]) -> Result<()> {
        check_lengths(all.len(), lengths, self.size)?;
        check_own(own, lengths[self.rank])?;
        // An all-to-all, because the all-gather of Open MPI 4.1 takes up to twice as long over TCP for the same bytes.
        let (received, received_at) = Mpi::parts(lengths)?;
        let sent = vec![received[self.rank]; self.size];
        let step = self.lock();
        let mut place = [0];
        let send = Partition::new(sent_from(own), sent, vec![0; self.size]);
        let mut all = PartitionMut::new(received_in(all, &mut place), received, received_at);
        scope(|scope| {
            self.complete(self.world().immediate_all_to_all_varcount_into(scope, &send, &mut all), *step);
        });
        Ok(())
    }

    fn broadcast(&self, bytes: &mut [u8], root: usize) -> Result<()> {
        let step = self.lock();
        let world = self.world();
        for message in bytes.chunks_mut(MESSAGE) {
            scope(|scope| {
                self.complete(world.process_at_rank(root as i32).immediate_broadcast_into(scope, message), *step);
            });
        }
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        self.all_gather(&[], &mut [], &vec![0; self.size])
    }

    fn abort(&self, message: &str) {
        print_last(message, || self.watch.iter().for_each(Watch::leave));
        // Without the lock: a thread that waits for lost ranks may hold it, and this call does not return.
        self.world().abort(1);
    }

    fn at_step(&self, step: u32) {
        *self.lock() = step;
        self.watch.iter().for_each(|watch| watch.at_step(step));
    }

    fn wait_until(&self, is_done: &mut dyn FnMut() -> Result<bool>) -> Result<()> {
        let step = self.lock();
        self.poll(is_done, *step)
    }
}

/// Returns `bytes` at a place in memory even if they are none. Rust's pointer to no bytes is 1, and so is `MPI_IN_PLACE` of Open
/// MPI.
fn sent_from(bytes: &[u8]) -> &[u8] {
    static PLACE: [u8; 1] = [0];
    if bytes.is_empty() { &PLACE[..0] } else { bytes }
}

/// Returns `bytes`, or none at `place`, for the same reason.
fn received_in<'b>(bytes: &'b mut [u8], place: &'b mut [u8; 1]) -> &'b mut [u8] {
    if bytes.is_empty() { &mut place[..0] } else { bytes }
}
