//! Rows of tables, and sums of gradients by row: embedding.cu. The indices were checked on the host.

use std::ops::Range;

use bytemuck::NoUninit;

use super::arguments::{device_of, f32s, floats, fresh, int, kernel_for, pointer};
use super::layer_norm::{Input, Normalised, normalise};
use crate::cuda::{Launch, Pointer};
use crate::dispatch::gpu::{CudaOp, GpuOutput};
use crate::dispatch::{Op, TensorOp};
use crate::dtype::DType;
use crate::error::Result;
use crate::ops::embedding::EmbeddingsLayerNorm;
use crate::ops::rows::{GatherRows, ScatterRows};
use crate::tensor::Tensor;

const FILE: &str = "embedding";
/// Rows of a block: a warp for each.
const WARPS: usize = 4;

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct EmbeddingArguments {
    tables: [Pointer; 3],
    ids: [Pointer; 3],
    z: Pointer,
    tokens: i32,
    width: i32,
}

impl CudaOp for EmbeddingsLayerNorm {
    type Arity = [(); 5];

    fn forward(&self, [word, position, token_type, gamma, beta]: [&Tensor; 5], _: bool) -> Result<GpuOutput> {
        let op = self.name();
        let sum = embed(op, [word, position, token_type], self.ids.each_ref().map(Vec::as_slice))?;
        let Normalised { y, backward } = normalise(op, Input { x: &sum, residual: None }, [gamma, beta], self.eps)?;
        let ids = self.ids.clone();
        Ok(GpuOutput::new(y, move |dy, [word, position, token_type, dgamma, dbeta]| {
            let dz = fresh(op, dy.shape(), DType::F32, &device_of(op, &dy)?)?;
            backward.launch(&dy, [Some((&dz, false)), None], [dgamma, dbeta])?;
            for (slot, ids) in [word, position, token_type].into_iter().zip(&ids) {
                if let Some(mut table) = slot.open()? {
                    scatter(op, &dz, ids, table.zeroed()?)?;
                }
            }
            Ok(())
        }))
    }
}

