//! A second stream of a device, on which it exchanges memory with other devices while it computes.

use std::ptr::null_mut;

use bytemuck::bytes_of;
use cudarc::driver::{result, sys};

use super::device::CudaDevice;
use super::driver::{Pointer, check};
use super::launch::Launch;
use super::work::Work;
use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::storage::Storage;
use crate::tensor::Tensor;

/// The kernels of ranks.cu.
const FILE: &str = "ranks";
const THREADS: u32 = 256;
/// Elements whose squares make one sum.
const BLOCK: usize = 1 << 12;

/// Exchanges of a GPU with those of other ranks, in their order and beside the computation.
///
/// What is submitted here runs after the last [`begin`](GpuExchange::begin), and what the device is given next runs at the same
/// time until [`end`](GpuExchange::end). Tensors that take part must be row-major, and nothing else may write them meanwhile.
pub struct GpuExchange {
    device: CudaDevice,
    stream: sys::CUstream,
    /// The last point at which one stream began to wait for the other.
    event: sys::CUevent,
}

// SAFETY: driver handles may be used from any thread on which the device's context is current, and every use follows `enter`.
unsafe impl Send for GpuExchange {}
// SAFETY: as above; the handles do not change.
unsafe impl Sync for GpuExchange {}

impl GpuExchange {
    /// Opens a stream on `device`.
    ///
    /// # Errors
    /// Returns an error if it is the CPU, or if the driver refuses.
    pub fn new(device: &Device) -> Result<GpuExchange> {
        const OP: &str = "exchange";
        let Device::Cuda(device) = device else { return Err(Error::invalid(OP, "the device is the CPU, not a GPU")) };
        device.0.stream.enter(OP)?;
        let stream = check(OP, "cuStreamCreate", result::stream::create(result::stream::StreamKind::NonBlocking))?;
        let mut exchange = GpuExchange { device: device.clone(), stream, event: null_mut() };
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING;
        exchange.event = check(OP, "cuEventCreate", result::event::create(flags))?;
        Ok(exchange)
    }

    /// Makes what is exchanged from now on wait for everything that the device was given before.
    ///
    /// # Errors
    /// Returns an error if the device fails.
    pub fn begin(&self) -> Result<()> {
        const OP: &str = "exchange";
        let computing = self.device.0.stream.launch_so_far(OP)?;
        self.order(OP, computing, self.stream)
    }

    /// Makes what the device is given from now on wait for everything that was exchanged before.
    ///
    /// # Errors
    /// Returns an error if the device fails.
    pub fn end(&self) -> Result<()> {
        const OP: &str = "exchange";
        let computing = self.device.0.stream.launch_so_far(OP)?;
        self.order(OP, self.stream, computing)
    }

    /// Makes what is enqueued next on `second` wait for everything on `first`.
    fn order(&self, op: &'static str, first: sys::CUstream, second: sys::CUstream) -> Result<()> {
        // SAFETY: the event and both streams belong to this device, whose context `launch_so_far` made current.
        check(op, "cuEventRecord", unsafe { result::event::record(self.event, first) })?;
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: as above.
        check(op, "cuStreamWaitEvent", unsafe { result::stream::wait_event(second, self.event, flags) })
    }

    /// Returns whether everything that was exchanged is done.
    ///
    /// # Errors
    /// Returns an error if a kernel failed.
    pub fn is_done(&self) -> Result<bool> {
        self.enter("exchange")?;
        // SAFETY: the stream belongs to this value, and `enter` made its context current.
        match unsafe { sys::cuStreamQuery(self.stream) } {
            sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            answer => self.device.waited(answer.result()).map(|()| true),
        }
    }

    /// Copies the bytes of a tensor to the host, and waits for them.
    ///
    /// # Errors
    /// Returns an error if the tensor is elsewhere, or if a kernel failed.
    pub fn read(&self, from: &Tensor) -> Result<Vec<u8>> {
        const OP: &str = "exchange";
        let (pointer, length) = self.place(OP, from)?;
        let mut bytes = vec![0u8; length];
        if length > 0 {
            self.enter(OP)?;
            // SAFETY: `place` returned memory of the tensor, and the copy is waited for while `bytes` is borrowed.
            self.device.waited(unsafe { result::memcpy_dtoh_async(&mut bytes, pointer, self.stream) })?;
            // SAFETY: the stream belongs to this value.
            self.device.waited(unsafe { result::stream::synchronize(self.stream) })?;
        }
        Ok(bytes)
    }

