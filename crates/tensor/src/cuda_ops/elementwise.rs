//! Functions of every element, and sums: elementwise.cu.

use bytemuck::NoUninit;

use super::arguments::{check_f32, check_float, device_of, floats, fresh, kernel_for, pointer, write_gradient};
use crate::cpu::unary::Saved;
use crate::cuda::copy::{KernelLayout, merged};
use crate::cuda::{Launch, Pointer};
use crate::dispatch::gpu::{CudaOp, GpuOutput};
use crate::dispatch::{Op, TensorOp};
use crate::dtype::DType;
use crate::error::Result;
use crate::layout::Layout;
use crate::ops::arithmetic::Pairwise;
use crate::ops::reduce::Sum;
use crate::ops::scalar::{Curve, Scalar};
use crate::ops::unary::Unary;
use crate::tensor::Tensor;

const FILE: &str = "elementwise";

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct ZipArguments {
    a: Pointer,
    b: Pointer,
    to: Pointer,
    count: u64,
    op: i32,
    add: i32,
    of_a: KernelLayout,
    of_b: KernelLayout,
}

impl CudaOp for Pairwise {
    type Arity = [(); 2];

    const READS_BF16: bool = true;

    fn forward(&self, [a, b]: [&Tensor; 2], _: bool) -> Result<GpuOutput> {
        let op = self.name();
        let [la, lb] = self.broadcast([a, b])?;
        check_float(op, a)?;
        let device = device_of(op, a)?;
        let to = fresh(op, &la.shape, a.dtype(), &device)?;
        let [of_a, of_b] = merged(op, [&la, &lb])?;
        let count = to.elements();
        let arguments = ZipArguments {
            a: pointer(a),
            b: pointer(b),
            to: pointer(&to),
            count: count as u64,
            op: self.function as i32,
            add: 0,
            of_a,
            of_b,
        };
        let name = kernel_for(a.dtype(), ["zip_f32", "zip_bf16"]);
        Launch::new(&device, op, FILE, name).moves(3 * a.dtype().size() * count).over(count).with(&arguments)?;
        let kept = self.keeps([a, b], &to)?;
        Ok(GpuOutput::Operation(to, kept))
    }
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct UnaryArguments {
    x: Pointer,
    y: Pointer,
    count: u64,
    op: i32,
    number: f32,
    add: i32,
    padding: u32,
}

/// Computes function number `function` of every element; `number` is that of a function with one.
fn unary(op: &'static str, function: i32, number: f64, x: &Tensor, y: &Tensor, add: bool) -> Result<()> {
    let x = floats(op, x)?;
    let count = x.elements();
    let arguments = UnaryArguments {
        x: pointer(&x),
        y: pointer(y),
        count: count as u64,
        op: function,
        number: number as f32,
        add: add.into(),
        padding: 0,
    };
    let bytes = x.dtype().size() * count * (2 + usize::from(add));
    let name = kernel_for(x.dtype(), ["unary_f32", "unary_bf16"]);
    Launch::new(&device_of(op, &x)?, op, FILE, name).moves(bytes).over(count).with(&arguments)
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct UnaryBackward {
    saved: Pointer,
    dy: Pointer,
    dx: Pointer,
    count: u64,
    op: i32,
    number: f32,
    add: i32,
    padding: u32,
}

/// Writes `dy` times the derivative of function number `function`, from its input or output. All are of one type.
pub(super) fn unary_backward(
    op: &'static str,
    function: i32,
    number: f64,
    saved: &Tensor,
    dy: &Tensor,
    dx: &Tensor,
    add: bool,
) -> Result<()> {
    let dy = floats(op, dy)?;
    let count = dy.elements();
    let arguments = UnaryBackward {
        saved: pointer(saved),
        dy: pointer(&dy),
        dx: pointer(dx),
        count: count as u64,
        op: function,
        number: number as f32,
        add: add.into(),
        padding: 0,
    };
    let bytes = dy.dtype().size() * count * (3 + usize::from(add));
    let name = kernel_for(dy.dtype(), ["unary_backward_f32", "unary_backward_bf16"]);
    Launch::new(&device_of(op, &dy)?, op, FILE, name).moves(bytes).over(count).with(&arguments)
}

impl CudaOp for Unary {
    type Arity = [(); 1];

    const READS_BF16: bool = true;

    fn forward(&self, [x]: [&Tensor; 1], _: bool) -> Result<GpuOutput> {
        let (op, function) = (self.name, self.function as i32);
        let x = floats(op, x)?;
        let y = fresh(op, x.shape(), x.dtype(), &device_of(op, &x)?)?;
        unary(op, function, 0.0, &x, &y, false)?;
        let saved = match self.function.saved() {
            Saved::Input => x,
            Saved::Output => y.clone(),
        };
        Ok(GpuOutput::new(y, move |dy, [dx]| {
            write_gradient(dx, |dx, add| unary_backward(op, function, 0.0, &saved, &dy, dx, add))
        }))
    }
}

/// The functions that take a number, after those of `cpu::unary::Function`.
const SCALE: i32 = 10;
const SHIFT: i32 = 11;
const POWER: i32 = 12;
const AT_LEAST: i32 = 13;
const AT_MOST: i32 = 14;

impl CudaOp for Scalar {
    type Arity = [(); 1];

    const READS_BF16: bool = true;

    fn forward(&self, [x]: [&Tensor; 1], _: bool) -> Result<GpuOutput> {
        let op = self.name();
        let y = fresh(op, x.shape(), x.dtype(), &device_of(op, x)?)?;
        match *self {
            Scalar::Shift(value) => {
                unary(op, SHIFT, value, x, &y, false)?;
                Ok(GpuOutput::new(y, |dy, [dx]| dx.give(dy)))
            }
            Scalar::Scale(value) => {
                unary(op, SCALE, value, x, &y, false)?;
                Ok(GpuOutput::new(y, move |dy, [dx]| {
                    write_gradient(dx, |dx, add| unary(op, SCALE, value, &dy, dx, add))
                }))
            }
        }
    }
}

impl CudaOp for Curve {
    type Arity = [(); 1];

    const READS_BF16: bool = true;

    fn forward(&self, [x]: [&Tensor; 1], _: bool) -> Result<GpuOutput> {
        let op = self.name();
        let (function, number) = match *self {
            Curve::Power(exponent) => (POWER, exponent),
            Curve::AtLeast(min) => (AT_LEAST, min),
            Curve::AtMost(max) => (AT_MOST, max),
        };
        let x = floats(op, x)?;
        let y = fresh(op, x.shape(), x.dtype(), &device_of(op, &x)?)?;
        unary(op, function, number, &x, &y, false)?;
        Ok(GpuOutput::new(y, move |dy, [dx]| {
            write_gradient(dx, |dx, add| unary_backward(op, function, number, &x, &dy, dx, add))
        }))
    }
}

/// Multiplies every element by a number, outside of any graph.
pub(super) fn scaled(op: &'static str, x: &Tensor, factor: f64) -> Result<Tensor> {
    let y = fresh(op, x.shape(), DType::F32, &device_of(op, x)?)?;
    unary(op, SCALE, factor, x, &y, false)?;
    Ok(y)
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct SumArguments {
    from: Pointer,
    to: Pointer,
    count: u64,
    summed: u64,
    part: u64,
    kept: KernelLayout,
    over: KernelLayout,
    add: i32,
    padding: u32,
}

impl CudaOp for Sum {
    type Arity = [(); 1];

    fn forward(&self, [x]: [&Tensor; 1], _: bool) -> Result<GpuOutput> {
        Ok(GpuOutput::Operation(sum(self.name(), x, &self.shape)?, Vec::new()))
    }
}

/// Sums over the dimensions that have size 1 in `shape`.
pub(super) fn sum(op: &'static str, x: &Tensor, shape: &[usize]) -> Result<Tensor> {
    check_f32(op, &[x])?;
    let device = device_of(op, x)?;
    let to = fresh(op, shape, DType::F32, &device)?;
    let (mut kept, mut over) = (*x.layout(), *x.layout());
    for (axis, &size) in shape.iter().enumerate() {
        let goes = size == 1;
        kept.shape.as_mut()[axis] = if goes { 1 } else { size };
        over.shape.as_mut()[axis] = if goes { x.size(axis) } else { 1 };
    }
    let (count, summed) = (kept.elements(), over.elements());
    if summed == 0 {
        // SAFETY: `to` was made above and is not shared yet.
        unsafe { to.clear()? };
        return Ok(to);
    }
    let parts = summed.div_ceil(PART);
    if parts == 1 {
        launch_sum(op, x, &to, (kept, over), summed)?;
        return Ok(to);
    }
    // One warp would take long for many elements, so several sum a part each, and the next launch sums the parts.
    let of_parts = fresh(op, &[count, parts], DType::F32, &device)?;
    launch_sum(op, x, &of_parts, (kept, over), PART)?;
    let sums = Layout::contiguous(op, &[count, parts])?;
    let (mut kept, mut over) = (sums, sums);
    (kept.shape.as_mut()[1], over.shape.as_mut()[0]) = (1, 1);
    launch_sum(op, &of_parts, &to, (kept, over), parts)?;
    Ok(to)
}

/// The most elements that a warp sums: 128 by each lane.
const PART: usize = 4096;

/// Writes the sum of each `part` elements of `over`, for each element of `kept`.
fn launch_sum(op: &'static str, x: &Tensor, to: &Tensor, (kept, over): (Layout, Layout), part: usize) -> Result<()> {
    let (count, summed) = (kept.elements(), over.elements());
    let [kept] = merged(op, [&kept])?;
    let [over] = merged(op, [&over])?;
    let arguments = SumArguments {
        from: pointer(x),
        to: pointer(to),
        count: count as u64,
        summed: summed as u64,
        part: part as u64,
        kept,
        over,
        add: 0,
        padding: 0,
    };
    let sums = count * summed.div_ceil(part);
    let device = device_of(op, x)?;
    let launch = Launch::new(&device, op, FILE, "sum_f32").over(sums * 32);
    launch.moves(4 * (count * summed + sums)).with(&arguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::unary::FUNCTIONS;
    use crate::cuda::enumerations::tests::assert_in_header;
    use crate::ops::arithmetic::Pair;

    #[test]
    fn functions_have_the_numbers_that_kernels_know() {
        let numbers =
            [("Scale", SCALE), ("Shift", SHIFT), ("Power", POWER), ("AtLeast", AT_LEAST), ("AtMost", AT_MOST)];
        assert_in_header("Unary", &[FUNCTIONS, &numbers].concat());
        let pairs = [
            ("Add", Pair::Add),
            ("Sub", Pair::Sub),
            ("Mul", Pair::Mul),
            ("Div", Pair::Div),
            ("Maximum", Pair::Maximum),
            ("Minimum", Pair::Minimum),
            ("Greater", Pair::Greater),
            ("AtLeast", Pair::AtLeast),
            ("Equal", Pair::Equal),
        ];
        let pairs = pairs.map(|(name, pair)| (name, pair as i32));
        assert_in_header("Binary", &pairs);
    }
}
