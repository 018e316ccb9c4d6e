//! Picking rows of a matrix, and the inverse. The masked-language-model head runs on the masked rows alone, the pooler on
//! the [CLS] rows alone.

use crate::cpu::{self, Target};
use crate::device::Device;
use crate::dispatch::{Float, Forward, Keep, Op, TensorOp, apply, apply_tensors};
use crate::error::{Error, Result};
use crate::gradients::Slot;
use crate::layout::Dims;
use crate::ops::check_indices;
use crate::tensor::Tensor;

impl Tensor {
    /// Picks the rows `indices` of `self` [R, W]: [indices, W]. An index may occur more than once; its gradients add up.
    ///
    /// # Errors
    /// Returns an error if this is not a matrix or an index is not below R.
    pub fn gather_rows(&self, indices: &[u32]) -> Result<Tensor> {
        apply(
            GatherRows { name: "gather_rows", index: "row index", indices: indices.to_vec(), width: self.width() },
            [self],
        )
    }

    /// Adds the rows of `self` [indices, W] to the rows `indices` of a matrix [rows, W] of zeros.
    ///
    /// # Errors
    /// Returns an error if this is not a matrix with a row for each index, or an index is not below `rows`.
    pub fn scatter_rows(&self, indices: &[u32], rows: usize) -> Result<Tensor> {
        apply_tensors(ScatterRows { indices: indices.to_vec(), rows }, [self])
    }
}

/// Picking rows of a matrix.
pub(crate) struct GatherRows {
    pub(super) name: &'static str,
    /// The name of an index in errors.
    pub(super) index: &'static str,
    pub(crate) indices: Vec<u32>,
    pub(super) width: usize,
}

impl Op<1, 1, 0> for GatherRows {
    const OPERANDS: [&'static str; 1] = ["tensor"];

    fn name(&self) -> &'static str {
        self.name
    }

    fn shapes(&self, [x]: [&Tensor; 1]) -> Result<[Dims; 1]> {
        let (rows, width) = matrix(self.name, x)?;
        check_indices(self.name, self.index, &self.indices, rows)?;
        Ok([Dims::new(self.name, &[self.indices.len(), width])?])
    }

    fn forward<T: Float>(&mut self, [x]: [&[T]; 1], [y]: [&mut [T]; 1]) {
        cpu::embedding::gather(x, self.width, &self.indices, y);
    }

    fn keeps(&self) -> [Keep; 0] {
        []
    }

    fn backward<T: Float>(&self, []: [&[T]; 0], dy: &[T], [dx]: [Option<Target<'_, T>>; 1]) {
        if let Some(dx) = dx {
            cpu::embedding::scatter_add(dx, self.width, &self.indices, dy);
        }
    }

    fn rows(&self, _: usize) -> Option<&[u32]> {
        Some(&self.indices)
    }
}

/// Adding rows to those of a matrix of zeros.
pub(crate) struct ScatterRows {
    pub(crate) indices: Vec<u32>,
    pub(crate) rows: usize,
}

impl TensorOp for ScatterRows {
    type Arity = [(); 1];

    fn name(&self) -> &'static str {
        "scatter_rows"
    }

    fn check(&self, [x]: [&Tensor; 1]) -> Result<()> {
        let (count, _) = matrix(self.name(), x)?;
        if count != self.indices.len() {
            let reason = format!("{} indices given for {count} rows", self.indices.len());
            return Err(Error::shape(self.name(), reason, &[("tensor", x.shape())]));
        }
        check_indices(self.name(), "row index", &self.indices, self.rows)
    }

    fn forward<T: Float>(&mut self, [x]: [&Tensor; 1], _: bool) -> Result<Forward> {
        let (x, width) = (x.values()?, x.width());
        let output = Tensor::build(self.name(), &[self.rows, width], &Device::Cpu, |y: &mut [T]| {
            cpu::embedding::scatter_add(Target::new(y, false), width, &self.indices, x.slice());
        })?;
        Ok(Forward { output, kept: Vec::new() })
    }

    fn backward<T: Float>(self, _: Vec<Tensor>, dy: Tensor, [dx]: [Slot<'_>; 1]) -> Result<()> {
        dx.give_with(|| dy.gather_rows(&self.indices))
    }
}

fn matrix(op: &'static str, tensor: &Tensor) -> Result<(usize, usize)> {
    match tensor.shape() {
        &[rows, width] => Ok((rows, width)),
        shape => Err(Error::shape(op, "the tensor must be a matrix", &[("tensor", shape)])),
    }
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::normal;
    cases.add("gather_rows", "repeated", [normal(&[5, 7])], |x| x[0].gather_rows(&[4, 0, 4, 2]));
    cases.add("gather_rows", "none", [normal(&[5, 7])], |x| x[0].gather_rows(&[]));
    cases.add("scatter_rows", "repeated", [normal(&[4, 17])], |x| x[0].scatter_rows(&[2, 0, 2, 5], 6));
    cases.add("scatter_rows", "many of a row", [normal(&[150, 8])], |x| {
        let ids: Vec<u32> = (0..150).map(|row| row % 7 / 5).collect();
        x[0].scatter_rows(&ids, 3)
    });
    cases.add("scatter_rows", "none", [normal(&[0, 3])], |x| x[0].scatter_rows(&[], 2));
}
