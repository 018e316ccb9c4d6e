//! Watches the processes of a job, so that the death of one is known at once, with its rank, host and optimizer step.
//!
//! MPI and launchers cannot say that much: a rank that dies leaves the others waiting in an exchange, and the launcher, which
//! soon kills them, knows no step. So ranks keep a TCP connection to a few others. When a process ends, for whatever reason,
//! its system closes them. Ranks form a tree: rank `r` is connected to its parent `(r - 1) / CHILDREN` and to its children.
//!
//! A rank that leaves as intended sends a byte first. A host that loses power closes nothing, which only the timeout notices.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Communicator, gather_values};
use crate::Result;

/// The most children of a rank: few enough for a thread each.
const CHILDREN: usize = 8;

/// The time in which ranks connect. Those that cannot, because a firewall is between them, are not watched.
const CONNECT: Duration = Duration::from_secs(3);

/// The time that a rank leaves to those that report a death before it, and to the launcher to end the job then.
const TURN: Duration = Duration::from_secs(5);

/// The time in which a launcher forwards the last message of a rank. MPICH's drops what it has not read when the job ends.
const FORWARD: Duration = Duration::from_millis(100);

/// The connections of a rank. Dropping it tells the others that this rank leaves as intended.
pub(super) struct Watch {
    shared: Arc<Shared>,
}

struct Shared {
    /// The names of the ranks, with their hosts.
    names: Vec<String>,
    links: Mutex<Vec<(usize, TcpStream)>>,
    step: AtomicU32,
    /// Whether the job ends as intended, or a message says why it does not.
    is_ending: AtomicBool,
    end: fn() -> !,
}

impl Watch {
    /// Connects the ranks. If one dies, another one that is connected to it prints a message and calls `end`, which must end
    /// the job. All ranks must call this.
    ///
    /// # Errors
    /// Returns the errors of [`gather_values`]. A rank that cannot be reached is not watched.
    pub(super) fn start(ranks: &dyn Communicator, hosts: &[String], end: fn() -> !) -> Result<Watch> {
        let (rank, names) = (ranks.rank(), (0..ranks.size()).map(|rank| ranks.name(rank)).collect());
        let shared =
            Shared { names, links: Mutex::default(), step: AtomicU32::new(0), is_ending: AtomicBool::new(false), end };
        let watch = Watch { shared: Arc::new(shared) };
        // The first also accepts connections by IPv4.
        let any: [SocketAddr; 2] = [(Ipv6Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::UNSPECIFIED, 0).into()];
        let listener = TcpListener::bind(&any[..]).ok();
        let port = listener.as_ref().and_then(|listener| Some(listener.local_addr().ok()?.port()));
        // The key keeps strangers out, who might scan for open ports.
        let own = [u64::from(port.unwrap_or(0)), key(rank)];
        let all = gather_values(ranks, own)?;
        let parent = rank.checked_sub(1).map(|rank| rank / CHILDREN);
        let up = parent.and_then(|parent| connect((&hosts[rank], &hosts[parent]), all[parent], rank));
        let connected = gather_values(ranks, u64::from(up.is_some()))?;
        if let (Some(parent), Some(stream)) = (parent, up) {
            watch.add(parent, rank, stream);
        }
        let children = rank * CHILDREN + 1..=(rank + 1) * CHILDREN;
        let expected = children.filter(|&child| connected.get(child) == Some(&1)).count();
        if let Some(listener) = listener {
            for (child, stream) in accept(&listener, expected, own[1]) {
                watch.add(child, rank, stream);
            }
        }
        Ok(watch)
    }

    /// Tells the optimizer step that a message names.
    pub(super) fn at_step(&self, step: u32) {
        self.shared.step.store(step, Ordering::Relaxed);
    }

    /// Tells all ranks that the job ends, so that none reports this one.
    pub(super) fn leave(&self) {
        self.shared.leave();
    }

    /// Watches a rank by a thread that waits for its connection to be closed.
    fn add(&self, rank: usize, own: usize, stream: TcpStream) {
        let Ok(reader) = stream.try_clone() else { return };
        self.shared.links.lock().unwrap_or_else(PoisonError::into_inner).push((rank, stream));
        let shared = self.shared.clone();
        let watch = move || shared.wait(rank, own, reader);
        // Without the thread, the rank is not watched.
        let _ = std::thread::Builder::new().name(format!("watch of rank {rank}")).stack_size(1 << 20).spawn(watch);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.leave();
        for (_, link) in self.shared.links.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // Ends the thread that reads from it.
            let _ = link.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn leave(&self) {
        if !self.is_ending.swap(true, Ordering::SeqCst) {
            self.tell();
        }
    }

    /// Tells the connected ranks that the job ends.
    fn tell(&self) {
        for (_, link) in self.links.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            let _ = link.write_all(&[1]);
        }
    }

    /// Returns the connected ranks whose processes have ended: the launcher may already have killed some because of the first.
    fn dead(&self) -> Vec<&str> {
        let is_dead = |link: &TcpStream| {
            // The thread that reads from it is not affected: it waits already.
            let _ = link.set_nonblocking(true);
            link.peek(&mut [0]).map_or_else(|error| error.kind() != ErrorKind::WouldBlock, |read| read == 0)
        };
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.iter().filter(|(_, link)| is_dead(link)).map(|(rank, _)| &self.names[*rank][..]).collect()
    }

