//! Search among stored vectors: what `cloze-bert`'s index is made of.

use crate::cpu::nearest::{Query, Rows, most_level, nearest};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Vectors of one width in a matrix on the CPU.
#[derive(Clone, Debug)]
pub enum StoredRows {
    /// f32 `[N, width]`.
    F32(Tensor),
    /// Four whole numbers from -127 to 127 in each u32 `[N, width / 4]`, rounded up, the first in the lowest byte; and f32
    /// `[N]`, what those of a row are multiplied by.
    Int8(Tensor, Tensor),
    /// 32 bits in each u32 `[N, width / 32]`, rounded up, the first in the lowest bit; whether an element is above 0.
    Bits(Tensor),
}

impl StoredRows {
    /// Returns the `k` rows with the largest scores against each of `queries` `[Q, width]` with these scores, largest first.
    /// The score is the product, and for bits 1 - 2 d / width, with the number d of bits that differ.
    ///
    /// # Errors
    /// Returns an error if a shape or a type is not as above, or something is not on the CPU.
    pub fn nearest(&self, width: usize, queries: &Tensor, k: usize) -> Result<Vec<Vec<(usize, f32)>>> {
        let columns = match self {
            StoredRows::F32(_) => width,
            StoredRows::Int8(..) => width.div_ceil(4),
            StoredRows::Bits(_) => width.div_ceil(32),
        };
        let rows = match self {
            StoredRows::F32(rows) => matrix(rows, "rows", DType::F32, columns)?,
            StoredRows::Int8(rows, _) | StoredRows::Bits(rows) => matrix(rows, "rows", DType::U32, columns)?,
        };
        let queries = matrix(queries, "queries", DType::F32, width)?;
        let queries: Vec<&[f32]> = queries.slice::<f32>().chunks_exact(width).collect();
        Ok(match self {
            StoredRows::F32(_) => {
                let queries: Vec<Query<'_>> = queries.into_iter().map(Query::Numbers).collect();
                nearest(Rows::F32 { rows: rows.slice(), width }, &queries, k)
            }
            StoredRows::Int8(_, steps) => {
                let steps = column(steps, rows.size(0))?;
                let levels: Vec<_> = queries.iter().map(|query| levels(query, 4 * columns)).collect();
                let queries: Vec<Query<'_>> =
                    levels.iter().map(|(levels, step)| Query::Levels(levels, *step)).collect();
                let rows = Rows::Int8 {
                    rows: bytemuck::cast_slice(rows.slice::<u32>()),
                    steps: steps.slice(),
                    width: 4 * columns,
                };
                nearest(rows, &queries, k)
            }
            StoredRows::Bits(_) => {
                let words: Vec<Vec<u32>> = queries.iter().map(|query| bits(query)).collect();
                let queries: Vec<Query<'_>> = words.iter().map(|words| Query::Bits(words)).collect();
                nearest(Rows::Bits { rows: rows.slice(), width }, &queries, k)
            }
        })
    }
}

const OP: &str = "nearest";

fn matrix(tensor: &Tensor, what: &'static str, dtype: DType, width: usize) -> Result<Tensor> {
    if tensor.rank() != 2 || tensor.width() != width || width == 0 {
        return Err(Error::shape(OP, format!("{what} must have {width} columns"), &[(what, tensor.shape())]));
    }
    if tensor.dtype() != dtype || !tensor.is_on_cpu() {
        let reason = format!("{what} are {} on {}: must be {dtype} on cpu", tensor.dtype(), tensor.device());
        return Err(Error::invalid(OP, reason));
    }
    tensor.values()
}

fn column(steps: &Tensor, rows: usize) -> Result<Tensor> {
    if steps.shape() != [rows] || steps.dtype() != DType::F32 || !steps.is_on_cpu() {
        let reason = format!("steps must be f32 [{rows}] on cpu");
        return Err(Error::shape(OP, reason, &[("steps", steps.shape())]));
    }
    steps.values()
}

/// Returns a query as whole numbers, of which those beyond its width are 0, and what they are multiplied by.
fn levels(query: &[f32], width: usize) -> (Vec<i16>, f32) {
    let most = f32::from(most_level(width));
    let largest = query.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    let step = largest / most;
    let level = |x: &f32| if step > 0.0 { (x / step).round().clamp(-most, most) as i16 } else { 0 };
    let mut levels: Vec<i16> = query.iter().map(level).collect();
    levels.resize(width, 0);
    (levels, step)
}

/// Returns whether each number is above 0, as [`StoredRows::Bits`] has it.
pub fn bits(row: &[f32]) -> Vec<u32> {
    let word = |row: &[f32]| row.iter().enumerate().fold(0, |word, (at, x)| word | u32::from(*x > 0.0) << at);
    row.chunks(32).map(word).collect()
}
