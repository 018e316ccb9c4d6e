//! The order in which work reaches the device: immediately, or gathered into a CUDA graph.
//!
//! Outside [`Stream::gather`] each unit of work is enqueued when it is submitted. Inside, work is only recorded. It goes to
//! the device as one graph when a value is read, when memory runs out, and when the closure ends. So a graph computes what
//! separate launches compute, whatever the model does in between, without their cost.
//!
//! Small inputs that many layers read, such as the starts of sequences, are copied to the device once per graph.

use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{result, sys};

use super::driver::{Context, Pointer, check};
use super::graph::{GraphUse, Graphs};
use super::pool::Block;
use super::staging::Staging;
use super::timing::is_timing;
use super::work::Work;
use crate::error::Result;
use crate::memory::is_dry;
use crate::profile::{GpuCost, launched};

/// Larger writes are not staged: they make the host wait instead.
const LARGEST_STAGED: usize = 1 << 18;

/// The one stream of a device. Threads that submit work take turns.
pub(super) struct Stream {
    context: Context,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// Recorded work; `None` if work is enqueued immediately.
    gathered: Option<Vec<Work>>,
    /// Whether work has been launched since the last turn of the staging area.
    is_turn_due: bool,
    staging: Staging,
    inputs: Vec<Input>,
    graphs: Graphs,
}

/// Bytes that the graph being gathered copies to the device.
struct Input {
    staged: *const c_void,
    bytes: usize,
    on_device: Arc<Block>,
}

impl Stream {
    pub(super) fn new(context: Context) -> Stream {
        Stream { context, queue: Mutex::default() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the device's context current on this thread.
    pub(super) fn enter(&self, op: &'static str) -> Result<sys::CUstream> {
        self.context.enter(op)
    }

    /// Returns how the graphs launched so far were used.
    pub(super) fn graph_use(&self) -> GraphUse {
        self.queue().graphs.uses
    }

    /// Runs `work` and launches what it submits as a graph. Inside another call, and while each unit is timed, this one only
    /// runs `work`.
    pub(super) fn gather<R>(&self, work: impl FnOnce() -> R) -> Result<R> {
        if is_dry() || is_timing() {
            return Ok(work());
        }
        let mut queue = self.queue();
        if queue.gathered.is_some() {
            drop(queue);
            return Ok(work());
        }
        // Staged bytes must have the same addresses in every graph.
        queue.staging.begin("graph", self.enter("graph")?)?;
        queue.gathered = Some(Vec::new());
        drop(queue);
        /// Ends the gathering if `work` panics.
        struct Gathering<'a>(&'a Stream);
        impl Drop for Gathering<'_> {
            fn drop(&mut self) {
                // Tensors that outlive the panic then hold what they would hold without a graph.
                let _ = self.0.launch_gathered("graph", true);
            }
        }
        let gathering = Gathering(self);
        let done = work();
        std::mem::forget(gathering);
        self.launch_gathered("graph", true)?;
        Ok(done)
    }

    /// Submits work, whose pointers must stay valid until it is done: buffers guarantee that, because the pool hands a
    /// dropped block only to later work.
    pub(super) fn submit(&self, op: &'static str, work: Work) -> Result<()> {
        if is_dry() {
            return Ok(());
        }
        let mut queue = self.queue();
        match &mut queue.gathered {
            Some(gathered) => gathered.push(work),
            // SAFETY: `Launch` and `memory` build all work, from buffers of this device and the arguments that each
            // kernel declares; `enter` makes the stream's context current.
            None => unsafe { work.launch(op, self.enter(op)?)? },
        }
        Ok(())
    }

    /// Submits a copy of `bytes` to the device. The bytes are read before this returns.
    pub(super) fn submit_write(&self, op: &'static str, to: Pointer, bytes: &[u8]) -> Result<()> {
        if is_dry() {
            return Ok(());
        }
        self.queue().write(op, self.enter(op)?, to, bytes).map(drop)
    }

    /// Returns the block that the graph being gathered already copies these bytes to.
    pub(super) fn known_input(&self, bytes: &[u8]) -> Option<Arc<Block>> {
        let queue = self.queue();
        let is_equal = |input: &&Input| {
            // SAFETY: `input.bytes` bytes were staged at this address, and they stay there until the next turn of the
            // staging area, which also empties this list.
            input.bytes == bytes.len()
                && unsafe { std::slice::from_raw_parts(input.staged.cast::<u8>(), bytes.len()) } == bytes
        };
        queue.inputs.iter().rfind(is_equal).map(|input| input.on_device.clone())
    }

