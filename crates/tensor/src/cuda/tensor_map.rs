//! Tensor maps: matrices in the form that the tensor memory accelerator (TMA) of sm_90a copies.

use bytemuck::{NoUninit, Zeroable};
use cudarc::driver::sys;

use super::driver::{Pointer, check};
use crate::error::Result;
use crate::memory::is_dry;

/// The side of a box, the tile that one copy fetches.
const BOX: u32 = 64;

/// The driver's `CUtensorMap`, as a kernel argument.
#[repr(C, align(64))]
#[derive(Clone, Copy, Zeroable, NoUninit)]
pub(crate) struct TensorMap([u64; 16]);

impl TensorMap {
    /// Describes a row-major matrix of bf16, in boxes of 64 x 64 with the 128-byte swizzle. Its rows are `row` elements
    /// apart, a multiple of 8. A box that extends past the matrix is filled with zeros.
    pub(crate) fn of(
        op: &'static str,
        matrix: Pointer,
        (rows, columns, row): (usize, usize, usize),
    ) -> Result<TensorMap> {
        let mut map = TensorMap::zeroed();
        if is_dry() {
            return Ok(map);
        }
        let (sizes, row_bytes) = ([columns as u64, rows as u64], [2 * row as u64]);
        // SAFETY: `TensorMap` has the size and alignment of `CUtensorMap`. The arrays have one element per dimension, and
        // `row_bytes` one less, as the function documents for two dimensions. It does not access the matrix.
        let made = unsafe {
            sys::cuTensorMapEncodeTiled(
                (&raw mut map).cast(),
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                2,
                matrix as *mut std::ffi::c_void,
                sizes.as_ptr(),
                row_bytes.as_ptr(),
                [BOX; 2].as_ptr(),
                [1; 2].as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        check(op, "cuTensorMapEncodeTiled", made.result())?;
        Ok(map)
    }
}