    fn wait(&self, rank: usize, own: usize, mut stream: TcpStream) {
        let read = loop {
            match stream.read(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read.unwrap_or(0),
            }
        };
        if read == 1 {
            // The others must know, too: they see this rank leave before long.
            self.leave();
            return;
        }
        std::thread::sleep(TURN * turn(rank, own));
        if !self.is_ending.swap(true, Ordering::SeqCst) {
            let mut dead = self.dead();
            if dead.is_empty() {
                dead.push(&self.names[rank]);
            }
            print_last(&died(&dead, self.step.load(Ordering::Relaxed)), || self.tell());
            (self.end)();
        }
    }
}

/// Prints the error message after which the job ends, and tells other ranks by `tell` not to print one. It is written at once,
/// so that a launcher does not mix it with its own.
pub(super) fn print_last(message: &str, tell: impl FnOnce()) {
    // Nobody is left to be told that standard error is closed.
    let _ = std::io::stderr().write_all(format!("error: {message}\n").as_bytes());
    tell();
    std::thread::sleep(FORWARD);
}

/// Returns the turn in which rank `own` reports the death of a rank that it is connected to: the parent is first, the children
/// follow.
fn turn(dead: usize, own: usize) -> u32 {
    match dead {
        0 => own as u32 - 1,
        _ if dead > own => 0,
        _ => (own - dead * CHILDREN) as u32,
    }
}

fn died(names: &[&str], step: u32) -> String {
    let place = if step == 0 { "before the first optimizer step".into() } else { format!("in optimizer step {step}") };
    let have = if names.len() == 1 { "has" } else { "have" };
    format!("{} {have} died {place}; the last checkpoint is complete", names.join(" and "))
}

/// Returns a number that is hard to guess.
fn key(rank: usize) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(rank)
}

/// Connects to another rank, which listens at the port and expects the key.
fn connect((own, host): (&str, &str), [port, key]: [u64; 2], rank: usize) -> Option<TcpStream> {
    let port = u16::try_from(port).ok().filter(|&port| port > 0)?;
    let addresses: Vec<SocketAddr> = match own == host {
        true => vec![(Ipv4Addr::LOCALHOST, port).into()],
        false => (host, port).to_socket_addrs().ok()?.collect(),
    };
    let mut stream = addresses.iter().find_map(|address| TcpStream::connect_timeout(address, CONNECT).ok())?;
    stream.write_all(bytemuck::cast_slice(&[key, rank as u64])).ok()?;
    Some(stream)
}

/// Accepts the connections of this many children, and returns them with their ranks.
fn accept(listener: &TcpListener, expected: usize, key: u64) -> Vec<(usize, TcpStream)> {
    let (start, mut found) = (Instant::now(), Vec::new());
    if listener.set_nonblocking(true).is_err() {
        return found;
    }
    while found.len() < expected && start.elapsed() < CONNECT {
        match listener.accept() {
            Ok((stream, _)) => found.extend(greeted(stream, key)),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    found
}

/// Reads what a child says of itself.
fn greeted(mut stream: TcpStream, expected: u64) -> Option<(usize, TcpStream)> {
    stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(CONNECT))).ok()?;
    let mut greeting = [0u64; 2];
    stream.read_exact(bytemuck::cast_slice_mut(&mut greeting)).ok()?;
    stream.set_read_timeout(None).ok()?;
    let [key, rank] = greeting;
    (key == expected).then_some((rank as usize, stream))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::communicator::Threads;

    #[test]
    fn the_parent_reports_first() {
        assert_eq!([turn(3, 0), turn(0, 1), turn(0, 2), turn(20, 2), turn(2, 17), turn(2, 18)], [0, 0, 1, 0, 1, 2]);
        let one = died(&["rank 3 on a"], 17);
        assert_eq!(one, "rank 3 on a has died in optimizer step 17; the last checkpoint is complete");
        let two = died(&["rank 3 on a", "rank 4 on a"], 0);
        assert!(two.starts_with("rank 3 on a and rank 4 on a have died before the first optimizer step"), "{two}");
    }

    fn links(watch: &Watch) -> usize {
        watch.shared.links.lock().unwrap().len()
    }

    #[test]
    fn all_ranks_are_connected_and_leave_in_peace() {
        let hosts = vec!["here".to_string(); 12];
        let links = Threads::run(12, |ranks| {
            let watch = Watch::start(&*ranks, &hosts, || unreachable!("no rank has died")).unwrap();
            ranks.barrier().unwrap();
            links(&watch)
        });
        assert_eq!(links, [8, 4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn one_rank_reports_a_death() {
        static REPORTS: AtomicU32 = AtomicU32::new(0);
        fn end() -> ! {
            REPORTS.fetch_add(1, Ordering::SeqCst);
            loop {
                std::thread::park();
            }
        }
        for (dead, reports) in [(2, 1), (0, 2)] {
            Threads::run(3, |ranks| {
                let watch = Watch::start(&*ranks, &["here", "here", "here"].map(String::from), end).unwrap();
                ranks.barrier().unwrap();
                if ranks.rank() == dead {
                    // What the system does when a process ends, but for the threads here.
                    watch.shared.is_ending.store(true, Ordering::SeqCst);
                    watch.shared.links.lock().unwrap().iter().for_each(|(_, link)| drop(link.shutdown(Shutdown::Both)));
                }
                std::thread::sleep(TURN / 20);
                ranks.barrier().unwrap();
            });
            assert_eq!(REPORTS.load(Ordering::SeqCst), reports, "{dead}");
        }
    }
}