    /// Submits a copy of `bytes` to a block that nothing else will write while the graph is gathered.
    pub(super) fn submit_input(&self, op: &'static str, to: &Arc<Block>, bytes: &[u8]) -> Result<()> {
        if is_dry() {
            return Ok(());
        }
        let mut queue = self.queue();
        let staged = queue.write(op, self.enter(op)?, to.pointer(), bytes)?;
        if let Some(staged) = staged {
            queue.inputs.push(Input { staged, bytes: bytes.len(), on_device: to.clone() });
        }
        Ok(())
    }

    /// Launches the work gathered so far and goes on gathering, without waiting for the device: what is staged stays where it
    /// is. Returns the stream.
    pub(super) fn launch_so_far(&self, op: &'static str) -> Result<sys::CUstream> {
        let mut queue = self.queue();
        let stream = self.enter(op)?;
        let work = queue.gathered.as_mut().map(std::mem::take);
        if let Some(work) = work.filter(|work| !work.is_empty()) {
            // SAFETY: as in `submit`, through which all of it came; `enter` made the context current.
            let launched = unsafe { queue.graphs.launch(op, self.context, stream, work) };
            queue.is_turn_due = true;
            launched?;
        }
        Ok(stream)
    }

    /// Launches the work gathered so far.
    pub(super) fn flush(&self, op: &'static str) -> Result<()> {
        self.launch_gathered(op, false)
    }

    /// Launches the work gathered so far and, if `is_last`, stops gathering.
    fn launch_gathered(&self, op: &'static str, is_last: bool) -> Result<()> {
        let mut queue = self.queue();
        // Under one lock, so that no other thread's work slips in between the last unit and the end.
        let work = if is_last { queue.gathered.take() } else { queue.gathered.as_mut().map(std::mem::take) };
        let Some(work) = work.filter(|work| !work.is_empty() || queue.is_turn_due) else { return Ok(()) };
        queue.is_turn_due = false;
        let stream = self.enter(op)?;
        // SAFETY: as in `submit`, through which all of it came; `enter` made the context current.
        let launched = unsafe { queue.graphs.launch(op, self.context, stream, work) };
        let turned = queue.staging.turn(op, stream);
        let inputs = std::mem::take(&mut queue.inputs);
        drop(queue);
        // Dropping a block locks the pool, so it happens outside the queue's lock.
        drop(inputs);
        launched.and(turned)
    }

    /// Gives the memory of kept graphs back to the device.
    pub(super) fn forget_graphs(&self) {
        self.queue().graphs.clear();
    }

    /// Calls `wait`, which waits for everything that was enqueued before. Other threads may submit work meanwhile.
    pub(super) fn wait(&self, wait: impl FnOnce() -> Result<()>) -> Result<()> {
        let turns = self.queue().staging.turns();
        wait()?;
        self.queue().staging.is_done(turns);
        Ok(())
    }
}

impl Queue {
    /// Submits a copy of `bytes` to the device; returns the address at which a graph has them staged.
    fn write(
        &mut self,
        op: &'static str,
        stream: sys::CUstream,
        to: Pointer,
        bytes: &[u8],
    ) -> Result<Option<*const c_void>> {
        launched("copy to the device", GpuCost { bytes: bytes.len() as u64, operations: 0 });
        match &mut self.gathered {
            Some(gathered) => {
                let from = self.staging.keep(op, bytes)?;
                gathered.push(Work::Write { to, from, bytes: bytes.len() });
                Ok(Some(from))
            }
            None if bytes.len() > LARGEST_STAGED => {
                let work = Work::Write { to, from: bytes.as_ptr().cast(), bytes: bytes.len() };
                // SAFETY: `bytes` is borrowed until this returns, and the next line waits for the copy.
                let launched = unsafe { work.launch(op, stream) };
                // SAFETY: `stream` belongs to the device, whose streams are never destroyed.
                launched.and(check(op, "cuStreamSynchronize", unsafe { result::stream::synchronize(stream) }))?;
                Ok(None)
            }
            None => {
                let from = self.staging.keep(op, bytes)?;
                // SAFETY: staged bytes stay in place until a turn has waited for the device to read them.
                unsafe { Work::Write { to, from, bytes: bytes.len() }.launch(op, stream)? };
                self.staging.turn_if_full(op, stream)?;
                Ok(None)
            }
        }
    }
}