    /// Copies bytes to a tensor of this length.
    ///
    /// # Errors
    /// Returns an error if the tensor is elsewhere or has another length.
    pub fn write(&self, bytes: &[u8], to: &Tensor) -> Result<()> {
        const OP: &str = "exchange";
        let (pointer, length) = self.place(OP, to)?;
        if length != bytes.len() {
            return Err(Error::invalid(OP, format!("{} bytes for a tensor of {length}", bytes.len())));
        }
        if length == 0 {
            return Ok(());
        }
        let stream = self.enter(OP)?;
        let work = Work::Write { to: pointer, from: bytes.as_ptr().cast(), bytes: length };
        // SAFETY: `place` returned memory of the tensor, and the copy is waited for while `bytes` is borrowed.
        unsafe { work.launch(OP, stream)? };
        // SAFETY: the stream belongs to this value, and `enter` made its context current.
        self.device.waited(unsafe { result::stream::synchronize(stream) })
    }

    /// Rounds f32 elements to bf16. Their number is a multiple of 8.
    ///
    /// # Errors
    /// Returns an error if types, lengths or devices do not fit.
    pub fn round(&self, from: &Tensor, to: &Tensor) -> Result<()> {
        const OP: &str = "rounding of gradients";
        let count = from.elements();
        let is_valid = from.dtype() == DType::F32 && to.dtype() == DType::BF16 && to.elements() == count;
        check_kind(OP, is_valid && count.is_multiple_of(8), &[from, to])?;
        let ((from, _), (to, _)) = (self.place(OP, from)?, self.place(OP, to)?);
        let launch = Launch::new(&self.device, OP, FILE, "round_bf16").threads(THREADS).over(count / 8);
        launch.moves(6 * count).on(self).with_all(&[bytes_of(&from), bytes_of(&to), bytes_of(&(count as u64))])
    }

    /// Adds parts of equal length, one per rank, in the order in which they follow each other: f32 or bf16 elements that are
    /// added in f32. Also computes the sum of the squares of each block of 4,096 `sums`, in f64. The number of sums is a
    /// multiple of 8.
    ///
    /// # Errors
    /// Returns an error if types, lengths or devices do not fit.
    pub fn add(&self, parts: &Tensor, sums: &Tensor, squares: &Tensor) -> Result<()> {
        const OP: &str = "sum of gradients";
        let count = sums.elements();
        let name = if parts.dtype() == DType::BF16 { "add_ranks_bf16" } else { "add_ranks_f32" };
        let are_types = matches!(parts.dtype(), DType::F32 | DType::BF16)
            && (sums.dtype(), squares.dtype()) == (DType::F32, DType::F64);
        let blocks = count.div_ceil(BLOCK);
        let ranks = parts.elements().checked_div(count).unwrap_or(0);
        let are_lengths = parts.elements() == ranks * count && squares.elements() == blocks && count.is_multiple_of(8);
        check_kind(OP, are_types && are_lengths, &[parts, sums, squares])?;
        let bytes = parts.elements() * parts.dtype().size() + 4 * count;
        let ((parts, _), (sums, _), (squares, _)) =
            (self.place(OP, parts)?, self.place(OP, sums)?, self.place(OP, squares)?);
        let launch = Launch::new(&self.device, OP, FILE, name).threads(THREADS).grid([blocks, 1, 1]);
        let (count, ranks) = (count as u64, ranks as i32);
        let arguments = [bytes_of(&parts), bytes_of(&sums), bytes_of(&squares), bytes_of(&count), bytes_of(&ranks)];
        launch.shared(THREADS as usize * 8).moves(bytes).on(self).with_all(&arguments)
    }

    /// Returns the address and length in bytes of a row-major tensor on this device.
    pub(super) fn place(&self, op: &'static str, tensor: &Tensor) -> Result<(Pointer, usize)> {
        let size = tensor.dtype().size();
        match tensor.storage() {
            Storage::Cuda(buffer) if buffer.device() == &self.device && tensor.layout().is_contiguous() => {
                // Most of them are written.
                buffer.changes();
                Ok((buffer.pointer() + (tensor.layout().offset * size) as u64, tensor.elements() * size))
            }
            _ => Err(Error::invalid(op, format!("{tensor:?} is not row-major on cuda:{}", self.device.index()))),
        }
    }

    /// Makes the device's context current and returns the stream of exchanges.
    pub(super) fn enter(&self, op: &'static str) -> Result<sys::CUstream> {
        self.device.0.stream.enter(op)?;
        Ok(self.stream)
    }
}

fn check_kind(op: &'static str, is_valid: bool, tensors: &[&Tensor]) -> Result<()> {
    match is_valid {
        true => Ok(()),
        false => Err(Error::invalid(op, format!("types and lengths of {tensors:?} do not fit"))),
    }
}

impl Drop for GpuExchange {
    fn drop(&mut self) {
        if self.device.0.stream.enter("exchange").is_err() {
            return;
        }
        if !self.event.is_null() {
            // SAFETY: the event belongs to this value. The driver finishes what is under way.
            let _ = unsafe { result::event::destroy(self.event) };
        }
        // SAFETY: the stream belongs to this value. The driver finishes what is under way.
        let _ = unsafe { result::stream::destroy(self.stream) };
    }
}
