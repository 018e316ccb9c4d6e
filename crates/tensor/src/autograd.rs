//! Reverse-mode differentiation: the graph that operations record, and the walk back through it.
//!
//! An operation becomes differentiable only through [`differentiable`], which takes its backward and what the backward
//! keeps. An operation without a backward goes through [`non_differentiable`], which returns an error immediately if an
//! input requires a gradient. There is no third way, so no gradient is dropped silently.
//!
//! A backward receives the gradient of the output and one [`Slot`] per input, and writes each gradient that is needed to
//! its final place: the arena, the buffer of an earlier contribution, or a new buffer. It runs once, and whatever it kept
//! is freed afterwards.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::finite;
use crate::gradients::{Entry, FinalGradients, FinalSuffix, Gradients, Like, Slot, Table};
use crate::profile::{Pass, timed};
use crate::tensor::{Origin, Tensor, TensorId};

type Backward = Box<dyn FnOnce(Tensor, Vec<Slot<'_>>) -> Result<()> + Send>;

/// A recorded operation: at least one input requires a gradient.
struct Node {
    op: &'static str,
    /// Nodes are numbered in the order of their creation, so inputs always come before outputs.
    order: TensorId,
    inputs: Vec<Edge>,
    backward: Mutex<Option<Backward>>,
}

/// An input of a node: the shape and destination of its gradient, but not its elements.
struct Edge {
    id: TensorId,
    like: Option<Like>,
    node: Option<Arc<Node>>,
}

impl Edge {
    fn new(input: &Tensor) -> Edge {
        let (wanted, node) = match &input.0.origin {
            Origin::Constant | Origin::Frozen => (false, None),
            Origin::Leaf => (true, None),
            Origin::Computed(node) => (true, recorded(node)),
        };
        Edge { id: input.id(), like: wanted.then(|| Like::of(input)), node }
    }

    /// Whether this is a leaf that requires a gradient.
    fn is_leaf(&self) -> bool {
        self.node.is_none() && self.like.is_some()
    }
}

/// Returns the node behind a computed tensor. Only this module creates them, so the type is known.
fn recorded(node: &Arc<dyn Any + Send + Sync>) -> Option<Arc<Node>> {
    node.clone().downcast().ok()
}

/// Drops a chain of nodes in a loop. Recursion would overflow the stack if the chain is long.
impl Drop for Node {
    fn drop(&mut self) {
        let mut pending: Vec<Edge> = self.inputs.drain(..).collect();
        while let Some(edge) = pending.pop() {
            if let Some(mut node) = edge.node.and_then(Arc::into_inner) {
                pending.append(&mut node.inputs);
            }
        }
    }
}

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(true) };
}

/// Runs `f` without recording a graph on this thread; its results are constants.
///
/// ```
/// use cloze_tensor::{no_grad, Device, Tensor};
/// let x = Tensor::new(&[1f32, 2.0], &Device::Cpu)?.requires_grad();
/// assert!(!no_grad(|| x.exp())?.tracks_grad());
/// # Ok::<(), cloze_tensor::Error>(())
/// ```
pub fn no_grad<R>(f: impl FnOnce() -> R) -> R {
    recording(false, f)
}

/// Runs `f` with a graph being recorded, even inside [`no_grad`] or a backward.
pub(crate) fn with_grad<R>(f: impl FnOnce() -> R) -> R {
    recording(true, f)
}

fn recording<R>(on: bool, f: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            RECORDING.set(self.0);
        }
    }
    let _restore = Restore(RECORDING.replace(on));
    f()
}

/// Returns whether an operation on these tensors is recorded in a graph.
pub(crate) fn is_recorded(inputs: &[&Tensor]) -> bool {
    RECORDING.get() && inputs.iter().any(|input| input.tracks_grad())
}

/// Returns a tensor for a backward to keep. A leaf keeps its identity, so that the optimizer can name a parameter that a
/// graph still holds; anything else is kept without the graph behind it.
fn keep(tensor: &Tensor) -> Tensor {
    match tensor.0.origin {
        Origin::Computed(_) => tensor.detach(),
        Origin::Leaf | Origin::Constant | Origin::Frozen => tensor.clone(),
    }
}

