//! One vector for each sequence of a packed batch: the mean of its tokens' vectors, or the largest value of each column
//! (N. Reimers, I. Gurevych, "Sentence-BERT", 2019).
//!
//! Mean over L rows: dx = dy / L in each of them. Max: dx = dy in the row that was the largest.

use crate::cpu::{self, Target};
use crate::dispatch::{Float, Keep, Op, apply};
use crate::error::{Error, Result};
use crate::layout::Dims;
use crate::sequences::Sequences;
use crate::tensor::Tensor;

/// How the vectors of a sequence become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The largest value of each column.
    Max,
}

impl Tensor {
    /// Pools the vectors `self` `[T, W]` of the tokens of `sequences` to one vector per sequence: `[B, W]`.
    ///
    /// # Errors
    /// Returns an error if `self` does not have T rows.
    pub fn pool(&self, sequences: &Sequences, pooling: Pooling) -> Result<Tensor> {
        apply(Pool { sequences: sequences.clone(), pooling, width: self.width(), rows: Vec::new() }, [self])
    }
}

/// Pooling of sequences.
pub(crate) struct Pool {
    pub(crate) sequences: Sequences,
    pub(crate) pooling: Pooling,
    width: usize,
    /// For [`Pooling::Max`], the row that each value came from.
    rows: Vec<u32>,
}

impl Op<1, 1, 0> for Pool {
    const OPERANDS: [&'static str; 1] = ["tensor"];

    fn name(&self) -> &'static str {
        "pool"
    }

    fn shapes(&self, [x]: [&Tensor; 1]) -> Result<[Dims; 1]> {
        let (tokens, sequences) = (self.sequences.tokens(), self.sequences.len());
        let wrong = |reason: String| Error::shape(self.name(), reason, &[("tensor", x.shape())]);
        match *x.shape() {
            [rows, width] if rows == tokens && width > 0 => {
                Dims::new(self.name(), &[sequences, width]).map(|dims| [dims])
            }
            [..] if x.rank() == 2 => Err(wrong(format!("must be [{tokens}, at least 1] for {sequences} sequences"))),
            [..] => Err(wrong("the tensor must be a matrix".into())),
        }
    }

    fn forward<T: Float>(&mut self, [x]: [&[T]; 1], [y]: [&mut [T]; 1]) {
        match self.pooling {
            Pooling::Mean => cpu::pooling::mean(x, self.width, self.sequences.cu_seqlens(), y),
            Pooling::Max => {
                self.rows.resize(y.len(), 0);
                cpu::pooling::max(x, self.width, self.sequences.cu_seqlens(), y, &mut self.rows);
            }
        }
    }

    fn keeps(&self) -> [Keep; 0] {
        []
    }

    fn backward<T: Float>(&self, []: [&[T]; 0], dy: &[T], [dx]: [Option<Target<'_, T>>; 1]) {
        let Some(dx) = dx else { return };
        match self.pooling {
            Pooling::Mean => cpu::pooling::mean_backward(dy, self.width, self.sequences.cu_seqlens(), dx),
            Pooling::Max => cpu::pooling::max_backward(dy, self.width, &self.rows, dx),
        }
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
    use crate::conformance::{assert_same_with_gradients, normal};
    use crate::device::Device;

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
        let x = Tensor::zeros(&[4, 2], crate::dtype::DType::F32, &Device::Cpu)?;
        let error = x.pool(&Sequences::new(&[3])?, Pooling::Mean).err().map(|error| error.to_string());
        assert!(error.is_some_and(|said| said.contains("[3, at least 1]")));
        Ok(())
    }
}
