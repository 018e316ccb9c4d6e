//! Operations that compute slices from slices: the form in which most are written.

use std::any::Any;

use super::{Arity, Float, Forward, TensorOp, apply_tensors};
use crate::cpu::Target;
use crate::error::Result;
use crate::gradients::{Destination, Slot};
use crate::layout::Dims;
use crate::tensor::{Origin, Tensor};

/// An operation with `INPUTS` inputs. The forward writes `OUTPUTS` tensors: first the result, then whatever else the
/// backward reads. The backward gets `KEPT` tensors.
///
/// All slices are row-major.
pub(crate) trait Op<const INPUTS: usize, const OUTPUTS: usize, const KEPT: usize>:
    Any + Send + Sync + Sized
{
    /// The names of the inputs in errors.
    const OPERANDS: [&'static str; INPUTS];

    /// See [`TensorOp::first_parameter`].
    const FIRST_PARAMETER: usize = INPUTS;

    /// Returns the name in errors, profiles and the registry of operations.
    fn name(&self) -> &'static str;

    /// Checks the shapes of the inputs and returns those of the outputs.
    fn shapes(&self, inputs: [&Tensor; INPUTS]) -> Result<[Dims; OUTPUTS]>;

    /// Computes the outputs, whose contents are arbitrary before. The operation may remember what its backward needs
    /// besides tensors.
    fn forward<T: Float>(&mut self, inputs: [&[T]; INPUTS], outputs: [&mut [T]; OUTPUTS]);

    /// Returns what the backward reads: as little as it needs.
    fn keeps(&self) -> [Keep; KEPT];

    /// Writes the gradient of each input that needs one, given what is kept and the gradient of the result.
    fn backward<T: Float>(&self, kept: [&[T]; KEPT], dy: &[T], gradients: [Option<Target<'_, T>>; INPUTS]);

    /// Returns the rows of an input that were read, if the operation reads only some, as from an embedding table. The
    /// gradient is then added to these rows only.
    fn rows(&self, _input: usize) -> Option<&[u32]> {
        None
    }
}

/// Something that the backward reads.
#[derive(Clone, Copy)]
pub(crate) enum Keep {
    /// The input with this index.
    Input(usize),
    /// The output with this index; 0 is the result.
    Output(usize),
}

/// Runs an operation.
///
/// # Errors
/// As [`apply_tensors`].
pub(crate) fn apply<const INPUTS: usize, const OUTPUTS: usize, const KEPT: usize>(
    op: impl Op<INPUTS, OUTPUTS, KEPT>,
    inputs: [&Tensor; INPUTS],
) -> Result<Tensor> {
    apply_tensors(Slices::<_, INPUTS, OUTPUTS, KEPT>(op), inputs)
}

/// An [`Op`] as a [`TensorOp`].
struct Slices<O, const INPUTS: usize, const OUTPUTS: usize, const KEPT: usize>(O);

impl<O: Op<INPUTS, OUTPUTS, KEPT>, const INPUTS: usize, const OUTPUTS: usize, const KEPT: usize> TensorOp
    for Slices<O, INPUTS, OUTPUTS, KEPT>
{
    type Arity = [(); INPUTS];

    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn operands(&self) -> &[&'static str] {
        &O::OPERANDS
    }

    fn first_parameter(&self) -> usize {
        O::FIRST_PARAMETER
    }

    fn check(&self, inputs: [&Tensor; INPUTS]) -> Result<()> {
        self.0.shapes(inputs).map(|_| ())
    }

    fn forward<T: Float>(&mut self, inputs: [&Tensor; INPUTS], recorded: bool) -> Result<Forward> {
        let shapes = self.0.shapes(inputs)?;
        let values = row_major(&inputs)?;
        let slices = std::array::from_fn(|index| values[index].slice::<T>());
        let outputs = Tensor::build_all(self.name(), std::array::from_fn(|index| &shapes[index][..]), |outputs| {
            self.0.forward::<T>(slices, outputs);
        })?;
        let kept = |keep: Keep| match keep {
            // A leaf is kept as it is, so that the optimizer can name a parameter that a graph still holds.
            Keep::Input(index) if matches!(inputs[index].0.origin, Origin::Leaf) => inputs[index].clone(),
            Keep::Input(index) => values[index].clone(),
            Keep::Output(index) => outputs[index].clone(),
        };
        let kept = if recorded { self.0.keeps().map(kept).into() } else { Vec::new() };
        Ok(Forward { output: outputs[0].clone(), kept })
    }

    fn backward<T: Float>(self, kept: Vec<Tensor>, dy: Tensor, slots: [Slot<'_>; INPUTS]) -> Result<()> {
        let kept = row_major::<KEPT>(&<[(); KEPT]>::of(kept.iter().collect()))?;
        let mut open = Vec::with_capacity(INPUTS);
        for slot in slots {
            open.push(slot.open()?);
        }
        let targets = open.iter_mut().enumerate().map(|(index, open)| Some(target(open.as_mut()?, self.0.rows(index))));
        let targets = <[(); INPUTS]>::of(targets.collect());
        self.0.backward::<T>(std::array::from_fn(|index| kept[index].slice()), dy.slice(), targets);
        Ok(())
    }

    fn key(&self) -> &dyn Any {
        &self.0
    }
}

/// Returns the elements of a gradient; if `rows` are given, only these may be written.
fn target<'d, T: Float>(destination: &'d mut Destination<'_>, rows: Option<&[u32]>) -> Target<'d, T> {
    match rows {
        Some(rows) => destination.rows_target(rows),
        None => destination.target(),
    }
}

/// The elements of each tensor, row-major.
fn row_major<const N: usize>(tensors: &[&Tensor; N]) -> Result<[Tensor; N]> {
    let values = tensors.iter().map(|tensor| tensor.values()).collect::<Result<Vec<_>>>()?;
    Ok(<[(); N]>::of(values))
}
