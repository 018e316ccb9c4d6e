//! A unit of work for a device: a kernel, a copy or a memset.

use std::ffi::c_void;

use bytemuck::Zeroable;
use cudarc::driver::{result, sys};

use super::driver::{Pointer, check};
use super::timing::timed;
use crate::error::Result;

/// A unit of work. The memory that it points to must stay allocated until the work is done.
#[derive(PartialEq)]
pub(super) enum Work {
    Kernel(Kernel),
    /// Copies `bytes` bytes from the host.
    Write {
        to: Pointer,
        from: *const c_void,
        bytes: usize,
    },
    /// Copies `bytes` bytes on the device.
    Copy {
        to: Pointer,
        from: Pointer,
        bytes: usize,
    },
    /// Sets `bytes` bytes to zero.
    Clear {
        to: Pointer,
        bytes: usize,
    },
}

/// A kernel with its launch configuration and arguments.
#[derive(PartialEq)]
pub(super) struct Kernel {
    pub(super) name: &'static str,
    pub(super) function: sys::CUfunction,
    pub(super) grid: [u32; 3],
    pub(super) threads: u32,
    /// Shared memory per block, in bytes.
    pub(super) shared: u32,
    pub(super) arguments: Arguments,
}

/// 64 bytes with the alignment of a tensor map, the strictest of all arguments.
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Zeroable, bytemuck::Pod)]
struct Line([u8; 64]);

/// The arguments of a kernel, each at the start of a line; the rest of its last line is zero.
#[derive(PartialEq)]
pub(super) struct Arguments {
    lines: Vec<Line>,
    starts: Vec<usize>,
}

impl Arguments {
    pub(super) fn new(arguments: &[&[u8]]) -> Arguments {
        let (mut lines, mut starts) = (Vec::new(), Vec::new());
        for argument in arguments {
            starts.push(lines.len());
            lines.resize(lines.len() + argument.len().div_ceil(size_of::<Line>()), Line::zeroed());
            let start = starts[starts.len() - 1];
            bytemuck::cast_slice_mut::<Line, u8>(&mut lines[start..])[..argument.len()].copy_from_slice(argument);
        }
        Arguments { lines, starts }
    }

    /// Returns the address of each argument. The driver only reads through these pointers.
    pub(super) fn pointers(&self) -> Vec<*mut c_void> {
        self.starts.iter().map(|&start| std::ptr::from_ref(&self.lines[start]).cast_mut().cast()).collect()
    }
}

impl Work {
    /// Returns whether the two differ only in values and addresses, so that one graph node can serve both.
    pub(super) fn is_alike(&self, other: &Work) -> bool {
        match (self, other) {
            (Work::Kernel(one), Work::Kernel(other)) => one.function == other.function,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }

    /// Returns a name for error messages.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Work::Kernel(kernel) => kernel.name,
            Work::Write { .. } => "copy to the device",
            Work::Copy { .. } => "copy on the device",
            Work::Clear { .. } => "memset",
        }
    }

    /// Enqueues the work on a stream.
    ///
    /// # Safety
    /// The arguments of a kernel must have the types that the kernel declares, and its pointers must be valid for what it
    /// reads and writes. The other kinds must stay within allocations of the device and the host. `stream` must belong to
    /// the current context.
    pub(super) unsafe fn launch(&self, op: &'static str, stream: sys::CUstream) -> Result<()> {
        // SAFETY: this function's contract covers each of the four calls.
        #[expect(clippy::multiple_unsafe_ops_per_block, reason = "makes one of several calls")]
        let enqueue = || unsafe {
            match self {
                Work::Kernel(Kernel { function, grid, threads, shared, arguments, .. }) => {
                    let ([x, y, z], mut pointers) = (*grid, arguments.pointers());
                    result::launch_kernel(*function, (x, y, z), (*threads, 1, 1), *shared, stream, &mut pointers)
                }
                &Work::Write { to, from, bytes } => sys::cuMemcpyHtoDAsync_v2(to, from, bytes, stream).result(),
                &Work::Copy { to, from, bytes } => result::memcpy_dtod_async(to, from, bytes, stream),
                &Work::Clear { to, bytes } => result::memset_d8_async(to, 0, bytes, stream),
            }
        };
        timed(self.name(), stream, || check(op, self.name(), enqueue()))
    }
}
