//! Rows of tables, and sums of gradients by row: embedding.cu. Ids were checked on the host.

use bytemuck::NoUninit;

use super::launch::Launch;
use super::{Pointer, device_of, f32s, fresh, int, pointer};
use crate::tensor::Tensor;
use crate::{DType, Result};

const FILE: &str = "embedding";
const WARPS: usize = 4;

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Embed {
    tables: [Pointer; 3],
    ids: [Pointer; 3],
    z: Pointer,
    tokens: i32,
    width: i32,
}

/// The sums of a row of each of the three tables.
pub(crate) fn embed(op: &'static str, tables: [&Tensor; 3], ids: [&[u32]; 3]) -> Result<Tensor> {
    let device = device_of(op, tables[0])?;
    let [word, position, token_type] = [f32s(op, tables[0])?, f32s(op, tables[1])?, f32s(op, tables[2])?];
    let (tokens, width) = (ids[0].len(), word.width());
    let z = fresh(op, &[tokens, width], DType::F32, &device)?;
    let uploaded = [device.input(op, ids[0])?, device.input(op, ids[1])?, device.input(op, ids[2])?];
    let arguments = Embed {
        tables: [pointer(&word), pointer(&position), pointer(&token_type)],
        ids: [uploaded[0].pointer(), uploaded[1].pointer(), uploaded[2].pointer()],
        z: pointer(&z),
        tokens: int(op, tokens)?,
        width: int(op, width)?,
    };
    Launch::new(&device, op, FILE, "embed_f32").grid([tokens.div_ceil(WARPS), 1, 1]).with(&arguments)?;
    Ok(z)
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Gather {
    x: Pointer,
    ids: Pointer,
    y: Pointer,
    rows: i32,
    width: i32,
}

/// Rows `ids` of a matrix.
pub(crate) fn gather(op: &'static str, x: &Tensor, ids: &[u32]) -> Result<Tensor> {
    let x = f32s(op, x)?;
    let device = device_of(op, &x)?;
    let y = fresh(op, &[ids.len(), x.width()], DType::F32, &device)?;
    let uploaded = device.input(op, ids)?;
    let arguments = Gather {
        x: pointer(&x),
        ids: uploaded.pointer(),
        y: pointer(&y),
        rows: int(op, ids.len())?,
        width: int(op, x.width())?,
    };
    Launch::new(&device, op, FILE, "gather_f32").grid([ids.len().div_ceil(WARPS), 1, 1]).with(&arguments)?;
    Ok(y)
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Scatter {
    dz: Pointer,
    order: Pointer,
    starts: Pointer,
    rows: Pointer,
    gradient: Pointer,
    width: i32,
    padding: u32,
}

/// Adds each row of `x` to row `ids` of `to`, which nobody else sees; those of one row in their order.
pub(crate) fn scatter(op: &'static str, x: &Tensor, ids: &[u32], to: &Tensor) -> Result<()> {
    let x = f32s(op, x)?;
    let device = device_of(op, &x)?;
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
    let (order, starts_there, rows_there) =
        (device.input(op, &order)?, device.input(op, &starts)?, device.input(op, &rows)?);
    let arguments = Scatter {
        dz: pointer(&x),
        order: order.pointer(),
        starts: starts_there.pointer(),
        rows: rows_there.pointer(),
        gradient: pointer(to),
        width: int(op, x.width())?,
        padding: 0,
    };
    Launch::new(&device, op, FILE, "scatter_sums_f32").grid([rows.len(), 1, 1]).with(&arguments)
}
