//! Pinned host memory that the device copies from.
//!
//! A copy from pageable memory makes the host wait, so bytes for the device are staged in pinned memory, which the device
//! reads when it gets there. There are two areas in turns: the host fills one while the device may still read the other.

use std::ffi::c_void;
use std::ptr::NonNull;

use cudarc::driver::{result, sys};

use super::driver::check;
use crate::error::{Error, Result};

const ALIGNMENT: usize = 64;
const SMALLEST_CHUNK: usize = 1 << 20;

/// The two areas.
#[derive(Default)]
pub(super) struct Staging {
    areas: [Area; 2],
    current: usize,
    turns: u64,
}

/// Memory that is filled from its start. Equal pieces in equal order get equal addresses every time.
#[derive(Default)]
struct Area {
    chunks: Vec<(NonNull<u8>, usize)>,
    /// The chunk that is being filled, and how many of its bytes are in use.
    at: (usize, usize),
    /// The turn since which the device may be reading the area; `None` once it is known to have finished.
    is_read_since: Option<u64>,
}

impl Staging {
    /// Switches to the other area, after waiting for `stream` if the device may still be reading it.
    pub(super) fn turn(&mut self, op: &'static str, stream: sys::CUstream) -> Result<()> {
        self.turns += 1;
        self.areas[self.current].is_read_since = Some(self.turns);
        self.current = 1 - self.current;
        if self.areas[self.current].is_read_since.is_some() {
            // SAFETY: `stream` belongs to the device, whose streams are never destroyed.
            check(op, "cuStreamSynchronize", unsafe { result::stream::synchronize(stream) })?;
            self.is_done(self.turns);
        }
        self.areas[self.current].at = (0, 0);
        Ok(())
    }

    /// Makes the next piece start at the start of an area.
    pub(super) fn begin(&mut self, op: &'static str, stream: sys::CUstream) -> Result<()> {
        if self.areas[self.current].at == (0, 0) { Ok(()) } else { self.turn(op, stream) }
    }

    /// Switches to the other area if the first chunk of this one is full.
    pub(super) fn turn_if_full(&mut self, op: &'static str, stream: sys::CUstream) -> Result<()> {
        if self.areas[self.current].at.0 == 0 { Ok(()) } else { self.turn(op, stream) }
    }

    /// Returns the number of turns so far.
    pub(super) fn turns(&self) -> u64 {
        self.turns
    }

    /// Records that the device has finished everything that was enqueued in the first `turns` turns.
    pub(super) fn is_done(&mut self, turns: u64) {
        self.areas.iter_mut().for_each(|area| area.is_read_since = area.is_read_since.filter(|&since| since > turns));
    }

    /// Copies bytes into the current area, where they stay until the turn after the next.
    pub(super) fn keep(&mut self, op: &'static str, bytes: &[u8]) -> Result<*const c_void> {
        let area = &mut self.areas[self.current];
        let room = bytes.len().next_multiple_of(ALIGNMENT);
        while area.chunks.get(area.at.0).is_some_and(|&(_, capacity)| capacity - area.at.1 < room) {
            area.at = (area.at.0 + 1, 0);
        }
        if area.at.0 == area.chunks.len() {
            let capacity = room.max(SMALLEST_CHUNK);
            // SAFETY: plain memory, which is never freed.
            let chunk = check(op, "cuMemHostAlloc", unsafe { result::malloc_host(capacity, 0) })?;
            let chunk = NonNull::new(chunk.cast()).ok_or_else(|| Error::device(op, "the driver returned no memory"))?;
            area.chunks.push((chunk, capacity));
        }
        let (chunk, used) = (area.chunks[area.at.0].0, area.at.1);
        area.at.1 += room;
        let to = chunk.as_ptr().wrapping_add(used);
        // SAFETY: the chunk has `room` bytes from `used` on: the loop above skipped chunks with less, and a new one is at
        // least that large. The device reads only bytes before `used` and the other area.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(to.cast_const().cast())
    }
}
