//! The time that a GPU takes for each kernel, copy and memset, between two events of the stream.
//!
//! While a thread times, its work is enqueued unit by unit, not gathered into graphs: a graph has no events between its nodes.

use std::cell::RefCell;
use std::ffi::c_int;
use std::time::Duration;

use cudarc::driver::{result, sys};

use super::driver::check;
use crate::error::{Error, Result};

const OP: &str = "profile";

/// The first driver that has `cuEventElapsedTime_v2`: as `cuDriverGetVersion` returns it, and by its release number.
const OLDEST_DRIVER: (c_int, &str) = (12080, "570");

thread_local! {
    /// The work that this thread has timed so far; `None` while it is not timing.
    static TIMED: RefCell<Option<Vec<Timed>>> = const { RefCell::new(None) };
}

/// A unit of work between two events.
struct Timed {
    name: &'static str,
    start: Event,
    end: Event,
}

/// A point in time of a stream.
struct Event(sys::CUevent);

impl Event {
    /// Records an event on a stream, whose context must be current.
    fn record(stream: sys::CUstream) -> Result<Event> {
        let event = Event(check(OP, "cuEventCreate", result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT))?);
        // SAFETY: the event was just created, and the caller made the context of the stream current.
        check(OP, "cuEventRecord", unsafe { result::event::record(event.0, stream) })?;
        Ok(event)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event belongs to this value. The driver finishes what is under way.
        let _ = unsafe { result::event::destroy(self.0) };
    }
}

/// Returns whether this thread times its work.
pub(super) fn is_timing() -> bool {
    TIMED.with_borrow(Option::is_some)
}

/// Calls `enqueue`, and times what it enqueues on `stream` if this thread times its work.
pub(super) fn timed(name: &'static str, stream: sys::CUstream, enqueue: impl FnOnce() -> Result<()>) -> Result<()> {
    if !is_timing() {
        return enqueue();
    }
    let start = Event::record(stream)?;
    enqueue()?;
    let timed = Timed { name, start, end: Event::record(stream)? };
    TIMED.with_borrow_mut(|all| all.get_or_insert_default().push(timed));
    Ok(())
}

/// Times the work of this thread until it is dropped.
pub(super) struct Timing {
    /// The work recorded by an enclosing timing, which is restored on drop.
    outer: Option<Vec<Timed>>,
}

impl Timing {
    /// Begins to time what this thread submits.
    ///
    /// # Errors
    /// Returns an error if the driver is too old.
    pub(super) fn start() -> Result<Timing> {
        let mut version: c_int = 0;
        // SAFETY: this only writes an int to the pointer.
        check(OP, "cuDriverGetVersion", unsafe { sys::cuDriverGetVersion(&mut version) }.result())?;
        if version < OLDEST_DRIVER.0 {
            let needed = OLDEST_DRIVER.1;
            return Err(Error::device(OP, format!("this driver cannot time kernels: update it to {needed} or newer")));
        }
        Ok(Timing { outer: TIMED.replace(Some(Vec::new())) })
    }

    /// Returns the time of each unit of work since the start. All of it must be done.
    ///
    /// # Errors
    /// Returns an error if the driver refuses.
    pub(super) fn times(&self) -> Result<Vec<(&'static str, Duration)>> {
        let time = |Timed { name, start, end }: &Timed| {
            // SAFETY: both events were recorded on one stream, and live.
            let ms = check(OP, "cuEventElapsedTime", unsafe { result::event::elapsed(start.0, end.0) })?;
            Ok((*name, Duration::try_from_secs_f32(ms / 1e3).unwrap_or_default()))
        };
        TIMED.with_borrow(|timed| timed.iter().flatten().map(time).collect())
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        TIMED.replace(self.outer.take());
    }
}
