//! Matrix products, of matrices or of batches of them. Transposed operands are not copied: the product
//! reads them by their strides. Batches on a GPU are: they are multiplied in one launch.
//!
//! For C = A B, with dC the gradient of C: dA = dC Bᵀ and dB = Aᵀ dC.

use crate::autograd::differentiable;
use crate::cpu::gemm::{Gemm, View, ViewMut};
#[cfg(feature = "cuda")]
use crate::cuda::{self, matmul::Matrix};
use crate::layout::Layout;
use crate::ops::{alike, float, in_f32, on_device};
use crate::tensor::Tensor;
use crate::{Error, Precision, Result};

impl Tensor {
    /// The matrix product of `self` [.., m, k] with `other` [.., k, n]: [.., m, n]. Leading dimensions
    /// broadcast. A vector `[k]` as `other` gives [.., m].
    ///
    /// # Errors
    /// When the inner dimensions differ or the leading ones do not broadcast.
    pub fn matmul(&self, other: &Tensor) -> Result<Tensor> {
        const OP: &str = "matmul";
        if let Some(y) = in_f32([self, other], |[a, b]| a.matmul(b))? {
            return Ok(y);
        }
        alike(OP, &[("left", self), ("right", other)])?;
        let wrong = |reason: String| Error::shape(OP, reason, &[("left", self.shape()), ("right", other.shape())]);
        if self.rank() < 2 || other.rank() == 0 {
            return Err(wrong("the left operand needs two dimensions, the right one or more".into()));
        }
        if other.rank() == 1 {
            if self.width() != other.width() {
                return Err(wrong(format!("inner dimensions differ: {} against {}", self.width(), other.width())));
            }
            let column = self.matmul(&other.unsqueeze(1)?)?;
            return column.squeeze(column.rank() - 1);
        }
        let (left, a) = self.shape().split_at(self.rank() - 2);
        let (right, b) = other.shape().split_at(other.rank() - 2);
        if a[1] != b[0] {
            return Err(wrong(format!("inner dimensions differ: {} against {}", a[1], b[0])));
        }
        let batch = crate::layout::broadcast_shapes(OP, left, right)
            .map_err(|_| wrong("the leading dimensions do not broadcast".into()))?;
        let precision = Precision::current();
        let output = product(precision, self, other, &batch)?;
        let (a_dims, b_dims) = (self.dims(), other.dims());
        let keeps = [self.kept_if(other.tracks_grad())?, other.kept_if(self.tracks_grad())?];
        Ok(differentiable(OP, [self, other], [&keeps[0], &keeps[1]], output, move |[a, b], dy, [da, db]| {
            da.give_with(|| product(precision, &dy, &b.t()?, &batch)?.sum_to(&a_dims))?;
            db.give_with(|| product(precision, &a.t()?, &dy, &batch)?.sum_to(&b_dims))
        }))
    }
}

/// The product, with leading dimensions `batch`.
fn product(precision: Precision, a: &Tensor, b: &Tensor, batch: &[usize]) -> Result<Tensor> {
    const OP: &str = "matmul";
    let (m, k, n) = (a.size(a.rank() - 2), a.width(), b.width());
    let whole = |rows: usize, columns: usize| [batch, &[rows, columns]].concat();
    let (a_layout, b_layout) = (a.layout().broadcast(OP, &whole(m, k))?, b.layout().broadcast(OP, &whole(k, n))?);
    let rank = batch.len();
    let start = |layout: &Layout, index: usize| {
        let (mut rest, mut start) = (index, 0);
        for axis in (0..rank).rev() {
            start += rest % batch[axis] * layout.strides[axis];
            rest /= batch[axis];
        }
        start
    };
    on_device!(a, cpu => (), cuda => {
        let output = Tensor::uninitialised(OP, &whole(m, n), a.dtype(), &a.device())?;
        let count: usize = batch.iter().product();
        if count == 1 {
            let matrix = |tensor, layout: &Layout, rows, columns| {
                let step = (layout.strides[rank], layout.strides[rank + 1]);
                Matrix { tensor, start: 0, rows, columns, step, scale: None }
            };
            let (a, b, c) = (matrix(a, &a_layout, m, k), matrix(b, &b_layout, k, n), Matrix::of(&output));
            cuda::matmul::multiply(OP, precision, a, b, c, cuda::matmul::Epilogue::Plain, false)?;
        } else {
            let each = |tensor: &Tensor, rows, columns| {
                tensor.broadcast_to(&whole(rows, columns))?.values()?.reshape(&[count, rows, columns])
            };
            cuda::matmul::multiply_each(OP, precision, &each(a, m, k)?, &each(b, k, n)?, &output)?;
        }
        return Ok(output);
    });
    float!(OP, a.dtype(), T => {
        let (a_data, b_data) = (a.strided_slice::<T>(), b.strided_slice::<T>());
        Tensor::build(OP, &whole(m, n), &a.device(), |to: &mut [T]| {
            if k == 0 {
                return to.fill(0.0);
            }
            for index in 0..batch.iter().product() {
                if m * n == 0 {
                    continue;
                }
                let (a_start, b_start) = (start(&a_layout, index), start(&b_layout, index));
                let (a_strides, b_strides) = (&a_layout.strides[rank..], &b_layout.strides[rank..]);
                let a = View::new(&a_data[a_start..], m, k, a_strides[0], a_strides[1]);
                let b = View::new(&b_data[b_start..], k, n, b_strides[0], b_strides[1]);
                let c = ViewMut::rows(&mut to[index * m * n..][..m * n], m, n);
                Gemm::new(a, b).precision(precision).write_to(c);
            }
        })
    })
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::normal;
    cases.add("matmul", "3x4 4x5", [normal(&[3, 4]), normal(&[4, 5])], |x| x[0].matmul(&x[1]));
    cases.add("matmul", "vector", [normal(&[3, 4]), normal(&[4])], |x| x[0].matmul(&x[1]));
    cases.add("matmul", "transposed", [normal(&[7, 3]), normal(&[5, 7])], |x| x[0].t()?.matmul(&x[1].t()?));
    cases.add("matmul", "batch", [normal(&[2, 3, 4]), normal(&[2, 4, 5])], |x| x[0].matmul(&x[1]));
    cases.add("matmul", "batch and one", [normal(&[2, 3, 4]), normal(&[4, 2])], |x| x[0].matmul(&x[1]));
    cases.add("matmul", "one and batch", [normal(&[3, 4]), normal(&[2, 2, 4, 2])], |x| x[0].matmul(&x[1]));
    cases.add("matmul", "one row", [normal(&[1, 33]), normal(&[33, 1])], |x| x[0].matmul(&x[1]));
    cases.add("matmul", "no inner", [normal(&[3, 0]), normal(&[0, 2])], |x| x[0].matmul(&x[1]));
    cases.add("matmul", "batch, no inner", [normal(&[3, 2, 0]), normal(&[3, 0, 2])], |x| x[0].matmul(&x[1]));
    cases.add("matmul", "no rows", [normal(&[0, 3]), normal(&[3, 2])], |x| x[0].matmul(&x[1]));
    cases.add("matmul", "large", [normal(&[40, 70]), normal(&[70, 50])], |x| x[0].matmul(&x[1]));
}