/// Records `output` as the result of `op` on `inputs`. `backward` receives the tensors that it `keeps`, the row-major
/// gradient of the output, and a slot per input.
pub(crate) fn differentiable<const INPUTS: usize, const KEPT: usize>(
    op: &'static str,
    inputs: [&Tensor; INPUTS],
    keeps: [&Tensor; KEPT],
    output: Tensor,
    backward: impl FnOnce([Tensor; KEPT], Tensor, [Slot<'_>; INPUTS]) -> Result<()> + Send + 'static,
) -> Tensor {
    differentiable_many(op, &inputs, &keeps, output, move |kept, gradient, slots| {
        // The lengths are those of the arrays above; the type system does not see that.
        let kept = kept.try_into().unwrap_or_else(|_| unreachable!("as many as were kept"));
        let slots = slots.try_into().unwrap_or_else(|_| unreachable!("as many as there are inputs"));
        backward(kept, gradient, slots)
    })
}

/// Records `output` as [`differentiable`], for any number of inputs.
pub(crate) fn differentiable_many(
    op: &'static str,
    inputs: &[&Tensor],
    keeps: &[&Tensor],
    output: Tensor,
    backward: impl FnOnce(Vec<Tensor>, Tensor, Vec<Slot<'_>>) -> Result<()> + Send + 'static,
) -> Tensor {
    finite::look(op, &output);
    if !is_recorded(inputs) {
        return output;
    }
    let kept: Vec<Tensor> = keeps.iter().map(|tensor| keep(tensor)).collect();
    let node = Arc::new(Node {
        op,
        order: TensorId::fresh(),
        inputs: inputs.iter().map(|input| Edge::new(input)).collect(),
        backward: Mutex::new(Some(Box::new(move |gradient, slots| backward(kept, gradient, slots)))),
    });
    Tensor::from_parts(output.storage().clone(), *output.layout(), output.dtype(), Origin::Computed(node))
}

/// Returns `output`, the result of an operation that has no backward.
///
/// # Errors
/// Returns an error if an input requires a gradient.
pub(crate) fn non_differentiable(op: &'static str, inputs: &[&Tensor], output: Tensor) -> Result<Tensor> {
    if is_recorded(inputs) {
        let reason = "has no backward, but an input requires a gradient; detach() it or use no_grad";
        return Err(Error::gradient(op, reason));
    }
    Ok(output)
}

impl Tensor {
    /// Computes the gradients of this number with respect to every leaf that it was computed from.
    ///
    /// # Errors
    /// Returns an error if this is not a single number, it depends on no leaf, or backward already ran on its graph.
    pub fn backward(&self) -> Result<Gradients> {
        let mut gradients = Gradients::new();
        self.backward_into(&mut gradients)?;
        Ok(gradients)
    }

    /// Adds the gradients of this number to `gradients`. Training uses this form: `gradients` mirrors the parameters and is
    /// reused in every step.
    ///
    /// # Errors
    /// Returns an error as [`Tensor::backward`] does.
    pub fn backward_into(&self, gradients: &mut Gradients) -> Result<()> {
        if self.elements() != 1 {
            return Err(Error::shape("backward", "backward starts from a single number", &[("loss", self.shape())]));
        }
        let one = Tensor::ones(self.shape(), self.dtype(), &self.device())?;
        self.backward_with(&one, gradients)
    }

    /// Continues a backward pass from `gradient`, the gradient of some loss with respect to this tensor, and adds the
    /// gradients of the leaves to `gradients`. No graph is recorded: `gradient` is taken as a constant.
    ///
    /// # Errors
    /// Returns an error if shapes, dtypes or devices differ, nothing requires a gradient, or backward already ran on the
    /// graph. An error on the way clears `gradients`, which would otherwise contain partial sums.
    pub fn backward_with(&self, gradient: &Tensor, gradients: &mut Gradients) -> Result<()> {
        let walked = self.walk_back(gradient, gradients, None);
        if walked.is_err() {
            gradients.clear();
        }
        walked
    }

    /// Adds the gradients of this number to `gradients`, which mirror an arena of f32 parameters, and calls
    /// `on_final` with those that are final whenever these are more than before: the last elements of the flat buffer, to
    /// which the backward pass comes first. The last call has all of them. Another thread can send them on meanwhile.
    ///
    /// # Errors
    /// Returns an error as [`Tensor::backward`] does, or if `gradients` do not mirror such an arena. After an error
    /// `gradients` contain partial sums, and must be [cleared](Gradients::clear).
    pub fn backward_streaming<'g>(
        &self,
        gradients: &'g mut Gradients,
        mut on_final: impl FnMut(FinalGradients<'g>),
    ) -> Result<()> {
        if self.elements() != 1 {
            return Err(Error::shape("backward", "backward starts from a single number", &[("loss", self.shape())]));
        }
        let one = Tensor::ones(self.shape(), self.dtype(), &self.device())?;
        let mut suffix = FinalSuffix::of(gradients)?;
        let mut finals =
            Finals { uses: uses_of_leaves(&Edge::new(self)), suffix: &mut suffix, on_final: &mut on_final };
        // Clearing after an error would write what `on_final` was given.
        self.walk_back(&one, gradients, Some(&mut finals))?;
        on_final(suffix.all());
        Ok(())
    }

    /// Runs a backward pass from `gradient`. After an error, `gradients` contain partial sums.
    fn walk_back(
        &self,
        gradient: &Tensor,
        gradients: &mut Gradients,
        finals: Option<&mut Finals<'_, '_>>,
    ) -> Result<()> {
        if gradient.shape() != self.shape() || gradient.dtype() != self.dtype() {
            let operands = [("tensor", self.shape()), ("gradient", gradient.shape())];
            return Err(Error::shape("backward", "gradient differs in shape or dtype from its tensor", &operands));
        }
        if gradient.device() != self.device() {
            let reason = format!("the gradient is on {}, its tensor on {}", gradient.device(), self.device());
            return Err(Error::invalid("backward", reason));
        }
        let root = Edge::new(self);
        let Some(like) = &root.like else {
            return Err(Error::gradient("backward", "nothing that this was computed from requires a gradient"));
        };
        let table = RefCell::new(Table { passing: HashMap::new(), leaves: std::mem::take(gradients) });
        let slot = Slot::new(&table, root.id, Some(like), root.node.is_none());
        let walked = no_grad(|| slot.give(gradient.values()?).and_then(|()| walk(&root, &table, finals)));
        *gradients = table.into_inner().leaves;
        walked
    }
}

/// Finds out during a backward pass which gradients of leaves are final.
struct Finals<'f, 'g> {
    /// The number of operations on each leaf that have not run backward yet.
    uses: HashMap<TensorId, usize>,
    suffix: &'f mut FinalSuffix<'g>,
    on_final: &'f mut dyn FnMut(FinalGradients<'g>),
}

impl Finals<'_, '_> {
    /// Counts an operation that has run backward.
    fn count(&mut self, node: &Node) {
        for edge in node.inputs.iter().filter(|edge| edge.is_leaf()) {
            let Some(left) = self.uses.get_mut(&edge.id) else { continue };
            *left -= 1;
            if *left == 0
                && let Some(last) = self.suffix.extend(edge.id)
            {
                (self.on_final)(last);
            }
        }
    }
}

/// Counts the operations behind `root` on each leaf.
fn uses_of_leaves(root: &Edge) -> HashMap<TensorId, usize> {
    let (mut uses, mut seen) = (HashMap::new(), HashSet::new());
    let mut pending: Vec<Arc<Node>> = root.node.clone().into_iter().collect();
    while let Some(node) = pending.pop() {
        if !seen.insert(node.order) {
            continue;
        }
        for edge in &node.inputs {
            match &edge.node {
                Some(node) => pending.push(node.clone()),
                None if edge.is_leaf() => *uses.entry(edge.id).or_default() += 1,
                None => {}
            }
        }
    }
    uses
}

/// Runs the backwards of all nodes behind `root`, from the newest to the oldest.
fn walk(root: &Edge, table: &RefCell<Table>, mut finals: Option<&mut Finals<'_, '_>>) -> Result<()> {
    let mut pending = BinaryHeap::new();
    pending.extend(root.node.clone().map(|node| Pending { gradient_of: root.id, node }));
    while let Some(Pending { gradient_of, node }) = pending.pop() {
        // A node whose output received several contributions was pushed several times.
        let entry = table.borrow_mut().passing.remove(&gradient_of);
        let Some(gradient) = entry.and_then(Entry::into_tensor) else { continue };
        let backward = node.backward.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(backward) = backward else {
            let reason = format!("the graph through {} was walked before; compute the loss again", node.op);
            return Err(Error::gradient("backward", reason));
        };
        #[cfg(test)]
        let gradient = mutation::applied(node.op, gradient)?;
        let slot = |edge: &Edge| Slot::new(table, edge.id, edge.like.as_ref(), edge.node.is_none());
        let slots = node.inputs.iter().map(slot).collect();
        timed(node.op, Pass::Backward, || backward(gradient, slots))?;
        if let Some(finals) = &mut finals {
            finals.count(&node);
        }
        for edge in &node.inputs {
            pending.extend(edge.node.clone().map(|node| Pending { gradient_of: edge.id, node }));
        }
    }
    Ok(())
}

/// A node whose output has at least one contribution to its gradient. The newest comes first.
struct Pending {
    gradient_of: TensorId,
    node: Arc<Node>,
}

impl PartialEq for Pending {
    fn eq(&self, other: &Pending) -> bool {
        self.node.order == other.node.order
    }
}

impl Eq for Pending {}

impl PartialOrd for Pending {
    fn partial_cmp(&self, other: &Pending) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pending {
    fn cmp(&self, other: &Pending) -> std::cmp::Ordering {
        self.node.order.cmp(&other.node.order)
    }
}

/// Perturbs the gradient of one operation, to prove that the gradient check would notice, and records which operations
/// ran backward.
#[cfg(test)]
pub(crate) mod mutation {
    use std::collections::HashSet;

    use super::*;

    thread_local! {
        static SPOILED: Cell<Option<&'static str>> = const { Cell::new(None) };
        static WALKED: RefCell<Option<HashSet<&'static str>>> = const { RefCell::new(None) };
    }

    pub(crate) fn spoil(op: Option<&'static str>) {
        SPOILED.set(op);
    }

    pub(crate) fn record_walked() {
        WALKED.set(Some(HashSet::new()));
    }

    pub(crate) fn walked() -> HashSet<&'static str> {
        WALKED.take().unwrap_or_default()
    }

    pub(super) fn applied(op: &'static str, gradient: Tensor) -> Result<Tensor> {
        WALKED.with_borrow_mut(|walked| walked.as_mut().map(|walked| walked.insert(op)));
        if SPOILED.get() == Some(op) { gradient.mul_scalar(1.001) } else { Ok(gradient) }
    }
}
