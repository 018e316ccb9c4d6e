//! Dropout of hidden states on its own: dropout.cu. The gradient is dropped like the input.

use bytemuck::NoUninit;

use super::arguments::{KernelDropout, coordinates, device_of, f32s, fresh, int, pointer, write_gradient};
use crate::cuda::{DeviceBuffer, Launch, Pointer};
use crate::dispatch::Op;
use crate::dispatch::gpu::{CudaOp, GpuOutput};
use crate::dropout::Dropout;
use crate::dtype::DType;
use crate::error::Result;
use crate::layout::rows_and_width;
use crate::ops::dropout::HiddenDropout;
use crate::tensor::Tensor;

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct DropoutArguments {
    x: Pointer,
    y: Pointer,
    rows: Pointer,
    groups: u64,
    width: i32,
    dropout: KernelDropout,
    add: i32,
    padding: u32,
}

impl CudaOp for HiddenDropout {
    type Arity = [(); 1];

    fn forward(&self, [x]: [&Tensor; 1], _: bool) -> Result<GpuOutput> {
        let (op, dropout) = (self.name(), self.dropout);
        let device = device_of(op, x)?;
        let rows = coordinates(op, &device, &dropout, &self.rows)?;
        let y = fresh(op, x.shape(), DType::F32, &device)?;
        launch(op, &dropout, &rows, x, &y, false)?;
        Ok(GpuOutput::new(y, move |dy, [dx]| write_gradient(dx, |dx, add| launch(op, &dropout, &rows, &dy, dx, add))))
    }
}

fn launch(op: &'static str, dropout: &Dropout, rows: &DeviceBuffer, x: &Tensor, y: &Tensor, add: bool) -> Result<()> {
    let x = f32s(op, x)?;
    let (count, width) = rows_and_width(x.shape());
    let groups = count * width.div_ceil(16);
    let arguments = DropoutArguments {
        x: pointer(&x),
        y: pointer(y),
        rows: rows.pointer(),
        groups: groups as u64,
        width: int(op, width)?,
        dropout: KernelDropout::new(dropout),
        add: add.into(),
        padding: 0,
    };
    let bytes = 4 * x.elements() * (2 + usize::from(add));
    Launch::new(&device_of(op, &x)?, op, "dropout", "dropout_f32").moves(bytes).over(groups).with(&arguments)
}
