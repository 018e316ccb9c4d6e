//! Dropout of hidden states (N. Srivastava et al., 2014): each element is dropped with probability p, and kept ones are
//! scaled by 1 / (1 - p). The mask follows from [`Dropout`] and each row's coordinates; the backward computes it again:
//! dx = mask * dy.

use crate::cpu::{self, Target};
use crate::dispatch::{Float, Keep, Op, apply};
use crate::dropout::{Dropout, RowCoordinate};
use crate::error::{Error, Result};
use crate::layout::{Dims, rows_and_width};
use crate::tensor::Tensor;

impl Tensor {
    /// Drops elements of `self` [.., W], whose rows are located by `rows`. `rows` may be empty if `dropout` keeps
    /// everything.
    ///
    /// # Errors
    /// Returns an error if the number of coordinates is not the number of rows.
    pub fn dropout(&self, dropout: &Dropout, rows: &[RowCoordinate]) -> Result<Tensor> {
        if dropout.is_none() {
            return Ok(self.clone());
        }
        let (count, width) = rows_and_width(self.shape());
        check_rows("dropout", dropout, rows, count)?;
        apply(HiddenDropout { dropout: *dropout, width, rows: rows.to_vec() }, [self])
    }
}

/// Dropout of rows of hidden states.
pub(crate) struct HiddenDropout {
    pub(crate) dropout: Dropout,
    width: usize,
    pub(crate) rows: Vec<RowCoordinate>,
}

impl Op<1, 1, 0> for HiddenDropout {
    const OPERANDS: [&'static str; 1] = ["tensor"];

    fn name(&self) -> &'static str {
        "dropout"
    }

    fn shapes(&self, [x]: [&Tensor; 1]) -> Result<[Dims; 1]> {
        Ok([x.dims()])
    }

    fn forward<T: Float>(&mut self, [x]: [&[T]; 1], [y]: [&mut [T]; 1]) {
        cpu::dropout::apply(x, self.width, &self.rows, &self.dropout, Target::new(y, false));
    }

    fn keeps(&self) -> [Keep; 0] {
        []
    }

    fn backward<T: Float>(&self, []: [&[T]; 0], dy: &[T], [dx]: [Option<Target<'_, T>>; 1]) {
        if let Some(dx) = dx {
            cpu::dropout::apply(dy, self.width, &self.rows, &self.dropout, dx);
        }
    }
}

/// Checks that a dropout has a coordinate for each of `count` rows.
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
    use crate::device::Device;
    use crate::dtype::DType;

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
