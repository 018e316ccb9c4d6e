//! Picking rows of a matrix, and its inverse. The masked-language-model head runs on the masked rows alone,
//! the pooler on the [CLS] rows alone.

use crate::autograd::differentiable;
#[cfg(feature = "cuda")]
use crate::cuda;
use crate::ops::{check_indices, float, in_f32, on_device};
use crate::tensor::Tensor;
use crate::{Error, Result, cpu};

impl Tensor {
    /// Rows `indices` of `self` [R, W]: [indices, W]. An index may come more than once; its gradients add.
    ///
    /// # Errors
    /// When this is no matrix or an index is not below R.
    pub fn gather_rows(&self, indices: &[u32]) -> Result<Tensor> {
        gather("gather_rows", "row index", self, indices)
    }

    /// A matrix [rows, W] of zeros to whose rows `indices` the rows of `self` [indices, W] are added.
    ///
    /// # Errors
    /// When this is no matrix of as many rows as indices, or an index is not below `rows`.
    pub fn scatter_rows(&self, indices: &[u32], rows: usize) -> Result<Tensor> {
        const OP: &str = "scatter_rows";
        if let Some(y) = in_f32([self], |[x]| x.scatter_rows(indices, rows))? {
            return Ok(y);
        }
        let (count, width) = matrix(OP, self)?;
        if count != indices.len() {
            let reason = format!("{} indices given for {count} rows", indices.len());
            return Err(Error::shape(OP, reason, &[("tensor", self.shape())]));
        }
        check_indices(OP, "row index", indices, rows)?;
        let x = self.values()?;
        let output = on_device!(
            x,
            cpu => float!(OP, x.dtype(), T => {
                Tensor::build(OP, &[rows, width], &x.device(), |y: &mut [T]| {
                    cpu::embedding::scatter_add(cpu::Target::new(y, false), width, indices, x.slice());
                })?
            }),
            cuda => {
                let output = Tensor::zeros(&[rows, width], x.dtype(), &x.device())?;
                cuda::embedding::scatter(OP, &x, indices, &output)?;
                output
            },
        );
        let indices = indices.to_vec();
        Ok(differentiable(OP, [self], [], output, move |[], dy, [dx]| dx.give_with(|| dy.gather_rows(&indices))))
    }
}

/// Rows `indices` of a matrix, for an operation that calls them `what`.
pub(super) fn gather(op: &'static str, what: &'static str, x: &Tensor, indices: &[u32]) -> Result<Tensor> {
    if let Some(y) = in_f32([x], |[x]| gather(op, what, x, indices))? {
        return Ok(y);
    }
    let (rows, width) = matrix(op, x)?;
    check_indices(op, what, indices, rows)?;
    let values = x.values()?;
    let output = on_device!(
        values,
        cpu => float!(op, x.dtype(), T => {
            Tensor::build(op, &[indices.len(), width], &x.device(), |y: &mut [T]| {
                cpu::embedding::gather(values.slice(), width, indices, y);
            })?
        }),
        cuda => cuda::embedding::gather(op, &values, indices)?,
    );
    let indices = indices.to_vec();
    Ok(differentiable(op, [x], [], output, move |[], dy, [dx]| {
        let Some(mut dx) = dx.open()? else { return Ok(()) };
        on_device!(dy, cpu => (), cuda => return cuda::embedding::scatter(op, &dy, &indices, &dx.zeroed()?));
        float!(op, dy.dtype(), T => cpu::embedding::scatter_add::<T>(dx.rows_target(&indices), width, &indices, dy.slice()));
        Ok(())
    }))
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
    cases.add("scatter_rows", "none", [normal(&[0, 3])], |x| x[0].scatter_rows(&[], 2));
}
