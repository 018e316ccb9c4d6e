//! Tensors joined along a dimension. The gradient of each is its part.

use crate::autograd::differentiable_many;
use crate::copy::copy;
use crate::element::wrong_dtype;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

impl Tensor {
    /// Joins `tensors`, which agree in all dimensions but `axis`, along `axis`.
    ///
    /// # Errors
    /// Returns an error if there are no tensors, or they do not agree.
    pub fn concat(tensors: &[&Tensor], axis: usize) -> Result<Tensor> {
        const OP: &str = "concat";
        let Some(first) = tensors.first() else {
            return Err(Error::invalid(OP, "nothing to join"));
        };
        let output = Tensor::uninitialised(OP, &joined(OP, tensors, axis)?, first.dtype(), &first.device())?;
        let mut start = 0;
        for part in tensors {
            let place = output.narrow(axis, start, part.size(axis))?;
            // SAFETY: `output` was made above, and nothing reads it yet.
            unsafe { copy(OP, &part.detach(), &place)? };
            start += part.size(axis);
        }
        let sizes: Vec<usize> = tensors.iter().map(|tensor| tensor.size(axis)).collect();
        Ok(differentiable_many(OP, tensors, &[], output, move |_, dy, slots| {
            let mut start = 0;
            for (slot, size) in slots.into_iter().zip(sizes) {
                slot.give_with(|| dy.narrow(axis, start, size)?.contiguous())?;
                start += size;
            }
            Ok(())
        }))
    }
}

/// Checks that tensors agree, and returns the shape of the whole.
fn joined(op: &'static str, tensors: &[&Tensor], axis: usize) -> Result<Vec<usize>> {
    let first = tensors[0];
    let mut shape = first.shape().to_vec();
    if axis >= shape.len() {
        return Err(Error::shape(op, format!("no dimension {axis}"), &[("first", &shape)]));
    }
    for other in &tensors[1..] {
        let agrees = |dimension: usize| dimension == axis || other.size(dimension) == shape[dimension];
        if other.rank() != shape.len() || !(0..shape.len()).all(agrees) {
            let operands = [("first", first.shape()), ("other", other.shape())];
            return Err(Error::shape(op, format!("shapes differ beyond dimension {axis}"), &operands));
        }
        if other.dtype() != first.dtype() {
            return Err(wrong_dtype(op, "other", other.dtype(), &format!("{} as first", first.dtype())));
        }
        if other.device() != first.device() {
            return Err(Error::invalid(op, format!("other is on {}, first on {}", other.device(), first.device())));
        }
        shape[axis] += other.size(axis);
    }
    Ok(shape)
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::normal;
    cases.add("concat", "rows", [normal(&[2, 3]), normal(&[4, 3])], |x| Tensor::concat(&[&x[0], &x[1]], 0));
    cases.add("concat", "columns", [normal(&[2, 3]), normal(&[2, 1])], |x| Tensor::concat(&[&x[0], &x[1], &x[0]], 1));
    cases.add("concat", "empty", [normal(&[2, 0]), normal(&[2, 3])], |x| Tensor::concat(&[&x[0], &x[1]], 1));
}
