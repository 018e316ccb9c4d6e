//! Rows of tables, and sums of gradients by row: embedding.cu. The indices were checked on the host.

use bytemuck::NoUninit;

use super::arguments::{device_of, f32s, fresh, int, pointer};
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

    fn forward(&self, [x]: [&Tensor; 1], _: bool) -> Result<GpuOutput> {
        let op = self.name();
        let x = f32s(op, x)?;
        let device = device_of(op, &x)?;
        let rows = self.indices.len();
        let y = fresh(op, &[rows, x.width()], DType::F32, &device)?;
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
        let launch = Launch::new(&device, op, FILE, "gather_f32").grid([rows.div_ceil(WARPS), 1, 1]);
        launch.moves(8 * rows * x.width()).with(&arguments)?;
        let indices = self.indices.clone();
        Ok(GpuOutput::new(y, move |dy, [dx]| match dx.open()? {
            Some(mut dx) => scatter(op, &dy, &indices, dx.zeroed()?),
            None => Ok(()),
        }))
    }
}

impl CudaOp for ScatterRows {
    type Arity = [(); 1];

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
    width: i32,
    padding: u32,
}

/// Adds each row of `x` to the row of `to` that `ids` names, in the order of `x`. No other handle accesses `to`.
fn scatter(op: &'static str, x: &Tensor, ids: &[u32], to: &Tensor) -> Result<()> {
    let x = f32s(op, x)?;
    let device = device_of(op, &x)?;
    // A block sums the tokens of one row, so they are sorted by row, stably.
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    order.sort_by_key(|&at| ids[at as usize]);
    let (mut rows, mut starts): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
    for (at, &token) in order.iter().enumerate() {
        let row = ids[token as usize];
        if rows.last() != Some(&row) {
            rows.push(row);
            starts.push(at as u32);
        }
    }
    starts.push(order.len() as u32);
    let uploaded = [device.input(op, &order)?, device.input(op, &starts)?, device.input(op, &rows)?];
    let arguments = ScatterArguments {
        dz: pointer(&x),
        order: uploaded[0].pointer(),
        starts: uploaded[1].pointer(),
        rows: uploaded[2].pointer(),
        gradient: pointer(to),
        width: int(op, x.width())?,
        padding: 0,
    };
    let bytes = 4 * (ids.len() + rows.len()) * x.width();
    Launch::new(&device, op, FILE, "scatter_sums_f32").moves(bytes).grid([rows.len(), 1, 1]).with(&arguments)
}
