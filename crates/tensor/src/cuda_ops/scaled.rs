//! Operands for tensor cores: matrices in bf16, or in f16 with a scale (scaled_f16.cu).

use bytemuck::NoUninit;

use super::arguments::{device_of, fresh, pointer};
use crate::cuda::{CudaDevice, Launch, Pointer};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::precision::Precision;
use crate::tensor::Tensor;

const FILE: &str = "scaled_f16";
/// The most blocks that search for the largest magnitude.
const BLOCKS: usize = 1024;

/// A type that tensor cores multiply.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Narrow {
    Bf16,
    F16,
}

impl Narrow {
    /// Returns the type of operands in a precision; `None` if products are computed in f32.
    ///
    /// # Errors
    /// Returns an error if the device cannot multiply the type.
    pub(crate) fn of(op: &'static str, precision: Precision, device: &CudaDevice) -> Result<Option<Narrow>> {
        match precision {
            Precision::F32 | Precision::Int8 => Ok(None),
            Precision::F16 => Ok(Some(Narrow::F16)),
            Precision::Bf16 if device.capability() >= (8, 0) => Ok(Some(Narrow::Bf16)),
            Precision::Bf16 => {
                let reason = format!("{} multiplies f16, not bf16: use Precision::F16 (f16)", device.name());
                Err(Error::device(op, reason))
            }
        }
    }

    pub(crate) fn dtype(self) -> DType {
        match self {
            Narrow::Bf16 => DType::BF16,
            Narrow::F16 => DType::F16,
        }
    }
}

impl CudaDevice {
    /// See [`Device::supports`](crate::Device::supports).
    pub(crate) fn supports(&self, precision: Precision) -> bool {
        Narrow::of("precision", precision, self).is_ok()
    }
}

/// The factor that undoes the scaling of a matrix in f16. It stays on the device.
#[derive(Clone)]
pub(crate) struct Scale(Tensor);

impl Scale {
    pub(crate) fn pointer(&self) -> Pointer {
        // The first number is the largest magnitude.
        pointer(&self.0) + 4
    }
}

/// Returns the address of a scale, or the null pointer.
pub(crate) fn of_scale(scale: Option<&Scale>) -> Pointer {
    scale.map_or(0, Scale::pointer)
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Arguments {
    from: Pointer,
    to: Pointer,
    scale: Pointer,
    rows: u64,
    columns: u64,
    row: u64,
    column: u64,
    row_to: u64,
    limit: i32,
    padding: u32,
}

/// Scales a matrix of f32 into f16, so that its largest magnitude is just below `2^limit`.
///
/// Element `(i, j)` of the source is `i * step.0 + j * step.1` elements from its first. The rows of `to` are `row_to` elements
/// apart and padded with zeros.
pub(crate) fn scaled(
    op: &'static str,
    from: Pointer,
    (rows, columns): (usize, usize),
    step: (usize, usize),
    (to, row_to): (&Tensor, usize),
    limit: i32,
) -> Result<Scale> {
    let device = device_of(op, to)?;
    let scale = fresh(op, &[2], DType::F32, &device)?;
    // SAFETY: `scale` was just made.
    unsafe { scale.clear()? };
    let arguments = Arguments {
        from,
        to: pointer(to),
        scale: pointer(&scale),
        rows: rows as u64,
        columns: columns as u64,
        row: step.0 as u64,
        column: step.1 as u64,
        row_to: row_to as u64,
        limit,
        padding: 0,
    };
    let threads = 256;
    let blocks = (rows * columns).div_ceil(threads as usize).min(BLOCKS);
    let launch = |name| Launch::new(&device, op, FILE, name).threads(threads);
    let read = 4 * rows * columns;
    launch("scaled_f16_largest").moves(read).grid([blocks, 1, 1]).with(&arguments)?;
    launch("scaled_f16").moves(read + 2 * rows * row_to).over(rows * row_to).with(&arguments)?;
    Ok(Scale(scale))
}

/// Converts a row-major f32 tensor to f16, with magnitudes scaled to below `2^limit`.
pub(crate) fn in_f16(op: &'static str, tensor: &Tensor, limit: i32) -> Result<(Tensor, Scale)> {
    let to = fresh(op, tensor.shape(), DType::F16, &device_of(op, tensor)?)?;
    let elements = tensor.elements();
    let scale = scaled(op, pointer(tensor), (1, elements), (elements, 1), (&to, elements), limit)?;
    Ok((to, scale))
}
