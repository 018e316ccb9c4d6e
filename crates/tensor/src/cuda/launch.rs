//! Kernels by their names, and launches.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::PoisonError;

use bytemuck::{NoUninit, bytes_of};
use cloze_kernels::Images;
use cudarc::driver::{result, sys};

use super::device::{CudaDevice, allow_shared, check, load};
use super::work::{Arguments, Kernel, Work};
use crate::{Error, Result};

/// The kernels that fit a device. A file of them is loaded when the first of it is launched.
pub(super) struct Kernels {
    images: Images,
    /// Bytes of shared memory that a block may have.
    most_shared: u32,
    modules: HashMap<&'static str, sys::CUmodule>,
    functions: HashMap<&'static str, Function>,
    last: &'static str,
}

#[derive(Clone, Copy)]
struct Function {
    function: sys::CUfunction,
    /// The most shared memory that it was allowed.
    shared: u32,
}

/// What a launch does not get unless it asks.
const FREE_SHARED: u32 = 48 << 10;

impl Kernels {
    /// Those for a device and a driver of this version.
    pub(super) fn new(name: &str, (major, minor): (u32, u32), driver: i32, most_shared: u32) -> Result<Kernels> {
        let images = cloze_kernels::images(major, minor).ok_or_else(|| {
            let known = cloze_kernels::ARCHITECTURES.join(", ");
            Error::device("cuda", format!("{name} is of sm_{major}{minor}; there are kernels for {known}"))
        })?;
        let (needed, of_driver) = images.oldest_driver();
        if driver < needed {
            let reason = format!(
                "{name} is of sm_{major}{minor}, whose kernels the driver has to compile: {of_driver} or newer is needed for that"
            );
            return Err(Error::device("cuda", reason));
        }
        Ok(Kernels { images, most_shared, modules: HashMap::new(), functions: HashMap::new(), last: "no kernel" })
    }

    /// The kernel that was launched last.
    pub(super) fn last(&self) -> &'static str {
        self.last
    }

    /// A file of kernels, loaded.
    fn module(&mut self, op: &'static str, file: &'static str) -> Result<sys::CUmodule> {
        if let Some(&module) = self.modules.get(file) {
            return Ok(module);
        }
        let image = self
            .images
            .of(file)
            .ok_or_else(|| Error::device(op, format!("there are no kernels of {file}.cu for this device")))?;
        let module = load(file, &image)?;
        self.modules.insert(file, module);
        Ok(module)
    }

    /// A kernel, allowed so many bytes of shared memory.
    fn function(
        &mut self,
        op: &'static str,
        file: &'static str,
        name: &'static str,
        shared: u32,
    ) -> Result<sys::CUfunction> {
        let mut known = match self.functions.get(name) {
            Some(&known) => known,
            None => {
                let text = CString::new(name).unwrap_or_default();
                // SAFETY: the module was loaded, and stays so.
                let function = unsafe { result::module::get_function(self.module(op, file)?, text) };
                Function { function: check(op, name, function)?, shared: FREE_SHARED }
            }
        };
        if shared > self.most_shared {
            let (needed, most) = (shared.div_ceil(1 << 10), self.most_shared >> 10);
            let reason = format!("{name} needs {needed} KiB of shared memory in a block, this device has {most} KiB");
            return Err(Error::device(op, reason));
        }
        if shared > known.shared {
            allow_shared(op, name, known.function, shared)?;
            known.shared = shared;
        }
        self.functions.insert(name, known);
        self.last = name;
        Ok(known.function)
    }
}

/// A launch of kernel `name` of the file `file.cu`. What it is given must be what the kernel takes: nothing checks that but the
/// tests of the operations.
pub(super) struct Launch<'a> {
    device: &'a CudaDevice,
    op: &'static str,
    file: &'static str,
    name: &'static str,
    grid: [usize; 3],
    threads: u32,
    shared: usize,
}

impl<'a> Launch<'a> {
    pub(super) fn new(device: &'a CudaDevice, op: &'static str, file: &'static str, name: &'static str) -> Launch<'a> {
        Launch { device, op, file, name, grid: [1; 3], threads: 128, shared: 0 }
    }

    pub(super) fn grid(self, grid: [usize; 3]) -> Launch<'a> {
        Launch { grid, ..self }
    }

    /// As many blocks as `count` threads need.
    pub(super) fn over(self, count: usize) -> Launch<'a> {
        let blocks = count.div_ceil(self.threads as usize);
        self.grid([blocks, 1, 1])
    }

    pub(super) fn threads(self, threads: u32) -> Launch<'a> {
        Launch { threads, ..self }
    }

    /// Bytes of shared memory of a block.
    pub(super) fn shared(self, shared: usize) -> Launch<'a> {
        Launch { shared, ..self }
    }

    /// Launches it, unless there is nothing to do.
    pub(super) fn with<A: NoUninit>(self, arguments: &A) -> Result<()> {
        self.with_all(&[bytes_of(arguments)])
    }

    /// As [`Launch::with`], for kernels that take several arguments: the bytes of each.
    pub(super) fn with_all(self, arguments: &[&[u8]]) -> Result<()> {
        let Launch { device, op, file, name, grid, threads, shared } = self;
        if grid.contains(&0) {
            return Ok(());
        }
        let limits = [i32::MAX as usize, 65535, 65535];
        if grid.iter().zip(limits).any(|(&blocks, limit)| blocks > limit) {
            return Err(Error::device(
                op,
                format!("{name} would need {grid:?} blocks, at most {limits:?} can be launched"),
            ));
        }
        let grid = grid.map(|blocks| blocks as u32);
        let shared = u32::try_from(shared).unwrap_or(u32::MAX);
        let mut kernels = device.0.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        device.enter(op)?;
        let function = kernels.function(op, file, name, shared)?;
        drop(kernels);
        let arguments = Arguments::new(arguments);
        device.submit(op, Work::Kernel(Kernel { name, function, grid, threads, shared, arguments }))
    }
}
