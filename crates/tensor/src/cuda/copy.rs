//! Copies of elements between layouts and types: elementwise.cu.

use std::sync::Arc;

use bytemuck::NoUninit;

use super::driver::Pointer;
use super::launch::Launch;
use super::memory::{DeviceBuffer, copy_bytes};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout::{Layout, MAX_RANK};

/// A layout as kernels take it.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
pub(crate) struct KernelLayout {
    rank: i32,
    sizes: [u32; MAX_RANK],
    padding: u32,
    strides: [i64; MAX_RANK],
}

/// Layouts of one shape, with dimensions that lie together in all of them made one: a row-major tensor has one dimension.
pub(crate) fn merged<const N: usize>(op: &'static str, layouts: [&Layout; N]) -> Result<[KernelLayout; N]> {
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

/// Elements in the memory of a device.
pub(crate) struct Elements {
    pub(crate) buffer: Arc<DeviceBuffer>,
    pub(crate) layout: Layout,
    pub(crate) dtype: DType,
}

impl Elements {
    fn pointer(&self) -> Pointer {
        self.buffer.pointer() + (self.layout.offset * self.dtype.size()) as u64
    }
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

/// Copies the elements of `from` to those of `to`, which has the same shape, or adds them. Nothing else may access `to`
/// meanwhile.
///
/// # Errors
/// Returns an error if the types are not f32, bf16 or f16, unless they are the same and both lie row-major.
pub(crate) fn copy(op: &'static str, from: &Elements, to: &Elements, add: bool) -> Result<()> {
    to.buffer.changes();
    let device = to.buffer.device();
    let count = from.layout.elements();
    let is_plain = from.layout.is_contiguous() && to.layout.is_contiguous();
    if from.dtype == to.dtype && !add && is_plain {
        return copy_bytes(device, op, from.pointer(), to.pointer(), count * from.dtype.size());
    }
    let name = match (from.dtype, to.dtype) {
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
    let [of_from, of_to] = merged(op, [&from.layout, &to.layout])?;
    let arguments = CopyArguments {
        from: from.pointer(),
        to: to.pointer(),
        count: count as u64,
        of_from,
        of_to,
        add: add.into(),
        padding: 0,
    };
    let bytes = count * (from.dtype.size() + to.dtype.size() * (1 + usize::from(add)));
    Launch::new(device, op, "elementwise", name).moves(bytes).over(count).with(&arguments)
}
