//! Work that is gathered and launched as one CUDA graph.
//!
//! What a step asks for is written down instead of launched, and goes to the device as a graph when somebody waits for it. The
//! next step that asks for the same kernels in the same order is that graph again, with the numbers and addresses changed that
//! differ: lengths, learning rates, steps of dropout. So a graph is what launches would have been, whatever the model does
//! between them, and saves what each launch costs. Few addresses differ: memory is given by address, lowest first, so that
//! equal steps get equal blocks.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::{Arc, MutexGuard, PoisonError};

use bytemuck::Pod;
use cudarc::driver::{result, sys};

use super::device::{CudaDevice, check};
use super::memory::DeviceBuffer;
use super::staging::Staging;
use super::work::Work;
use super::{Pointer, device};
use crate::{Error, Result};

/// Graphs that are kept: a step with and without its rarer parts, for training and for evaluation.
const KEPT: usize = 8;
/// Less than this is launched as it is.
const SMALLEST: usize = 4;
/// Bytes that are copied to pinned memory first, for the device to fetch when it comes to it. For more, it is waited.
const LARGEST_STAGED: usize = 1 << 18;

/// What a device is asked for and was not yet.
#[derive(Default)]
pub(super) struct Queue {
    /// Nothing where work is launched at once.
    gathered: Option<Vec<Work>>,
    staging: Staging,
    /// What was copied to the device for this graph: where it is staged, and where it is there.
    inputs: Vec<(*const c_void, Arc<DeviceBuffer>)>,
    /// The one that was used last at the end.
    graphs: VecDeque<Graph>,
    uses: GraphUse,
}

/// How often a device was given graphs: [`CudaDevice::graph_use`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GraphUse {
    /// Graphs that were built.
    pub built: usize,
    /// Graphs that were launched.
    pub launched: usize,
    /// Kernels and copies in those that were built before, all together.
    pub replayed: usize,
    /// How many of these were changed first.
    pub changed: usize,
}

impl CudaDevice {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often graphs were launched so far.
    pub fn graph_use(&self) -> GraphUse {
        self.queue().uses
    }

