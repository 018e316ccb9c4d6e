//! One vector for each sequence: pooling.cu.

use bytemuck::NoUninit;

use super::arguments::{device_of, f32s, fresh, int, pointer, write_gradient};
use crate::cuda::{DeviceBuffer, Launch, Pointer};
use crate::dispatch::Op;
use crate::dispatch::gpu::{CudaOp, GpuOutput};
use crate::dtype::DType;
use crate::error::Result;
use crate::ops::pooling::{Pool, Pooling};
use crate::sequences::Sequences;
use crate::tensor::Tensor;

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct PoolArguments {
    x: Pointer,
    y: Pointer,
    starts: Pointer,
    rows: Pointer,
    width: i32,
    add: i32,
}

impl CudaOp for Pool {
    type Arity = [(); 1];

    fn forward(&self, [x]: [&Tensor; 1], _: bool) -> Result<GpuOutput> {
        let (op, sequences) = (self.name(), self.sequences.clone());
        let device = device_of(op, x)?;
        let (count, width) = (sequences.len(), x.width());
        let y = fresh(op, &[count, width], DType::F32, &device)?;
        // The row of each maximum.
        let rows = device.allocate(op, if self.pooling == Pooling::Max { 4 * count * width } else { 0 })?;
        let [forward, backward] = match self.pooling {
            Pooling::Mean => ["pool_mean", "pool_mean_backward"],
            Pooling::Max => ["pool_max", "pool_max_backward"],
        };
        launch(op, forward, x, &y, &sequences, &rows, false)?;
        Ok(GpuOutput::new(y, move |dy, [dx]| {
            write_gradient(dx, |dx, add| launch(op, backward, &dy, dx, &sequences, &rows, add))
        }))
    }
}

fn launch(
    op: &'static str,
    name: &'static str,
    x: &Tensor,
    y: &Tensor,
    sequences: &Sequences,
    rows: &DeviceBuffer,
    add: bool,
) -> Result<()> {
    let x = f32s(op, x)?;
    let device = device_of(op, &x)?;
    let starts = device.input(op, sequences.cu_seqlens())?;
    let arguments = PoolArguments {
        x: pointer(&x),
        y: pointer(y),
        starts: starts.pointer(),
        rows: rows.pointer(),
        width: int(op, x.width())?,
        add: add.into(),
    };
    let bytes = 4 * (x.elements() + y.elements() * (1 + usize::from(add)));
    Launch::new(&device, op, "pooling", name).moves(bytes).grid([sequences.len(), 1, 1]).with(&arguments)
}
