//! The largest elements. Positions have no gradient, so these functions return plain numbers.

use std::cmp::Ordering;

use crate::device::Device;
use crate::dispatch::Float;
use crate::dtype::DType;
use crate::error::Result;
use crate::layout::rows_and_width;
use crate::tensor::Tensor;

impl Tensor {
    /// Returns the `k` largest elements of each row of `self` [.., W] with their columns, largest first. Equal elements
    /// are in the order of their columns; NaN comes last.
    pub fn top_k(&self, k: usize) -> Result<Vec<Vec<(usize, f64)>>> {
        let values = self.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec::<f64>()?;
        let (rows, width) = rows_and_width(self.shape());
        Ok((0..rows)
            .map(|row| {
                let mut columns: Vec<(usize, f64)> =
                    values[row * width..][..width].iter().copied().enumerate().collect();
                let order = |a: &(usize, f64), b: &(usize, f64)| {
                    let numbers_first = a.1.is_nan().cmp(&b.1.is_nan());
                    numbers_first.then_with(|| b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal)).then(a.0.cmp(&b.0))
                };
                if k < columns.len() {
                    columns.select_nth_unstable_by(k, order);
                    columns.truncate(k);
                }
                columns.sort_unstable_by(order);
                columns
            })
            .collect())
    }

    /// Returns the column of the largest element of each row of `self` [.., W], the first if several are equal. NaN is
    /// smaller than any number. A row without columns gives 0.
    pub fn argmax(&self) -> Result<Vec<usize>> {
        let (rows, width) = rows_and_width(self.shape());
        let values = self.detach().to_device(&Device::Cpu)?.contiguous()?;
        if width == 0 {
            return Ok(vec![0; rows]);
        }
        Ok(match values.dtype() {
            DType::F64 => values.slice::<f64>().chunks_exact(width).map(largest).collect(),
            _ => values.to_dtype(DType::F32)?.slice::<f32>().chunks_exact(width).map(largest).collect(),
        })
    }
}

fn largest<T: Float>(row: &[T]) -> usize {
    row.iter().enumerate().fold(0, |best, (column, x)| {
        let is_nan = |x: &T| x.to_f64().is_nan();
        if *x > row[best] || is_nan(&row[best]) && !is_nan(x) { column } else { best }
    })
}

#[cfg(test)]
mod tests {
    use crate::device::Device;
    use crate::error::Result;
    use crate::tensor::Tensor;

    #[test]
    fn largest_first_and_ties_in_order() -> Result<()> {
        let x = Tensor::new([[1f32, 3.0, 3.0, -1.0], [f32::NAN, 0.5, 0.25, 0.5]], &Device::Cpu)?;
        assert_eq!(x.top_k(2)?, [[(1, 3.0), (2, 3.0)], [(1, 0.5), (3, 0.5)]]);
        assert_eq!(x.argmax()?, [1, 1]);
        assert_eq!(x.top_k(9)?[0].len(), 4);
        let x =
            Tensor::new([[f32::NAN, f32::NEG_INFINITY, -1.0], [f32::NAN, f32::NAN, f32::NEG_INFINITY]], &Device::Cpu)?;
        let columns: Vec<Vec<usize>> = x.top_k(3)?.iter().map(|row| row.iter().map(|&(at, _)| at).collect()).collect();
        assert_eq!(columns, [[2, 1, 0], [2, 0, 1]]);
        assert_eq!(x.argmax()?, [2, 2]);
        assert_eq!(Tensor::new([[f32::NAN, f32::NAN]], &Device::Cpu)?.argmax()?, [0]);
        Ok(())
    }
}