    /// As [`Device::as_graph`](crate::Device::as_graph).
    pub(crate) fn as_graph<R>(&self, work: impl FnOnce() -> R) -> Result<R> {
        let mut queue = self.queue();
        if queue.gathered.is_some() {
            drop(queue);
            return Ok(work());
        }
        // What is staged lies at the same addresses in every graph.
        queue.staging.begin("graph", self.enter("graph")?)?;
        queue.gathered = Some(Vec::new());
        drop(queue);
        /// Ends it, also when `work` panics.
        struct Gathering<'a>(&'a CudaDevice);
        impl Drop for Gathering<'_> {
            fn drop(&mut self) {
                // After a panic, the tensors that outlive it are what they would be without a graph.
                let _ = self.0.launch_gathered("graph", true);
            }
        }
        let gathering = Gathering(self);
        let done = work();
        std::mem::forget(gathering);
        self.launch_gathered("graph", true)?;
        Ok(done)
    }

    /// Asks for it: now, or with the rest of a graph.
    pub(super) fn submit(&self, op: &'static str, work: Work) -> Result<()> {
        let mut queue = self.queue();
        match &mut queue.gathered {
            Some(gathered) => gathered.push(work),
            // SAFETY: `Launch` and `memory` name what is there.
            None => unsafe { work.launch(op, self.enter(op)?)? },
        }
        Ok(())
    }

    /// Asks for a copy of these bytes, which are read before this returns.
    pub(super) fn submit_write(&self, op: &'static str, to: Pointer, bytes: &[u8]) -> Result<()> {
        self.queue().write(op, self.enter(op)?, to, bytes).map(drop)
    }

    /// These numbers on the device, to be read alone: what every layer reads is copied once for a graph.
    pub(super) fn input<T: Pod>(&self, op: &'static str, numbers: &[T]) -> Result<Arc<DeviceBuffer>> {
        let bytes: &[u8] = bytemuck::cast_slice(numbers);
        if let Some(known) = self.queue().known(bytes) {
            return Ok(known);
        }
        let there = Arc::new(self.allocate(op, bytes.len())?);
        if bytes.is_empty() {
            return Ok(there);
        }
        let mut queue = self.queue();
        let staged = queue.write(op, self.enter(op)?, there.pointer(), bytes)?;
        if let Some(staged) = staged {
            queue.inputs.push((staged, there.clone()));
        }
        Ok(there)
    }

    /// Launches what was gathered.
    pub(super) fn flush(&self, op: &'static str) -> Result<()> {
        self.launch_gathered(op, false)
    }

    /// Launches what was gathered; after the last of it, work is launched at once again.
    fn launch_gathered(&self, op: &'static str, is_last: bool) -> Result<()> {
        let mut queue = self.queue();
        // In one go, so that nothing is asked for between the last work and the end.
        let work = if is_last { queue.gathered.take() } else { queue.gathered.as_mut().map(std::mem::take) };
        let Some(work) = work.filter(|work| !work.is_empty()) else { return Ok(()) };
        let stream = self.enter(op)?;
        let launched = queue.launch(op, self, stream, work);
        let turned = queue.staging.turn(op, stream);
        let inputs = std::mem::take(&mut queue.inputs);
        drop(queue);
        // Only now: giving memory back takes the lock of the pool, whose holder may wait for that of the queue.
        drop(inputs);
        launched.and(turned)
    }

    /// Gives the memory of kept graphs back.
    pub(super) fn forget_graphs(&self) {
        self.queue().graphs.clear();
    }

    /// Waits by `wait` for what was asked for. Meanwhile, other threads may ask for more.
    pub(super) fn wait(&self, wait: impl FnOnce() -> Result<()>) -> Result<()> {
        let turns = self.queue().staging.turns();
        wait()?;
        self.queue().staging.is_done(turns);
        Ok(())
    }
}

impl Queue {
    /// Asks for a copy of these bytes; gives where they are staged for a graph.
    fn write(
        &mut self,
        op: &'static str,
        stream: sys::CUstream,
        to: Pointer,
        bytes: &[u8],
    ) -> Result<Option<*const c_void>> {
        match &mut self.gathered {
            Some(gathered) => {
                let from = self.staging.keep(op, bytes)?;
                gathered.push(Work::Write { to, from, bytes: bytes.len() });
                Ok(Some(from))
            }
            None if bytes.len() > LARGEST_STAGED => {
                let work = Work::Write { to, from: bytes.as_ptr().cast(), bytes: bytes.len() };
                // SAFETY: the caller has the memory, which is read before this returns.
                let launched = unsafe { work.launch(op, stream) };
                // SAFETY: the stream is the device's.
                launched.and(check(op, "cuStreamSynchronize", unsafe { result::stream::synchronize(stream) }))?;
                Ok(None)
            }
            None => {
                let from = self.staging.keep(op, bytes)?;
                // SAFETY: what is staged stays until the device has read it.
                unsafe { Work::Write { to, from, bytes: bytes.len() }.launch(op, stream)? };
                self.staging.turn_if_full(op, stream)?;
                Ok(None)
            }
        }
    }

    /// The input of this graph that is these bytes.
    fn known(&self, bytes: &[u8]) -> Option<Arc<DeviceBuffer>> {
        let is_equal = |(staged, there): &&(*const c_void, Arc<DeviceBuffer>)| {
            // SAFETY: as much was staged, and is not overwritten before the next turn, which ends this list.
            there.len() == bytes.len()
                && unsafe { std::slice::from_raw_parts(staged.cast::<u8>(), bytes.len()) } == bytes
        };
        self.inputs.iter().rfind(is_equal).map(|(_, there)| there.clone())
    }

