//! Functions of every element, copies between layouts and types, and sums: elementwise.cu.

use bytemuck::NoUninit;

pub(crate) use super::enumerations::{Binary, Unary};
use super::launch::Launch;
use super::{Pointer, device_of, f32s, fresh, pointer};
use crate::layout::{Layout, MAX_RANK};
use crate::ops::Gelu;
use crate::tensor::Tensor;
use crate::{DType, Error, Result};

const FILE: &str = "elementwise";

/// A layout as kernels take it.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct KernelLayout {
    rank: i32,
    sizes: [u32; MAX_RANK],
    padding: u32,
    strides: [i64; MAX_RANK],
}

/// Layouts of one shape, with dimensions that lie together in all of them made one: a row-major tensor has one dimension.
fn merged<const N: usize>(op: &'static str, layouts: [&Layout; N]) -> Result<[KernelLayout; N]> {
    let mut dims: Vec<(usize, [usize; N])> = Vec::new();
    for (axis, &size) in layouts[0].shape.iter().enumerate() {
        let strides = layouts.map(|layout| layout.strides[axis]);
        if size == 1 {
            continue;
        }
        match dims.last_mut() {
            Some((outer, outer_strides))
                if (0..N).all(|i| outer_strides[i] == strides[i] * size) && *outer * size <= u32::MAX as usize =>
            {
                *outer *= size;
                *outer_strides = strides;
            }
            _ => dims.push((size, strides)),
        }
    }
    if dims.iter().any(|&(size, _)| size > u32::MAX as usize) {
        return Err(Error::invalid(op, "a dimension of 2^32 elements or more on a GPU"));
    }
    Ok(std::array::from_fn(|i| {
        let mut layout =
            KernelLayout { rank: dims.len() as i32, sizes: [1; MAX_RANK], padding: 0, strides: [0; MAX_RANK] };
        for (axis, (size, strides)) in dims.iter().enumerate() {
            (layout.sizes[axis], layout.strides[axis]) = (*size as u32, strides[i] as i64);
        }
        layout
    }))
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct CopyArguments {
    from: Pointer,
    to: Pointer,
    count: u64,
    of_from: KernelLayout,
    of_to: KernelLayout,
    add: i32,
    padding: u32,
}

/// Copies the elements of `from` to those of `to`, which has its shape and which nobody else sees; or adds them.
pub(crate) fn copy(op: &'static str, from: &Tensor, to: &Tensor, add: bool) -> Result<()> {
    let device = device_of(op, from)?;
    device_of(op, to)?;
    let kinds = (from.dtype(), to.dtype());
    if kinds.0 == kinds.1 && !add && from.layout().is_contiguous() && to.layout().is_contiguous() {
        return super::memory::copy(&device, op, pointer(from), pointer(to), from.elements() * from.dtype().size());
    }
    let name = match kinds {
        (DType::F32, DType::F32) => "copy_f32_f32",
        (DType::F32, DType::BF16) => "copy_f32_bf16",
        (DType::F32, DType::F16) => "copy_f32_f16",
        (DType::BF16, DType::F32) => "copy_bf16_f32",
        (DType::BF16, DType::BF16) => "copy_bf16_bf16",
        (DType::BF16, DType::F16) => "copy_bf16_f16",
        (DType::F16, DType::F32) => "copy_f16_f32",
        (DType::F16, DType::BF16) => "copy_f16_bf16",
        (DType::F16, DType::F16) => "copy_f16_f16",
        (of, into) => {
            let reason = format!(
                "no conversion of {of} to {into} on a GPU, which computes in f32, bf16 and f16: to_device first"
            );
            return Err(Error::invalid(op, reason));
        }
    };
    let [of_from, of_to] = merged(op, [from.layout(), to.layout()])?;
    let count = from.elements();
    let arguments = CopyArguments {
        from: pointer(from),
        to: pointer(to),
        count: count as u64,
        of_from,
        of_to,
        add: add.into(),
        padding: 0,
    };
    Launch::new(&device, op, FILE, name).over(count).with(&arguments)
}

/// The elements row-major, in memory of their own, as `dtype`.
pub(crate) fn copied(op: &'static str, tensor: &Tensor, dtype: DType) -> Result<Tensor> {
    let to = fresh(op, tensor.shape(), dtype, &device_of(op, tensor)?)?;
    copy(op, tensor, &to, false)?;
    Ok(to)
}

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

/// `a` and `b`, as `la` and `lb` repeat them.
pub(crate) fn zip(op: &'static str, binary: Binary, a: (&Tensor, &Layout), b: (&Tensor, &Layout)) -> Result<Tensor> {
    let device = device_of(op, a.0)?;
    for operand in [a.0, b.0] {
        device_of(op, operand)?;
        if operand.dtype() != DType::F32 {
            f32s(op, operand)?;
        }
    }
    let to = fresh(op, &a.1.shape, DType::F32, &device)?;
    let [of_a, of_b] = merged(op, [a.1, b.1])?;
    let count = to.elements();
    let arguments = ZipArguments {
        a: pointer(a.0),
        b: pointer(b.0),
        to: pointer(&to),
        count: count as u64,
        op: binary as i32,
        add: 0,
        of_a,
        of_b,
    };
    Launch::new(&device, op, FILE, "zip_f32").over(count).with(&arguments)?;
    Ok(to)
}

impl From<Gelu> for Unary {
    fn from(gelu: Gelu) -> Unary {
        match gelu {
            Gelu::Erf => Unary::Gelu,
            Gelu::Tanh => Unary::GeluTanh,
        }
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

/// The function of every element; `number` is what to scale with or shift by.
pub(crate) fn unary(op: &'static str, unary: Unary, x: &Tensor, number: f64) -> Result<Tensor> {
    let x = f32s(op, x)?;
    let device = device_of(op, &x)?;
    let y = fresh(op, x.shape(), DType::F32, &device)?;
    let count = x.elements();
    let arguments = UnaryArguments {
        x: pointer(&x),
        y: pointer(&y),
        count: count as u64,
        op: unary as i32,
        number: number as f32,
        add: 0,
        padding: 0,
    };
    Launch::new(&device, op, FILE, "unary_f32").over(count).with(&arguments)?;
    Ok(y)
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct UnaryBackward {
    saved: Pointer,
    dy: Pointer,
    dx: Pointer,
    count: u64,
    op: i32,
    add: i32,
}

/// `dy` times the derivative, from the output, or from the input for `Ln` and the two GELUs.
pub(crate) fn unary_backward(op: &'static str, unary: Unary, saved: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (saved, dy) = (f32s(op, saved)?, f32s(op, dy)?);
    let device = device_of(op, &dy)?;
    let dx = fresh(op, dy.shape(), DType::F32, &device)?;
    let count = dy.elements();
    let arguments = UnaryBackward {
        saved: pointer(&saved),
        dy: pointer(&dy),
        dx: pointer(&dx),
        count: count as u64,
        op: unary as i32,
        add: 0,
    };
    Launch::new(&device, op, FILE, "unary_backward_f32").over(count).with(&arguments)?;
    Ok(dx)
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct SumArguments {
    from: Pointer,
    to: Pointer,
    count: u64,
    summed: u64,
    kept: KernelLayout,
    over: KernelLayout,
    add: i32,
    padding: u32,
}

/// The sums over the dimensions whose size in `shape` is 1.
pub(crate) fn sum(op: &'static str, x: &Tensor, shape: &[usize]) -> Result<Tensor> {
    if x.dtype() != DType::F32 {
        f32s(op, x)?;
    }
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
        to.clear(op)?;
        return Ok(to);
    }
    let [kept] = merged(op, [&kept])?;
    let [over] = merged(op, [&over])?;
    let arguments = SumArguments {
        from: pointer(x),
        to: pointer(&to),
        count: count as u64,
        summed: summed as u64,
        kept,
        over,
        add: 0,
        padding: 0,
    };
    Launch::new(&device, op, FILE, "sum_f32").over(count * 32).with(&arguments)?;
    Ok(to)
}
