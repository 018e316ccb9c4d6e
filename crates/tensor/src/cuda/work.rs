//! What a device is asked to do.

use std::ffi::c_void;

use bytemuck::Zeroable;
use cudarc::driver::{result, sys};

use super::Pointer;
use super::device::check;
use crate::Result;

/// Something that a device is asked to do. What it points at stays until it is done.
#[derive(PartialEq)]
pub(super) enum Work {
    Kernel(Kernel),
    /// `bytes` bytes from the host's memory.
    Write {
        to: Pointer,
        from: *const c_void,
        bytes: usize,
    },
    /// `bytes` bytes from elsewhere on the device.
    Copy {
        to: Pointer,
        from: Pointer,
        bytes: usize,
    },
    /// `bytes` bytes of zero.
    Clear {
        to: Pointer,
        bytes: usize,
    },
}

/// A kernel with its arguments.
#[derive(PartialEq)]
pub(super) struct Kernel {
    pub(super) name: &'static str,
    pub(super) function: sys::CUfunction,
    pub(super) grid: [u32; 3],
    pub(super) threads: u32,
    /// Bytes of shared memory of a block.
    pub(super) shared: u32,
    pub(super) arguments: Arguments,
}

/// As much as the strictest argument, a tensor map, is aligned to.
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Zeroable, bytemuck::Pod)]
struct Line([u8; 64]);

/// Arguments of a kernel, each at the start of a line.
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

    /// Where each argument lies. Nothing writes there.
    pub(super) fn pointers(&self) -> Vec<*mut c_void> {
        self.starts.iter().map(|&start| std::ptr::from_ref(&self.lines[start]).cast_mut().cast()).collect()
    }
}

impl Work {
    /// Whether the two differ in numbers and addresses alone.
    pub(super) fn is_alike(&self, other: &Work) -> bool {
        match (self, other) {
            (Work::Kernel(one), Work::Kernel(other)) => one.function == other.function,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }

    /// What the driver's answer to it is told with.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Work::Kernel(kernel) => kernel.name,
            Work::Write { .. } => "copy to the device",
            Work::Copy { .. } => "copy on the device",
            Work::Clear { .. } => "memset",
        }
    }

    /// Asks for it now.
    ///
    /// # Safety
    /// What it names must be as the kernel takes it, or within memory of the device and the host; the stream must be of the
    /// current context.
    pub(super) unsafe fn launch(&self, op: &'static str, stream: sys::CUstream) -> Result<()> {
        // SAFETY: passed on.
        let asked = unsafe {
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
        check(op, self.name(), asked)
    }
}
