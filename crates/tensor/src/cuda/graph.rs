//! CUDA graphs: a sequence of work that the driver launches in one call.
//!
//! Launching a kernel costs the host a few microseconds; launching a graph of a thousand kernels costs little more. Building
//! a graph is expensive, so graphs are kept. If the next sequence has the same kernels in the same order, it is the same
//! graph with other parameters: only the nodes whose arguments, sizes or addresses differ are updated. Lengths, learning
//! rates and the steps of dropout may therefore change from step to step without building a graph.

use std::collections::VecDeque;
use std::ptr::{null, null_mut};

use cudarc::driver::sys;

use super::driver::{Context, Pointer, check, describe};
use super::work::Work;
use crate::error::{Error, Result};

/// The number of graphs kept: steps with and without their rarer parts, for training and for evaluation. If several ranks train,
/// a step is cut into a graph per exchange of gradients: 26 for BERT-base, 80 for BERT-large.
const KEPT: usize = 256;
/// Shorter sequences are launched one by one.
const SMALLEST: usize = 4;

/// Counts of the graphs that a device launched, as returned by [`CudaDevice::graph_use`](crate::CudaDevice::graph_use).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GraphUse {
    /// Graphs built.
    pub built: usize,
    /// Graphs launched.
    pub launched: usize,
    /// Nodes of all launches that reused a graph.
    pub replayed: usize,
    /// Replayed nodes that had to be updated.
    pub changed: usize,
}

/// The graphs that were launched recently, the last one at the end.
#[derive(Default)]
pub(super) struct Graphs {
    kept: VecDeque<Graph>,
    pub(super) uses: GraphUse,
}

impl Graphs {
    /// Destroys all graphs, which gives their memory back to the device.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
    }

    /// Launches `work` in its order: as a graph that is kept or built, or one by one if there is no graph for it.
    ///
    /// # Safety
    /// Each unit must satisfy the contract of [`Work::launch`], and `context` must be current.
    pub(super) unsafe fn launch(
        &mut self,
        op: &'static str,
        context: Context,
        stream: sys::CUstream,
        work: Vec<Work>,
    ) -> Result<()> {
        // SAFETY: this function's contract covers each unit.
        let one_by_one = |work: &[Work]| work.iter().try_for_each(|work| unsafe { work.launch(op, stream) });
        if work.len() < SMALLEST {
            return one_by_one(&work);
        }
        match self.graph(op, context, &work) {
            Ok(mut graph) if graph.launch(stream) => {
                self.uses.launched += 1;
                graph.work = work;
                self.kept.push_back(graph);
                if self.kept.len() > KEPT {
                    self.kept.pop_front();
                }
                Ok(())
            }
            // A graph needs device memory, which may be exhausted.
            _ => one_by_one(&work),
        }
    }

    /// Returns a graph of `work`: one that is kept, updated, or a new one.
    fn graph(&mut self, op: &'static str, context: Context, work: &[Work]) -> Result<Graph> {
        let known = self.kept.iter().rposition(|graph| graph.is_alike(work)).and_then(|at| self.kept.remove(at));
        if let Some(Ok((graph, changed))) = known.map(|graph| graph.with(context, work)) {
            self.uses.replayed += work.len();
            self.uses.changed += changed;
            return Ok(graph);
        }
        // Either no graph matches, or the driver could not update the one that does.
        self.uses.built += 1;
        Graph::new(op, context, work)
    }
}

/// A graph whose nodes form a chain.
struct Graph {
    graph: sys::CUgraph,
    executable: sys::CUgraphExec,
    nodes: Vec<sys::CUgraphNode>,
    /// The work of the last launch.
    work: Vec<Work>,
}

