//! Softmax and its logarithm: softmax.cu.

use bytemuck::NoUninit;

use super::arguments::{device_of, f32s, fresh, int, pointer, write_gradient};
use crate::cuda::{Launch, Pointer};
use crate::dispatch::Op;
use crate::dispatch::gpu::{CudaOp, GpuOutput};
use crate::dtype::DType;
use crate::error::Result;
use crate::layout::rows_and_width;
use crate::ops::softmax::Softmax;
use crate::tensor::Tensor;

const FILE: &str = "softmax";

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct SoftmaxArguments {
    x: Pointer,
    y: Pointer,
    rows: i32,
    width: i32,
    logarithm: i32,
    padding: u32,
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct BackwardArguments {
    y: Pointer,
    dy: Pointer,
    dx: Pointer,
    rows: i32,
    width: i32,
    logarithm: i32,
    add: i32,
}

impl CudaOp for Softmax {
    type Arity = [(); 1];

    fn forward(&self, [x]: [&Tensor; 1], _: bool) -> Result<GpuOutput> {
        let (op, logarithm) = (self.name(), self.logarithm.into());
        let x = f32s(op, x)?;
        let device = device_of(op, &x)?;
        let (count, width) = rows_and_width(x.shape());
        let (rows, width) = (int(op, count)?, int(op, width)?);
        let y = fresh(op, x.shape(), DType::F32, &device)?;
        let arguments = SoftmaxArguments { x: pointer(&x), y: pointer(&y), rows, width, logarithm, padding: 0 };
        Launch::new(&device, op, FILE, "softmax_f32").moves(8 * x.elements()).over(count * 32).with(&arguments)?;
        Ok(GpuOutput::new(y.clone(), move |dy, [dx]| {
            let dy = f32s(op, &dy)?;
            write_gradient(dx, |dx, add| {
                let bytes = 4 * y.elements() * (3 + usize::from(add));
                let (y, dy, dx, add) = (pointer(&y), pointer(&dy), pointer(dx), add.into());
                let arguments = BackwardArguments { y, dy, dx, rows, width, logarithm, add };
                let launch = Launch::new(&device, op, FILE, "softmax_backward_f32").over(count * 32);
                launch.moves(bytes).with(&arguments)
            })
        }))
    }
}
