//! Ranks as threads of one process, for tests.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Communicator, check_lengths, check_own};
use crate::{Error, Result};

/// The interval at which a waiting rank looks whether the job has been aborted.
const POLL: Duration = Duration::from_millis(20);

/// A rank that is a thread of this process, so that a test needs no launcher.
///
/// ```
/// use cloze_train::communicator::{gather_values, Communicator as _, Threads};
/// let squares = Threads::run(3, |ranks| gather_values(&*ranks, (ranks.rank() * ranks.rank()) as u64));
/// assert_eq!(squares[1].as_ref().unwrap(), &[0, 1, 4]);
/// ```
pub struct Threads {
    rank: usize,
    to: Vec<Sender<Vec<u8>>>,
    from: Vec<Mutex<Receiver<Vec<u8>>>>,
    aborted: Arc<Mutex<Option<String>>>,
    timeout: Duration,
}

impl Threads {
    /// Makes the communicators of `size` ranks. A rank that waits for another longer than `timeout` gets an error.
    pub fn new(size: usize, timeout: Duration) -> Vec<Threads> {
        let aborted = Arc::new(Mutex::new(None));
        let mut ends: Vec<Vec<_>> = (0..size).map(|_| (0..size).map(|_| channel()).collect()).collect();
        let mut from: Vec<Vec<_>> = (0..size).map(|_| Vec::new()).collect();
        let to: Vec<Vec<_>> =
            ends.iter_mut().map(|row| row.iter().map(|(sender, _)| sender.clone()).collect()).collect();
        for row in ends {
            for (receiver, (_, end)) in row.into_iter().enumerate() {
                from[receiver].push(Mutex::new(end));
            }
        }
        let rank = |(rank, (to, from))| Threads { rank, to, from, aborted: aborted.clone(), timeout };
        to.into_iter().zip(from).enumerate().map(rank).collect()
    }

    /// Runs `rank` on a thread for each of `size` ranks and returns the results in rank order.
    ///
    /// # Panics
    /// Panics if a thread panics.
    pub fn run<R: Send>(size: usize, rank: impl Fn(Arc<dyn Communicator>) -> R + Sync) -> Vec<R> {
        let ranks = Threads::new(size, Duration::from_secs(60));
        let rank = &rank;
        std::thread::scope(|scope| {
            let started: Vec<_> = ranks.into_iter().map(|ranks| scope.spawn(move || rank(Arc::new(ranks)))).collect();
            let finished = started.into_iter().map(|thread| thread.join());
            finished.map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        })
    }

    fn send(&self, bytes: &[u8], to: usize) {
        // A rank that has left is noticed by those that wait for it.
        let _ = self.to[to].send(bytes.to_vec());
    }

    fn receive(&self, bytes: &mut [u8], from: usize) -> Result<()> {
        let start = Instant::now();
        let receiver = self.from[from].lock().unwrap_or_else(PoisonError::into_inner);
        let received = loop {
            match receiver.recv_timeout(POLL) {
                Ok(received) => break received,
                Err(error) => {
                    let aborted = self.aborted.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let is_over = error == RecvTimeoutError::Disconnected || start.elapsed() > self.timeout;
                    let lost = is_over.then(|| format!("{} has left the job", self.name(from)));
                    if let Some(why) = aborted.or(lost) {
                        return Err(Error::data("communicator", why));
                    }
                }
            }
        };
        check_own(&received, bytes.len())?;
        bytes.copy_from_slice(&received);
        Ok(())
    }
}