    fn launch(&mut self, op: &'static str, device: &CudaDevice, stream: sys::CUstream, work: Vec<Work>) -> Result<()> {
        // SAFETY: as in `submit`.
        let one_by_one = |work: &[Work]| work.iter().try_for_each(|work| unsafe { work.launch(op, stream) });
        if work.len() < SMALLEST {
            return one_by_one(&work);
        }
        let is_alike = |graph: &Graph| {
            graph.work.len() == work.len() && graph.work.iter().zip(&work).all(|(one, other)| one.is_alike(other))
        };
        let known = self.graphs.iter().rposition(is_alike).and_then(|at| self.graphs.remove(at));
        let context = device.context();
        let graph = match known.map(|graph| graph.with(context, &work)) {
            Some(Ok((graph, changed))) => {
                self.uses.replayed += work.len();
                self.uses.changed += changed;
                Ok(graph)
            }
            // A driver that cannot change a graph can make one.
            Some(Err(_)) | None => {
                self.uses.built += 1;
                Graph::new(op, context, &work)
            }
        };
        // SAFETY: the graph is of this context, and what is in it was asked for as a launch is.
        let launch = |graph: &Graph| unsafe { sys::cuGraphLaunch(graph.executable, stream) }.result().is_ok();
        match graph {
            Ok(mut graph) if launch(&graph) => {
                self.uses.launched += 1;
                graph.work = work;
                self.graphs.push_back(graph);
                if self.graphs.len() > KEPT {
                    self.graphs.pop_front();
                }
                Ok(())
            }
            // A graph takes memory of the device, of which there may be none.
            _ => one_by_one(&work),
        }
    }
}

/// A graph whose nodes come one after another.
struct Graph {
    graph: sys::CUgraph,
    executable: sys::CUgraphExec,
    nodes: Vec<sys::CUgraphNode>,
    /// What it was launched with last.
    work: Vec<Work>,
}

impl Graph {
    fn new(op: &'static str, context: sys::CUcontext, work: &[Work]) -> Result<Graph> {
        // Its `Drop` takes care of what was made when something fails.
        let mut graph = Graph { graph: null_mut(), executable: null_mut(), nodes: Vec::new(), work: Vec::new() };
        // SAFETY: it writes a handle.
        check(op, "cuGraphCreate", unsafe { sys::cuGraphCreate(&mut graph.graph, 0) }.result())?;
        for work in work {
            let before = graph.nodes.last().copied();
            let before = before.as_slice();
            let (to, after, count) = (&mut null_mut(), before.as_ptr(), before.len());
            let graph_of = graph.graph;
            // SAFETY: the parameters say what a launch would; the driver copies them and the arguments.
            let added = Node::with(work, |node| unsafe {
                match node {
                    Node::Kernel(kernel) => sys::cuGraphAddKernelNode_v2(to, graph_of, after, count, kernel),
                    Node::Copy(copy) => sys::cuGraphAddMemcpyNode(to, graph_of, after, count, copy, context),
                    Node::Memset(memset) => sys::cuGraphAddMemsetNode(to, graph_of, after, count, memset, context),
                }
            });
            check(op, work.name(), added.result())?;
            graph.nodes.push(*to);
        }
        // SAFETY: the graph was just made.
        let made = unsafe { sys::cuGraphInstantiateWithFlags(&mut graph.executable, graph.graph, 0) };
        check(op, "cuGraphInstantiate", made.result())?;
        Ok(graph)
    }