impl Graph {
    fn new(op: &'static str, context: Context, work: &[Work]) -> Result<Graph> {
        // `Drop` destroys whatever exists when a call below fails.
        let mut graph = Graph { graph: null_mut(), executable: null_mut(), nodes: Vec::new(), work: Vec::new() };
        // SAFETY: it only writes a handle to the pointer.
        check(op, "cuGraphCreate", unsafe { sys::cuGraphCreate(&mut graph.graph, 0) }.result())?;
        for work in work {
            let before = graph.nodes.last().copied();
            let before = before.as_slice();
            let (to, after, count) = (&mut null_mut(), before.as_ptr(), before.len());
            let (graph_of, handle) = (graph.graph, context.handle);
            // SAFETY: the handles belong to this graph and context, and the parameters describe what `Work::launch` would
            // enqueue. The driver copies them together with the arguments.
            #[expect(clippy::multiple_unsafe_ops_per_block, reason = "makes one of several calls")]
            let added = Node::with(work, |node| unsafe {
                match node {
                    Node::Kernel(kernel) => sys::cuGraphAddKernelNode_v2(to, graph_of, after, count, kernel),
                    Node::Copy(copy) => sys::cuGraphAddMemcpyNode(to, graph_of, after, count, copy, handle),
                    Node::Memset(memset) => sys::cuGraphAddMemsetNode(to, graph_of, after, count, memset, handle),
                }
            });
            check(op, work.name(), added.result())?;
            graph.nodes.push(*to);
        }
        // SAFETY: `cuGraphCreate` returned the graph above.
        let made = unsafe { sys::cuGraphInstantiateWithFlags(&mut graph.executable, graph.graph, 0) };
        check(op, "cuGraphInstantiate", made.result())?;
        Ok(graph)
    }

    /// Returns whether `work` has the kernels and copies of this graph, in the same order.
    fn is_alike(&self, work: &[Work]) -> bool {
        self.work.len() == work.len() && self.work.iter().zip(work).all(|(one, other)| one.is_alike(other))
    }

    /// Updates the nodes that differ from `work`, which [is alike](Graph::is_alike); also returns their number.
    fn with(self, context: Context, work: &[Work]) -> Result<(Graph, usize)> {
        let mut changed = 0;
        for ((&node, before), work) in self.nodes.iter().zip(&self.work).zip(work) {
            if before == work {
                continue;
            }
            changed += 1;
            let (graph, handle) = (self.executable, context.handle);
            // SAFETY: the node belongs to the graph that `executable` was instantiated from. The driver copies the
            // parameters together with the arguments.
            #[expect(clippy::multiple_unsafe_ops_per_block, reason = "makes one of several calls")]
            let answer = Node::with(work, |to| unsafe {
                match to {
                    Node::Kernel(kernel) => sys::cuGraphExecKernelNodeSetParams_v2(graph, node, kernel),
                    Node::Copy(copy) => sys::cuGraphExecMemcpyNodeSetParams(graph, node, copy, handle),
                    Node::Memset(memset) => sys::cuGraphExecMemsetNodeSetParams(graph, node, memset, handle),
                }
            });
            answer.result().map_err(|error| Error::device("graph", describe(&error)))?;
        }
        Ok((self, changed))
    }

    /// Enqueues the graph; returns whether the driver accepted it.
    fn launch(&self, stream: sys::CUstream) -> bool {
        // SAFETY: `executable` was instantiated in the current context, and its nodes are work whose contract
        // `Graphs::launch` requires of its caller.
        unsafe { sys::cuGraphLaunch(self.executable, stream) }.result().is_ok()
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if !self.executable.is_null() {
            // SAFETY: the handle is owned by this value. The driver lets a launch in flight finish.
            let _ = unsafe { sys::cuGraphExecDestroy(self.executable) };
        }
        if !self.graph.is_null() {
            // SAFETY: as above.
            let _ = unsafe { sys::cuGraphDestroy(self.graph) };
        }
    }
}

/// The parameters of a graph node.
enum Node<'a> {
    Kernel(&'a sys::CUDA_KERNEL_NODE_PARAMS),
    Copy(&'a sys::CUDA_MEMCPY3D),
    Memset(&'a sys::CUDA_MEMSET_NODE_PARAMS),
}

impl Node<'_> {
    /// Calls `use_it` with the node of `work`; the parameters point into `work`.
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
                let memset = sys::CUDA_MEMSET_NODE_PARAMS {
                    dst: to,
                    pitch: 0,
                    value: 0,
                    elementSize: 1,
                    width: bytes,
                    height: 1,
                };
                use_it(Node::Memset(&memset))
            }
        }
    }
}

/// Returns a copy of one row of `bytes` bytes to `to`; the caller fills in the source.
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
