//! One vector for each sequence of a packed batch: the mean of its tokens' vectors, or the largest value of each
//! column (N. Reimers, I. Gurevych, "Sentence-BERT", 2019).
//!
//! Mean over L rows: dx = dy / L in each of them. Max: dx = dy in the row that was the largest.

use crate::autograd::differentiable;
#[cfg(feature = "cuda")]
use crate::cuda;
use crate::ops::{Sequences, float, in_f32, on_device};
use crate::tensor::Tensor;
use crate::{Error, Result, cpu};

/// How the vectors of a sequence become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The largest of each column.
    Max,
}

impl Tensor {
    /// The vectors `self` `[T, W]` of the tokens of `sequences` to one vector per sequence: `[B, W]`.
    ///
    /// # Errors
    /// When `self` has not T rows.
    pub fn pool(&self, sequences: &Sequences, pooling: Pooling) -> Result<Tensor> {
        const OP: &str = "pool";
        if let Some(y) = in_f32([self], |[x]| x.pool(sequences, pooling))? {
            return Ok(y);
        }
        let &[tokens, width] = self.shape() else {
            return Err(Error::shape(OP, "the tensor must be a matrix", &[("tensor", self.shape())]));
        };
        if tokens != sequences.tokens() || width == 0 {
            let reason = format!("must be [{}, at least 1] for {} sequences", sequences.tokens(), sequences.len());
            return Err(Error::shape(OP, reason, &[("tensor", self.shape())]));
        }
        let x = self.values()?;
        on_device!(x, cpu => (), cuda => {
            let (output, rows) = cuda::pooling::forward(OP, &x, sequences, pooling)?;
            let sequences = sequences.clone();
            return Ok(differentiable(OP, [self], [], output, move |[], dy, [dx]| {
                dx.give_with(|| cuda::pooling::backward(OP, &dy, &sequences, pooling, &rows))
            }));
        });
        let shape = [sequences.len(), width];
        let cu_seqlens = sequences.cu_seqlens();
        let mut rows = Vec::new();
        let output = float!(OP, x.dtype(), T => Tensor::build(OP, &shape, &x.device(), |y: &mut [T]| match pooling {
            Pooling::Mean => cpu::pooling::mean(x.slice(), width, cu_seqlens, y),
            Pooling::Max => {
                rows.resize(y.len(), 0);
                cpu::pooling::max(x.slice(), width, cu_seqlens, y, &mut rows);
            }
        })?);
        let sequences = sequences.clone();
        Ok(differentiable(OP, [self], [], output, move |[], dy, [dx]| {
            let Some(mut dx) = dx.open()? else { return Ok(()) };
            float!(OP, dy.dtype(), T => match pooling {
                Pooling::Mean => {
                    cpu::pooling::mean_backward::<T>(dy.slice(), width, sequences.cu_seqlens(), dx.target());
                }
                Pooling::Max => cpu::pooling::max_backward::<T>(dy.slice(), width, &rows, dx.target()),
            });
            Ok(())
        }))
    }
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::normal;
    for (label, pooling) in [("mean", Pooling::Mean), ("max", Pooling::Max)] {
        cases.add("pool", label, [normal(&[11, 7])], move |x| x[0].pool(&Sequences::new(&[3, 1, 7])?, pooling));
        cases.add("pool", label, [normal(&[0, 5])], move |x| x[0].pool(&Sequences::new(&[])?, pooling));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;
    use crate::conformance::{assert_same_with_gradients, normal};

    #[test]
    fn mean_equals_the_means_of_its_parts() {
        assert_same_with_gradients(
            &[normal(&[9, 4])],
            |x| x[0].pool(&Sequences::new(&[2, 7])?, Pooling::Mean),
            |x| {
                let mean = |start, length| x[0].narrow(0, start, length)?.mean(0)?.unsqueeze(0);
                Tensor::concat(&[&mean(0, 2)?, &mean(2, 7)?], 0)
            },
        );
    }

    #[test]
    fn the_first_of_equals_and_nan_win() -> Result<()> {
        let x = [[1f32, -2.0, 3.0], [1.0, f32::NAN, 3.5], [0.0, 7.0, 2.0]];
        let x = Tensor::new(x, &Device::Cpu)?.requires_grad();
        let y = x.pool(&Sequences::new(&[3])?, Pooling::Max)?;
        let values = y.to_vec::<f32>()?;
        assert_eq!((values[0], values[2]), (1.0, 3.5));
        assert!(values[1].is_nan());
        let gradient = y.sum_all()?.backward()?.get(&x).map(|gradient| gradient.to_vec::<f32>());
        assert_eq!(gradient.transpose()?, Some(vec![1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0]));
        Ok(())
    }

    #[test]
    fn wrong_rows_are_refused() -> Result<()> {
        let x = Tensor::zeros(&[4, 2], crate::DType::F32, &Device::Cpu)?;
        let error = x.pool(&Sequences::new(&[3])?, Pooling::Mean).err().map(|error| error.to_string());
        assert!(error.is_some_and(|said| said.contains("[3, at least 1]")));
        Ok(())
    }
}