    /// This graph for alike work, and how many of its nodes were changed.
    fn with(self, context: sys::CUcontext, work: &[Work]) -> Result<(Graph, usize)> {
        let mut changed = 0;
        for ((&node, before), work) in self.nodes.iter().zip(&self.work).zip(work) {
            if before == work {
                continue;
            }
            changed += 1;
            let graph = self.executable;
            // SAFETY: the node is of the graph that this was made from; the driver copies the parameters.
            let answer = Node::with(work, |to| unsafe {
                match to {
                    Node::Kernel(kernel) => sys::cuGraphExecKernelNodeSetParams_v2(graph, node, kernel),
                    Node::Copy(copy) => sys::cuGraphExecMemcpyNodeSetParams(graph, node, copy, context),
                    Node::Memset(memset) => sys::cuGraphExecMemsetNodeSetParams(graph, node, memset, context),
                }
            });
            answer.result().map_err(|error| Error::device("graph", device::describe(&error)))?;
        }
        Ok((self, changed))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: the handles are this graph's, or null. A launch that is under way goes on.
        unsafe {
            if !self.executable.is_null() {
                let _ = sys::cuGraphExecDestroy(self.executable);
            }
            if !self.graph.is_null() {
                let _ = sys::cuGraphDestroy(self.graph);
            }
        }
    }
}

/// Work as graphs take it.
enum Node<'a> {
    Kernel(&'a sys::CUDA_KERNEL_NODE_PARAMS),
    Copy(&'a sys::CUDA_MEMCPY3D),
    Memset(&'a sys::CUDA_MEMSET_NODE_PARAMS),
}

impl Node<'_> {
    fn with<R>(work: &Work, use_it: impl FnOnce(Node<'_>) -> R) -> R {
        match *work {
            Work::Kernel(ref kernel) => {
                let (mut pointers, [x, y, z]) = (kernel.arguments.pointers(), kernel.grid);
                use_it(Node::Kernel(&sys::CUDA_KERNEL_NODE_PARAMS {
                    func: kernel.function,
                    gridDimX: x,
                    gridDimY: y,
                    gridDimZ: z,
                    blockDimX: kernel.threads,
                    blockDimY: 1,
                    blockDimZ: 1,
                    sharedMemBytes: kernel.shared,
                    kernelParams: pointers.as_mut_ptr(),
                    extra: null_mut(),
                    kern: null_mut(),
                    ctx: null_mut(),
                }))
            }
            Work::Write { to, from, bytes } => {
                let kind = sys::CUmemorytype::CU_MEMORYTYPE_HOST;
                use_it(Node::Copy(&sys::CUDA_MEMCPY3D { srcMemoryType: kind, srcHost: from, ..row(to, bytes) }))
            }
            Work::Copy { to, from, bytes } => {
                use_it(Node::Copy(&sys::CUDA_MEMCPY3D { srcDevice: from, ..row(to, bytes) }))
            }
            Work::Clear { to, bytes } => {
                let of = sys::CUDA_MEMSET_NODE_PARAMS {
                    dst: to,
                    pitch: 0,
                    value: 0,
                    elementSize: 1,
                    width: bytes,
                    height: 1,
                };
                use_it(Node::Memset(&of))
            }
        }
    }
}

/// A copy of `bytes` bytes to a device, from address 0 of it.
fn row(to: Pointer, bytes: usize) -> sys::CUDA_MEMCPY3D {
    let device = sys::CUmemorytype::CU_MEMORYTYPE_DEVICE;
    sys::CUDA_MEMCPY3D {
        srcXInBytes: 0,
        srcY: 0,
        srcZ: 0,
        srcLOD: 0,
        srcMemoryType: device,
        srcHost: null(),
        srcDevice: 0,
        srcArray: null_mut(),
        reserved0: null_mut(),
        srcPitch: bytes,
        srcHeight: 1,
        dstXInBytes: 0,
        dstY: 0,
        dstZ: 0,
        dstLOD: 0,
        dstMemoryType: device,
        dstHost: null_mut(),
        dstDevice: to,
        dstArray: null_mut(),
        reserved1: null_mut(),
        dstPitch: bytes,
        dstHeight: 1,
        WidthInBytes: bytes,
        Height: 1,
        Depth: 1,
    }
}
