//! Matrix products, of matrices or of batches of them. Transposed operands are not copied: the product reads them by
//! their strides. Batches on a GPU are copied, and multiplied in one launch.
//!
//! For C = A B, with dC the gradient of C: dA = dC Bᵀ and dB = Aᵀ dC.

use crate::cpu::gemm::{Gemm, View, ViewMut};
use crate::device::Device;
use crate::dispatch::{Float, Forward, TensorOp, apply_tensors};
use crate::error::{Error, Result};
use crate::gradients::Slot;
use crate::layout::{Dims, Layout, broadcast_shapes};
use crate::precision::Precision;
use crate::tensor::Tensor;

impl Tensor {
    /// Computes the matrix product of `self` [.., m, k] with `other` [.., k, n]: [.., m, n]. Leading dimensions
    /// broadcast. A vector `[k]` as `other` gives [.., m]. `other` may be f32 if `self` is bf16 or f16; the result
    /// then has the type of `self`.
    ///
    /// # Errors
    /// Returns an error if the inner dimensions differ or the leading ones do not broadcast.
    pub fn matmul(&self, other: &Tensor) -> Result<Tensor> {
        let wrong = |reason: String| Error::shape(OP, reason, &[("left", self.shape()), ("right", other.shape())]);
        if self.rank() < 2 || other.rank() == 0 {
            return Err(wrong("the left operand needs two dimensions, the right one or more".into()));
        }
        let inner = if other.rank() == 1 { other.width() } else { other.size(other.rank() - 2) };
        if self.width() != inner {
            return Err(wrong(format!("inner dimensions differ: {} against {inner}", self.width())));
        }
        if other.rank() == 1 {
            let column = self.matmul(&other.unsqueeze(1)?)?;
            return column.squeeze(column.rank() - 1);
        }
        let [left, right] = [self, other].map(|tensor| &tensor.shape()[..tensor.rank() - 2]);
        let batch = broadcast_shapes(OP, left, right);
        let batch = batch.map_err(|_| wrong("the leading dimensions do not broadcast".into()))?;
        apply_tensors(
            MatMul { batch, precision: Precision::current().without_scales(), left: self.dims(), right: other.dims() },
            [self, other],
        )
    }
}

const OP: &str = "matmul";

/// Products of matrices with leading dimensions that broadcast to `batch`.
pub(crate) struct MatMul {
    pub(crate) batch: Vec<usize>,
    pub(crate) precision: Precision,
    left: Dims,
    right: Dims,
}

/// The operands of products: [.., m, k] and [.., k, n], each repeated to fill the batch.
pub(crate) struct Operands {
    pub(crate) sizes: [usize; 3],
    pub(crate) a: Layout,
    pub(crate) b: Layout,
}

impl MatMul {
    pub(crate) fn operands(&self, [a, b]: [&Tensor; 2]) -> Result<Operands> {
        let (m, k, n) = (a.size(a.rank() - 2), a.width(), b.width());
        let layout = |tensor: &Tensor, rows, columns| tensor.layout().broadcast(OP, &self.whole(rows, columns));
        Ok(Operands { sizes: [m, k, n], a: layout(a, m, k)?, b: layout(b, k, n)? })
    }

    /// The shape of a batch of matrices.
    pub(crate) fn whole(&self, rows: usize, columns: usize) -> Vec<usize> {
        [&self.batch[..], &[rows, columns]].concat()
    }

    /// Returns the tensors that the backward reads: an operand only if the other needs a gradient.
    pub(crate) fn keeps(&self, [a, b]: [&Tensor; 2]) -> Result<Vec<Tensor>> {
        Ok(vec![a.kept_if(b.tracks_grad())?, b.kept_if(a.tracks_grad())?])
    }

    /// The same products of other operands, as a constant.
    fn of(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let MatMul { ref batch, precision, .. } = *self;
        apply_tensors(MatMul { batch: batch.clone(), precision, left: a.dims(), right: b.dims() }, [a, b])
    }
}

/// Works on tensors, because it reads any layout and its gradients are matrix products.
impl TensorOp for MatMul {
    type Arity = [(); 2];