/// Sums a row of each of the three tables for every token.
fn embed(op: &'static str, tables: [&Tensor; 3], ids: [&[u32]; 3]) -> Result<Tensor> {
    let device = device_of(op, tables[0])?;
    let [word, position, token_type] = [f32s(op, tables[0])?, f32s(op, tables[1])?, f32s(op, tables[2])?];
    let (tokens, width) = (ids[0].len(), word.width());
    let z = fresh(op, &[tokens, width], DType::F32, &device)?;
    let uploaded = [device.input(op, ids[0])?, device.input(op, ids[1])?, device.input(op, ids[2])?];
    let arguments = EmbeddingArguments {
        tables: [pointer(&word), pointer(&position), pointer(&token_type)],
        ids: [uploaded[0].pointer(), uploaded[1].pointer(), uploaded[2].pointer()],
        z: pointer(&z),
        tokens: int(op, tokens)?,
        width: int(op, width)?,
    };
    let launch = Launch::new(&device, op, FILE, "embed_f32").grid([tokens.div_ceil(WARPS), 1, 1]);
    // A word of each token; positions and types are few.
    launch.moves(8 * tokens * width).with(&arguments)?;
    Ok(z)
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct GatherArguments {
    x: Pointer,
    ids: Pointer,
    y: Pointer,
    rows: i32,
    width: i32,
    add: i32,
    padding: u32,
}

impl CudaOp for GatherRows {
    type Arity = [(); 1];

    const READS_BF16: bool = true;

    fn forward(&self, [x]: [&Tensor; 1], _: bool) -> Result<GpuOutput> {
        let op = self.name();
        let x = floats(op, x)?;
        let device = device_of(op, &x)?;
        let rows = self.indices.len();
        let y = fresh(op, &[rows, x.width()], x.dtype(), &device)?;
        let ids = device.input(op, &self.indices)?;
        let arguments = GatherArguments {
            x: pointer(&x),
            ids: ids.pointer(),
            y: pointer(&y),
            rows: int(op, rows)?,
            width: int(op, x.width())?,
            add: 0,
            padding: 0,
        };
        let name = kernel_for(x.dtype(), ["gather_f32", "gather_bf16"]);
        let launch = Launch::new(&device, op, FILE, name).grid([rows.div_ceil(WARPS), 1, 1]);
        launch.moves(2 * x.dtype().size() * rows * x.width()).with(&arguments)?;
        let indices = self.indices.clone();
        Ok(GpuOutput::new(y, move |dy, [dx]| match dx.open()? {
            Some(mut dx) => scatter(op, &dy, &indices, dx.zeroed()?),
            None => Ok(()),
        }))
    }
}

impl CudaOp for ScatterRows {
    type Arity = [(); 1];

    const READS_BF16: bool = true;

    fn forward(&self, [x]: [&Tensor; 1], _: bool) -> Result<GpuOutput> {
        let output = Tensor::zeros(&[self.rows, x.width()], x.dtype(), &x.device())?;
        scatter(self.name(), x, &self.indices, &output)?;
        Ok(GpuOutput::Operation(output, Vec::new()))
    }
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct ScatterArguments {
    dz: Pointer,
    order: Pointer,
    starts: Pointer,
    rows: Pointer,
    gradient: Pointer,
    partials: Pointer,
    width: i32,
    padding: u32,
}

/// Rows that a block sums at most.
const SEGMENT: u32 = 64;
/// Marks sums of segments that are summed again.
const PARTIAL: u32 = 1 << 31;

/// Rows of a matrix, or of the order in which its rows are taken, whose sum is added to row `to`.
struct Group {
    rows: Range<u32>,
    to: u32,
}

/// Adds each row of `x` to the row of `to`, of the same type, that `ids` names, in the order of `x`. No other handle accesses `to`.
fn scatter(op: &'static str, x: &Tensor, ids: &[u32], to: &Tensor) -> Result<()> {
    let x = floats(op, x)?;
    // The rows of `x` by their ids, stably: each id starts after all smaller ones.
    let mut ends = vec![0u32; to.size(0) + 1];
    ids.iter().for_each(|&id| ends[id as usize + 1] += 1);
    (1..ends.len()).for_each(|id| ends[id] += ends[id - 1]);
    let mut order = vec![0u32; ids.len()];
    for (at, &id) in ids.iter().enumerate() {
        order[ends[id as usize] as usize] = at as u32;
        ends[id as usize] += 1;
    }
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let groups = starts.zip(&ends).enumerate().filter(|(_, (start, end))| start < end);
    let groups = groups.map(|(id, (start, &end))| Group { rows: start..end, to: id as u32 });
    sum_groups(op, &x, Some(&order), groups, to)
}

/// Adds the sums of groups of rows of `x` to rows of `to`; `order`, if given, lists the rows that groups count. Long groups are summed
/// by segments first, so that they occupy many blocks.
fn sum_groups(
    op: &'static str,
    x: &Tensor,
    order: Option<&[u32]>,
    groups: impl Iterator<Item = Group>,
    to: &Tensor,
) -> Result<()> {
    let (device, width) = (device_of(op, x)?, x.width());
    let (mut starts, mut rows, mut segmented, mut partials) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let mut end = 0;
    for group in groups {
        let segments = (group.rows.end - group.rows.start).div_ceil(SEGMENT);
        starts.extend(group.rows.clone().step_by(SEGMENT as usize));
        end = group.rows.end;
        if segments == 1 {
            rows.push(group.to);
        } else {
            rows.extend((partials..partials + segments).map(|partial| PARTIAL | partial));
            segmented.push(Group { rows: partials..partials + segments, to: group.to });
            partials += segments;
        }
    }
    starts.push(end);
    let sums = fresh(op, &[partials as usize, width], DType::F32, &device)?;
    let order = order.map(|order| device.input(op, order)).transpose()?;
    let uploaded = [device.input(op, &starts)?, device.input(op, &rows)?];
    let arguments = ScatterArguments {
        dz: pointer(x),
        order: order.as_ref().map_or(0, |order| order.pointer()),
        starts: uploaded[0].pointer(),
        rows: uploaded[1].pointer(),
        gradient: pointer(to),
        partials: pointer(&sums),
        width: int(op, width)?,
        padding: 0,
    };
    let bytes = (x.dtype().size() * end as usize + to.dtype().size() * rows.len()) * width;
    let name = match (x.dtype(), to.dtype()) {
        (DType::BF16, _) => "scatter_sums_bf16_bf16",
        (_, DType::BF16) => "scatter_sums_f32_bf16",
        _ => "scatter_sums_f32_f32",
    };
    Launch::new(&device, op, FILE, name).moves(bytes).grid([rows.len(), 1, 1]).with(&arguments)?;
    match segmented.is_empty() {
        true => Ok(()),
        false => sum_groups(op, &sums, None, segmented.into_iter(), to),
    }
}

#[cfg(test)]
mod tests {
    use crate::device::Device;
    use crate::error::Result;
    use crate::tensor::Tensor;

    /// Integers add up exactly in any order.
    #[test]
    fn a_gpu_sums_segments_of_segments() -> Result<()> {
        let Ok(gpu) = Device::cuda(0) else { return Ok(()) };
        let count = (super::SEGMENT * super::SEGMENT + 100) as usize;
        let values: Vec<f32> = (0..3 * count).map(|at| (at % 11) as f32).collect();
        let ids: Vec<u32> = (0..count as u32).map(|row| if row % 50 == 7 { 2 } else { 5 }).collect();
        let sums = |device: &Device| -> Result<Vec<f32>> {
            Tensor::from_vec(values.clone(), &[count, 3], device)?.scatter_rows(&ids, 9)?.to_vec()
        };
        assert_eq!(sums(&gpu)?, sums(&Device::Cpu)?);
        Ok(())
    }
}
