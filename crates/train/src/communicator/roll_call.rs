//! Finds out which ranks are lost when an exchange does not end.
//!
//! In a collective, every rank waits for a rank that hangs, so a rank that waits cannot see whom it waits for. After the
//! timeout it sends a message to all others. A rank that waits too answers at once, whenever its own timeout is; a rank that
//! computes, hangs or is dead does not. The lowest rank that is present names those that are not, and ends the job.

use std::time::{Duration, Instant};

use mpi::environment::Universe;
use mpi::request::StaticScope;
use mpi::traits::{Communicator as _, Destination as _, Source as _};

use super::watch::{Watch, print_last};

/// The tag of the messages, which no other message has: all else is collective.
const PRESENT: i32 = 7;

/// The time in which ranks that wait answer.
const ANSWER: Duration = Duration::from_secs(1);

/// The interval at which a waiting rank looks for messages.
const LOOK: Duration = Duration::from_millis(50);

/// The look-out of a rank that waits for others.
pub(super) struct RollCall<'u> {
    pub(super) universe: &'u Universe,
    pub(super) watch: Option<&'u Watch>,
    pub(super) names: &'u [String],
    pub(super) timeout: Duration,
    pub(super) step: u32,
    /// How long the rank had waited when it last looked for messages.
    pub(super) looked: Duration,
}

impl RollCall<'_> {
    /// Ends the job if this rank has waited for the timeout, or if another one has.
    pub(super) fn poll(&mut self, waited: Duration) {
        if waited < self.looked + LOOK {
            return;
        }
        self.looked = waited;
        let asked = self.universe.world().any_process().immediate_probe_with_tag(PRESENT).is_some();
        if asked || waited >= self.timeout {
            self.end(waited);
        }
    }

    fn end(&self, waited: Duration) -> ! {
        let world = self.universe.world();
        let (me, ranks) = (world.rank(), world.size());
        for rank in (0..ranks).filter(|&rank| rank != me) {
            let sent = world.process_at_rank(rank).immediate_send_with_tag(StaticScope, &[] as &[u8], PRESENT);
            // A lost rank never receives it, so it is never complete.
            std::mem::forget(sent);
        }
        let mut is_present: Vec<bool> = (0..ranks).map(|rank| rank == me).collect();
        let start = Instant::now();
        while start.elapsed() < ANSWER && is_present.contains(&false) {
            while let Some(found) = world.any_process().immediate_probe_with_tag(PRESENT) {
                let from = found.source_rank();
                world.process_at_rank(from).receive_into_with_tag(&mut [] as &mut [u8], PRESENT);
                is_present[from as usize] = true;
            }
            std::thread::sleep(LOOK / 10);
        }
        let lowest = is_present.iter().position(|&is_present| is_present);
        let tell = || self.watch.into_iter().for_each(Watch::leave);
        if lowest == Some(me as usize) {
            print_last(&lost(self.names, &is_present, self.step, waited.max(self.timeout)), tell);
        } else {
            // The one that has the message ends the job.
            std::thread::sleep(ANSWER);
            tell();
        }
        world.abort(1)
    }
}

/// Returns the message about the ranks that are not present.
fn lost(names: &[String], is_present: &[bool], step: u32, waited: Duration) -> String {
    let lost: Vec<&str> =
        names.iter().zip(is_present).filter(|(_, is_present)| !**is_present).map(|(name, _)| &name[..]).collect();
    let place = if step == 0 { "before the first optimizer step".into() } else { format!("in optimizer step {step}") };
    match &lost[..] {
        [] => format!("an exchange {place} has not ended after {waited:.0?}: the ranks wait for different ones"),
        lost => format!(
            "{} has made no progress for {waited:.0?} {place}: it hangs, has died or needs a longer --timeout; the last \
             checkpoint is complete",
            lost.join(" and ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_ranks_are_named() {
        let names = ["rank 0 on a", "rank 1 on b", "rank 2 on b"].map(String::from);
        let message = |present: [bool; 3], step| lost(&names, &present, step, Duration::from_secs(60));
        assert!(
            message([true, false, true], 12)
                .starts_with("rank 1 on b has made no progress for 60s in optimizer step 12")
        );
        assert!(message([false, true, false], 0).starts_with("rank 0 on a and rank 2 on b has made no progress"));
        assert!(message([true; 3], 3).starts_with("an exchange in optimizer step 3 has not ended after 60s"));
    }
}