    fn name(&self) -> &'static str {
        OP
    }

    fn operands(&self) -> &[&'static str] {
        &["left", "right"]
    }

    fn first_parameter(&self) -> usize {
        1
    }

    fn forward<T: Float>(&mut self, [a, b]: [&Tensor; 2], _: bool) -> Result<Forward> {
        let of = self.operands([a, b])?;
        let ([m, k, n], rank) = (of.sizes, self.batch.len());
        let (x, y) = (a.strided_slice::<T>(), b.strided_slice::<T>());
        let output = Tensor::build(OP, &self.whole(m, n), &Device::Cpu, |to: &mut [T]| {
            if k == 0 || m * n == 0 {
                return to.fill(T::ZERO);
            }
            for (index, to) in to.chunks_exact_mut(m * n).enumerate() {
                let (x, y) = (&x[offset(&of.a, &self.batch, index)..], &y[offset(&of.b, &self.batch, index)..]);
                let a = View::new(x, m, k, of.a.strides[rank], of.a.strides[rank + 1]);
                let product = Gemm::new(a, View::new(y, k, n, of.b.strides[rank], of.b.strides[rank + 1]));
                product.precision(self.precision).write_to(ViewMut::rows(to, m, n));
            }
        })?;
        Ok(Forward { output, kept: self.keeps([a, b])? })
    }

    fn backward<T: Float>(self, kept: Vec<Tensor>, dy: Tensor, [da, db]: [Slot<'_>; 2]) -> Result<()> {
        let Ok([a, b]) = <[Tensor; 2]>::try_from(kept) else { return Ok(()) };
        da.give_with(|| self.of(&dy, &b.t()?)?.sum_to(&self.left))?;
        db.give_with(|| self.of(&a.t()?, &dy)?.sum_to(&self.right))
    }
}

/// Where the matrix with this index in a batch starts.
fn offset(layout: &Layout, batch: &[usize], index: usize) -> usize {
    let (mut rest, mut start) = (index, 0);
    for axis in (0..batch.len()).rev() {
        start += rest % batch[axis] * layout.strides[axis];
        rest /= batch[axis];
    }
    start
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::normal;
    cases.add("matmul", "3x4 4x5", [normal(&[3, 4]), normal(&[4, 5])], |x| x[0].matmul(&x[1]));
    cases.add("matmul", "vector", [normal(&[3, 4]), normal(&[4])], |x| x[0].matmul(&x[1]));
    cases.add("matmul", "transposed", [normal(&[7, 3]), normal(&[5, 7]).parameter()], |x| x[0].t()?.matmul(&x[1].t()?));
    cases.add("matmul", "batch", [normal(&[2, 3, 4]), normal(&[2, 4, 5])], |x| x[0].matmul(&x[1]));
    cases.add("matmul", "batch and one", [normal(&[2, 3, 4]), normal(&[4, 2])], |x| x[0].matmul(&x[1]));
    cases.add("matmul", "one and batch", [normal(&[3, 4]), normal(&[2, 2, 4, 2])], |x| x[0].matmul(&x[1]));
    cases.add("matmul", "one row", [normal(&[1, 33]), normal(&[33, 1])], |x| x[0].matmul(&x[1]));
    cases.add("matmul", "no inner", [normal(&[3, 0]), normal(&[0, 2])], |x| x[0].matmul(&x[1]));
    cases.add("matmul", "batch, no inner", [normal(&[3, 2, 0]), normal(&[3, 0, 2])], |x| x[0].matmul(&x[1]));
    cases.add("matmul", "no rows", [normal(&[0, 3]), normal(&[3, 2])], |x| x[0].matmul(&x[1]));
    cases.add("matmul", "large", [normal(&[40, 70]), normal(&[70, 50]).parameter()], |x| x[0].matmul(&x[1]));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// int8 is for linear layers: other products have no scales, whatever the layout of their operands.
    #[test]
    fn int8_computes_other_products_in_f32() -> Result<()> {
        let x = Tensor::new([[1f32, 2.0, 0.1], [3.0, 4.0, 0.7]], &Device::Cpu)?;
        for (a, b) in [(x.t()?, x.clone()), (x.clone(), x.t()?)] {
            let product = Precision::Int8.scope(|| a.matmul(&b))?;
            assert_eq!(product.to_vec::<f32>()?, a.matmul(&b)?.to_vec::<f32>()?);
        }
        Ok(())
    }
}