impl Communicator for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn all_to_all(&self, send: &[u8], sent: &[usize], receive: &mut [u8], received: &[usize]) -> Result<()> {
        check_lengths(send.len(), sent, self.size())?;
        check_lengths(receive.len(), received, self.size())?;
        let (mut send, mut receive) = (send, receive);
        for (to, &length) in sent.iter().enumerate() {
            self.send(send.split_off(..length).unwrap_or_default(), to);
        }
        for (from, &length) in received.iter().enumerate() {
            self.receive(receive.split_off_mut(..length).unwrap_or_default(), from)?;
        }
        Ok(())
    }

    fn all_gather(&self, own: &[u8], all: &mut [u8], lengths: &[usize]) -> Result<()> {
        check_lengths(all.len(), lengths, self.size())?;
        check_own(own, lengths[self.rank])?;
        (0..self.size()).for_each(|to| self.send(own, to));
        let mut all = all;
        for (from, &length) in lengths.iter().enumerate() {
            self.receive(all.split_off_mut(..length).unwrap_or_default(), from)?;
        }
        Ok(())
    }

    fn broadcast(&self, bytes: &mut [u8], root: usize) -> Result<()> {
        if self.rank == root {
            (0..self.size()).filter(|&to| to != root).for_each(|to| self.send(bytes, to));
            return Ok(());
        }
        self.receive(bytes, root)
    }

    fn barrier(&self) -> Result<()> {
        self.all_gather(&[], &mut [], &vec![0; self.size()])
    }

    fn abort(&self, message: &str) {
        self.aborted.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| message.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::super::{broadcast_bytes, gather_bytes};
    use super::*;

    #[test]
    fn parts_arrive_in_rank_order() {
        let received = Threads::run(3, |ranks| {
            let me = ranks.rank() as u8;
            // Rank r sends r + 1 copies of 10 r + s to rank s.
            let copies = ranks.rank() + 1;
            let send: Vec<u8> = (0..3).flat_map(|to| vec![10 * me + to; copies]).collect();
            let mut receive = vec![0; 6];
            ranks.all_to_all(&send, &[copies; 3], &mut receive, &[1, 2, 3]).unwrap();
            receive
        });
        assert_eq!(received[0], [0, 10, 10, 20, 20, 20]);
        assert_eq!(received[2], [2, 12, 12, 22, 22, 22]);
    }

    #[test]
    fn bytes_of_any_length_are_gathered_and_broadcast() {
        for (rank, (all, root)) in Threads::run(4, |ranks| {
            let own = vec![ranks.rank() as u8; ranks.rank()];
            (gather_bytes(&*ranks, &own).unwrap(), broadcast_bytes(&*ranks, own, 2).unwrap())
        })
        .into_iter()
        .enumerate()
        {
            assert_eq!(all, [vec![], vec![1], vec![2, 2], vec![3, 3, 3]], "rank {rank}");
            assert_eq!(root, [2, 2]);
        }
    }

    #[test]
    fn a_rank_that_leaves_or_aborts_ends_the_wait_of_the_others() {
        let results = Threads::run(2, |ranks| if ranks.rank() == 1 { Ok(()) } else { ranks.barrier() });
        assert_eq!(results[0].as_ref().unwrap_err().to_string(), "communicator: rank 1 has left the job");
        let results = Threads::run(2, |ranks| {
            if ranks.rank() == 1 {
                ranks.abort("rank 1: no space");
                std::thread::sleep(3 * POLL);
                return Ok(());
            }
            ranks.barrier()
        });
        assert_eq!(results[0].as_ref().unwrap_err().to_string(), "communicator: rank 1: no space");
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let ranks = Threads::new(1, POLL).remove(0);
        for (result, expected) in [
            (ranks.all_gather(&[1], &mut [0; 2], &[1]), "the parts have 1 bytes, the buffer 2"),
            (ranks.all_gather(&[1], &mut [0; 2], &[2]), "this rank gives 1 bytes, but its length is 2"),
            (ranks.all_gather(&[1], &mut [0; 2], &[1, 1]), "2 lengths given for 1 ranks"),
            (ranks.all_to_all(&[1], &[2], &mut [0; 1], &[1]), "the parts have 2 bytes, the buffer 1"),
            (super::super::Alone.all_gather(&[1], &mut [0; 2], &[2]), "this rank gives 1 bytes, but its length is 2"),
        ] {
            assert_eq!(result.unwrap_err().to_string(), format!("communicator: {expected}"));
        }
    }
}
