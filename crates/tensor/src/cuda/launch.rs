//! Kernel launches.

use bytemuck::{NoUninit, bytes_of};

use super::device::CudaDevice;
use super::exchange::GpuExchange;
use super::work::{Arguments, Kernel, Work};
use crate::error::{Error, Result};
use crate::memory::is_dry;
use crate::profile::{GpuCost, launched};

/// A launch of kernel `name` from `file.cu`, by default with one block of 128 threads.
///
/// The arguments must be those that the kernel declares. Nothing but the tests of the operations checks that.
pub(crate) struct Launch<'a> {
    device: &'a CudaDevice,
    op: &'static str,
    file: &'static str,
    name: &'static str,
    grid: [usize; 3],
    threads: u32,
    shared: usize,
    cost: GpuCost,
    /// The stream beside the computation that it goes to.
    beside: Option<&'a GpuExchange>,
}

/// The largest grid, in blocks.
const LARGEST_GRID: [usize; 3] = [i32::MAX as usize, 65535, 65535];

impl<'a> Launch<'a> {
    pub(crate) fn new(device: &'a CudaDevice, op: &'static str, file: &'static str, name: &'static str) -> Launch<'a> {
        Launch { device, op, file, name, grid: [1; 3], threads: 128, shared: 0, cost: GpuCost::default(), beside: None }
    }

    /// Sets the number of blocks.
    pub(crate) fn grid(self, grid: [usize; 3]) -> Launch<'a> {
        Launch { grid, ..self }
    }

    /// Launches at least `count` threads: as many blocks as that takes.
    pub(crate) fn over(self, count: usize) -> Launch<'a> {
        let blocks = count.div_ceil(self.threads as usize);
        self.grid([blocks, 1, 1])
    }

    /// Sets the number of threads per block.
    pub(crate) fn threads(self, threads: u32) -> Launch<'a> {
        Launch { threads, ..self }
    }

    /// Sets the shared memory per block, in bytes.
    pub(crate) fn shared(self, shared: usize) -> Launch<'a> {
        Launch { shared, ..self }
    }

    /// Sets the bytes that it reads and writes at least: each once, however often the kernel does.
    pub(crate) fn moves(self, bytes: usize) -> Launch<'a> {
        Launch { cost: GpuCost { bytes: bytes as u64, ..self.cost }, ..self }
    }

    /// Sets the multiplications and additions of its matrix products.
    pub(crate) fn computes(self, operations: usize) -> Launch<'a> {
        Launch { cost: GpuCost { operations: operations as u64, ..self.cost }, ..self }
    }

    /// Launches it as a part of `exchange`, not of the computation.
    pub(super) fn on(self, exchange: &'a GpuExchange) -> Launch<'a> {
        Launch { beside: Some(exchange), ..self }
    }

    /// Launches a kernel that takes one argument. An empty grid launches nothing.
    pub(crate) fn with<A: NoUninit>(self, arguments: &A) -> Result<()> {
        self.with_all(&[bytes_of(arguments)])
    }

    /// Launches a kernel that takes several arguments, given as the bytes of each.
    pub(crate) fn with_all(self, arguments: &[&[u8]]) -> Result<()> {
        let Launch { device, op, file, name, grid, threads, shared, cost, beside } = self;
        if grid.contains(&0) {
            return Ok(());
        }
        if grid.iter().zip(LARGEST_GRID).any(|(&blocks, limit)| blocks > limit) {
            let reason = format!("{name} needs a grid of {grid:?} blocks, the largest is {LARGEST_GRID:?}");
            return Err(Error::device(op, reason));
        }
        if is_dry() {
            return Ok(());
        }
        let grid = grid.map(|blocks| blocks as u32);
        let shared = u32::try_from(shared).unwrap_or(u32::MAX);
        let mut kernels = device.kernels();
        device.0.stream.enter(op)?;
        let function = kernels.function(op, file, name, shared)?;
        drop(kernels);
        launched(name, cost);
        let arguments = Arguments::new(arguments);
        let work = Work::Kernel(Kernel { name, function, grid, threads, shared, arguments });
        match beside {
            None => device.0.stream.submit(op, work),
            // SAFETY: the arguments are those that the kernel declares, as for all launches, and lie in tensors that the
            // caller keeps until the exchange has ended.
            Some(exchange) => unsafe { work.launch(op, exchange.enter(op)?) },
        }
    }
}
