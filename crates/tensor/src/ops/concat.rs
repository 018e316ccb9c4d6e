//! Tensors joined along a dimension. The gradient of each is its part.

use crate::autograd::differentiable_many;
use crate::ops::{alike, element, on_device};
use crate::tensor::Tensor;
use crate::{Error, Result};

impl Tensor {
    /// Joins `tensors`, which agree in all dimensions but `axis`, along `axis`.
    ///
    /// # Errors
    /// When there is none, or they do not agree.
    pub fn concat(tensors: &[&Tensor], axis: usize) -> Result<Tensor> {
        const OP: &str = "concat";
        let Some((first, rest)) = tensors.split_first() else {
            return Err(Error::invalid(OP, "nothing to join"));
        };
        let mut shape = first.shape().to_vec();
        if axis >= shape.len() {
            return Err(Error::shape(OP, format!("no dimension {axis}"), &[("first", &shape)]));
        }
        for other in rest {
            let fits = other.rank() == shape.len()
                && (0..shape.len()).all(|other_axis| other_axis == axis || other.size(other_axis) == shape[other_axis]);
            if !fits {
                let operands = [("first", first.shape()), ("other", other.shape())];
                return Err(Error::shape(OP, format!("shapes differ beyond dimension {axis}"), &operands));
            }
            if first.dtype().is_float() {
                alike(OP, &[("first", first), ("other", other)])?;
            } else if other.dtype() != first.dtype() {
                return Err(super::wrong_dtype(OP, "other", other.dtype(), &first.dtype().to_string()));
            }
            shape[axis] += other.size(axis);
        }
        let parts = tensors.iter().map(|tensor| tensor.values()).collect::<Result<Vec<_>>>()?;
        let inner: usize = shape[axis + 1..].iter().product();
        let whole = shape[axis] * inner;
        let output = on_device!(
            first,
            cpu => element!(OP, first.dtype(), T => {
                Tensor::build(OP, &shape, &first.device(), |to: &mut [T]| {
                    let mut start = 0;
                    for part in &parts {
                        let length = part.size(axis) * inner;
                        let runs = to.chunks_exact_mut(whole.max(1)).zip(part.slice::<T>().chunks_exact(length.max(1)));
                        runs.for_each(|(to, from)| to[start..start + length].copy_from_slice(from));
                        start += length;
                    }
                })?
            }),
            cuda => {
                let output = Tensor::uninitialised(OP, &shape, first.dtype(), &first.device())?;
                let mut start = 0;
                for part in &parts {
                    let place = output.narrow(axis, start, part.size(axis))?;
                    crate::cuda::elementwise::copy(OP, part, &place, false)?;
                    start += part.size(axis);
                }
                output
            },
        );
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

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::normal;
    cases.add("concat", "rows", [normal(&[2, 3]), normal(&[4, 3])], |x| Tensor::concat(&[&x[0], &x[1]], 0));
    cases.add("concat", "columns", [normal(&[2, 3]), normal(&[2, 1])], |x| Tensor::concat(&[&x[0], &x[1], &x[0]], 1));
    cases.add("concat", "empty", [normal(&[2, 0]), normal(&[2, 3])], |x| Tensor::concat(&[&x[0], &x[1]], 1));
}
