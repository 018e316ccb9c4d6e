//! Matrices as the tensor memory accelerator of sm_90a copies them.

use bytemuck::{NoUninit, Zeroable};
use cudarc::driver::sys;

use super::Pointer;
use super::device::check;
use crate::Result;

/// A side of the boxes that are copied.
const BOX: u32 = 64;

/// The driver's CUtensorMap, as an argument of a kernel.
#[repr(C, align(64))]
#[derive(Clone, Copy, Zeroable, NoUninit)]
pub(super) struct TensorMap([u64; 16]);

impl TensorMap {
    /// A row-major matrix of bf16, in boxes of 64 x 64 with the swizzle of 128 bytes; its rows are `row` elements apart, a
    /// multiple of 8. What a box has outside of the matrix is zero.
    pub(super) fn of(
        op: &'static str,
        matrix: Pointer,
        (rows, columns, row): (usize, usize, usize),
    ) -> Result<TensorMap> {
        let mut map = TensorMap::zeroed();
        let (sizes, row_bytes) = ([columns as u64, rows as u64], [2 * row as u64]);
        // SAFETY: the map is as large and as aligned as the driver's, and the arrays have an element for each dimension, or one
        // less for what lies between rows.
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
