//! Memory of the host that is copied from: pinned, so that the device reads it by itself, and two areas of it, so that one
//! is filled while the device still reads the other.

use std::ffi::c_void;
use std::ptr::NonNull;

use cudarc::driver::{result, sys};

use super::device::check;
use crate::{Error, Result};

const ALIGNMENT: usize = 64;
const SMALLEST_CHUNK: usize = 1 << 20;

/// Both areas.
#[derive(Default)]
pub(super) struct Staging {
    areas: [Area; 2],
    current: usize,
    turns: u64,
}

/// Memory that is filled from its start. The same pieces in the same order lie at the same addresses every time.
#[derive(Default)]
struct Area {
    chunks: Vec<(NonNull<u8>, usize)>,
    /// The chunk that is filled, and how much of it is.
    at: (usize, usize),
    /// The turn from which on the device reads it, unless that is known to be over.
    is_read_since: Option<u64>,
}

impl Staging {
    /// Goes on to the other area. Waits for `stream` where the device may still read that.
    pub(super) fn turn(&mut self, op: &'static str, stream: sys::CUstream) -> Result<()> {
        self.turns += 1;
        self.areas[self.current].is_read_since = Some(self.turns);
        self.current = 1 - self.current;
        if self.areas[self.current].is_read_since.is_some() {
            // SAFETY: the stream is the device's.
            check(op, "cuStreamSynchronize", unsafe { result::stream::synchronize(stream) })?;
            self.is_done(self.turns);
        }
        self.areas[self.current].at = (0, 0);
        Ok(())
    }

    /// Starts at the start of an area.
    pub(super) fn begin(&mut self, op: &'static str, stream: sys::CUstream) -> Result<()> {
        if self.areas[self.current].at == (0, 0) { Ok(()) } else { self.turn(op, stream) }
    }

    /// Goes on when the first chunk is full.
    pub(super) fn turn_if_full(&mut self, op: &'static str, stream: sys::CUstream) -> Result<()> {
        if self.areas[self.current].at.0 == 0 { Ok(()) } else { self.turn(op, stream) }
    }

    /// How often it went on so far.
    pub(super) fn turns(&self) -> u64 {
        self.turns
    }

    /// The device has done everything that was asked for before so many turns.
    pub(super) fn is_done(&mut self, turns: u64) {
        self.areas.iter_mut().for_each(|area| area.is_read_since = area.is_read_since.filter(|&since| since > turns));
    }

    /// Keeps a copy of these bytes until the next turn but one.
    pub(super) fn keep(&mut self, op: &'static str, bytes: &[u8]) -> Result<*const c_void> {
        let area = &mut self.areas[self.current];
        let room = bytes.len().next_multiple_of(ALIGNMENT);
        while area.chunks.get(area.at.0).is_some_and(|&(_, capacity)| capacity - area.at.1 < room) {
            area.at = (area.at.0 + 1, 0);
        }
        if area.at.0 == area.chunks.len() {
            let capacity = room.max(SMALLEST_CHUNK);
            // SAFETY: plain memory, kept as long as the process.
            let chunk = check(op, "cuMemHostAlloc", unsafe { result::malloc_host(capacity, 0) })?;
            let chunk = NonNull::new(chunk.cast()).ok_or_else(|| Error::device(op, "the driver gave no memory"))?;
            area.chunks.push((chunk, capacity));
        }
        let (chunk, used) = (area.chunks[area.at.0].0, area.at.1);
        area.at.1 += room;
        // SAFETY: there is room from `used` on, which nobody reads: what the device reads is in the other area.
        unsafe {
            let to = chunk.as_ptr().add(used);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
            Ok(to.cast_const().cast())
        }
    }
}
