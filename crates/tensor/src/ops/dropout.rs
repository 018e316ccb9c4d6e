//! Dropout of hidden states (N. Srivastava et al., 2014): each element is dropped with probability p, and
//! kept ones are scaled by 1 / (1 - p). The mask follows from [`Dropout`] and each row's coordinates; the
//! backward computes it again: dx = mask * dy.

use crate::autograd::differentiable;
#[cfg(feature = "cuda")]
use crate::cuda;
use crate::dropout::{Dropout, RowCoordinate};
use crate::ops::{float, in_f32, on_device, rows_and_width};
use crate::tensor::Tensor;
use crate::{Error, Result, cpu};

impl Tensor {
    /// Drops elements of `self` [.., W], whose rows stand where `rows` says. `rows` may be empty where
    /// `dropout` is none.
    ///
    /// # Errors
    /// When there are not as many coordinates as rows.
    pub fn dropout(&self, dropout: &Dropout, rows: &[RowCoordinate]) -> Result<Tensor> {
        const OP: &str = "dropout";
        if dropout.is_none() {
            return Ok(self.clone());
        }
        if let Some(y) = in_f32([self], |[x]| x.dropout(dropout, rows))? {
            return Ok(y);
        }
        let x = self.values()?;
        let (count, width) = rows_and_width(x.shape());
        check_rows(OP, dropout, rows, count)?;
        on_device!(x, cpu => (), cuda => {
            let coordinates = cuda::coordinates(OP, &cuda::device_of(OP, &x)?, dropout, rows)?;
            let (output, dropout) = (cuda::dropout::apply(OP, &x, dropout, &coordinates)?, *dropout);
            return Ok(differentiable(OP, [self], [], output, move |[], dy, [dx]| {
                dx.give_with(|| cuda::dropout::apply(OP, &dy, &dropout, &coordinates))
            }));
        });
        let output = float!(OP, x.dtype(), T => {
            Tensor::build(OP, x.shape(), &x.device(), |y: &mut [T]| {
                cpu::dropout::apply(x.slice(), width, rows, dropout, cpu::Target::new(y, false));
            })?
        });
        let (dropout, rows) = (*dropout, rows.to_vec());
        Ok(differentiable(OP, [self], [], output, move |[], dy, [dx]| {
            let Some(mut dx) = dx.open()? else { return Ok(()) };
            float!(OP, dy.dtype(), T => cpu::dropout::apply::<T>(dy.slice(), width, &rows, &dropout, dx.target()));
            Ok(())
        }))
    }
}

/// Checks that a dropout knows where each of `count` rows stands.
pub(super) fn check_rows(op: &'static str, dropout: &Dropout, rows: &[RowCoordinate], count: usize) -> Result<()> {
    if dropout.is_none() || rows.len() == count {
        return Ok(());
    }
    Err(Error::invalid(op, format!("{} row coordinates given for {count} rows", rows.len())))
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::{normal, rows_of};
    for (label, width) in [("one group", 16), ("part of a group", 5), ("two and a part", 37)] {
        cases.add("dropout", label, [normal(&[8, width])], |x| {
            x[0].dropout(&Dropout::new(0.4, 3, 2, 1)?, &rows_of(&[1, 7]))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Device};

    /// Rows keep their mask when their sequence moves in the batch, and another step has another mask.
    #[test]
    fn mask_follows_the_coordinates() -> Result<()> {
        let ones = Tensor::ones(&[6, 40], DType::F32, &Device::Cpu)?;
        let at = |sequence, position| RowCoordinate { sequence, position };
        let rows = [at(4, 0), at(4, 1), at(9, 0), at(9, 1), at(9, 2), at(2, 0)];
        let moved = [at(2, 0), at(9, 0), at(9, 1), at(9, 2), at(4, 0), at(4, 1)];
        let mask = |rows: &[RowCoordinate], step| ones.dropout(&Dropout::new(0.5, 1, 0, step)?, rows)?.to_vec::<f32>();
        let (a, b) = (mask(&rows, 3)?, mask(&moved, 3)?);
        assert_eq!(a[..80], b[160..]);
        assert_eq!(a[80..200], b[40..160]);
        assert_eq!(a[200..], b[..40]);
        assert_ne!(a, mask(&rows, 4)?);
        Ok(())
    }

    #[test]
    fn probability_is_rounded_or_refused() {
        assert!(Dropout::new(0.001, 0, 0, 0).is_err());
        assert!(Dropout::new(1.0, 0, 0, 0).is_err());
        assert!(Dropout::new(f64::NAN, 0, 0, 0).is_err());
        assert!(Dropout::new(0.0, 0, 0, 0).is_ok_and(|d| d.is_none()));
        assert_eq!(Dropout::new(0.1, 0, 0, 0).map(|d| d.threshold()).ok(), Some(26));
    }
}
