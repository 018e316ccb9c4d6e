//! The time that a GPU takes for each kernel, copy and memset, between two events of the stream.
//!
//! While a thread times, its work is enqueued unit by unit, not gathered into graphs: a graph has no events between its nodes.

use std::cell::RefCell;
use std::ffi::c_int;
use std::time::Duration;

use cudarc::driver::{result, sys};

use super::device::CudaDevice;
use super::driver::check;
use crate::error::{Error, Result};

const OP: &str = "profile";

/// The first driver that has `cuEventElapsedTime_v2`: as `cuDriverGetVersion` returns it, and by its release number.
const OLDEST_DRIVER: (c_int, &str) = (12080, "570");

thread_local! {
    /// What this thread has timed; `None` if it does not time.
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

impl CudaDevice {
    /// Runs `f` and returns the time that the device took for each unit of work that this thread submitted.
    ///
    /// # Errors
    /// Returns an error if the driver is too old, or if a kernel failed.
    pub(crate) fn timed<R>(&self, f: impl FnOnce() -> R) -> Result<(R, Vec<(&'static str, Duration)>)> {
        /// Ends the timing, also if `f` panics.
        struct Restore(Option<Vec<Timed>>);
        impl Drop for Restore {
            fn drop(&mut self) {
                TIMED.replace(self.0.take());
            }
        }
        let mut version: c_int = 0;
        // SAFETY: this only writes an int to the pointer.
        check(OP, "cuDriverGetVersion", unsafe { sys::cuDriverGetVersion(&mut version) }.result())?;
        if version < OLDEST_DRIVER.0 {
            let needed = OLDEST_DRIVER.1;
            return Err(Error::device(OP, format!("this driver cannot time kernels: update it to {needed} or newer")));
        }
        // What was submitted before is not a part of the first kernel's time.
        self.synchronize()?;
        let restore = Restore(TIMED.replace(Some(Vec::new())));
        let done = f();
        let timed = TIMED.take().unwrap_or_default();
        drop(restore);
        self.synchronize()?;
        let time = |Timed { name, start, end }: &Timed| {
            // SAFETY: both events were recorded on one stream, and live.
            let ms = check(OP, "cuEventElapsedTime", unsafe { result::event::elapsed(start.0, end.0) })?;
            Ok((*name, Duration::try_from_secs_f32(ms / 1e3).unwrap_or_default()))
        };
        let times = timed.iter().map(time).collect::<Result<_>>()?;
        Ok((done, times))
    }
}
