//! The norm of all gradients, and AdamW over flat parameters. The kernels are in optimizer.cu.

use std::ops::Range;

use bytemuck::{NoUninit, Pod, Zeroable, bytes_of};

use super::arguments::{check_f32, device_of, int, pointer};
use crate::cpu::adamw::AdamWStep;
use crate::cuda::{CudaDevice, DeviceBuffer, Launch, Pointer};
use crate::dtype::DType;
use crate::element::wrong_dtype;
use crate::error::{Error, Result};
use crate::storage::Storage;
use crate::tensor::Tensor;

const FILE: &str = "optimizer";
const THREADS: u32 = 256;
/// Elements per block of a sum.
const SEGMENT: usize = 1 << 16;

fn address(op: &'static str, storage: &Storage, at: usize) -> Result<Pointer> {
    match storage {
        Storage::Cuda(buffer) => Ok(buffer.pointer() + 4 * at as u64),
        Storage::Cpu(_) => {
            Err(Error::invalid(op, "the gradients or the optimizer state are on the CPU, the parameters on a GPU"))
        }
    }
}

/// Launches the partial sums of the squares of the f32 elements `ranges`. Returns their buffer and their number.
fn squares(
    op: &'static str,
    device: &CudaDevice,
    flat: &Storage,
    ranges: &[Range<usize>],
) -> Result<(DeviceBuffer, usize)> {
    let blocks = |range: &Range<usize>| range.len().div_ceil(SEGMENT);
    let total: usize = ranges.iter().map(blocks).sum();
    let partials = device.allocate(op, 8 * total)?;
    let mut start = 0;
    for range in ranges {
        let (from, to) = (address(op, flat, range.start)?, partials.pointer() + 8 * start as u64);
        let launch = Launch::new(device, op, FILE, "sum_of_squares").threads(THREADS).grid([blocks(range), 1, 1]);
        let launch = launch.shared(THREADS as usize * 8).moves(4 * range.len());
        launch.with_all(&[bytes_of(&from), bytes_of(&to), bytes_of(&(range.len() as u64))])?;
        start += blocks(range);
    }
    Ok((partials, total))
}

/// Returns the sum of the squares of the f32 elements `ranges`.
pub(crate) fn sum_of_squares(op: &'static str, flat: &Storage, ranges: &[Range<usize>]) -> Result<f64> {
    let Storage::Cuda(buffer) = flat else { return Ok(0.0) };
    let (partials, total) = squares(op, buffer.device(), flat, ranges)?;
    let mut sums = vec![0f64; total];
    partials.read(op, 0, &mut sums)?;
    Ok(sums.iter().sum())
}

/// The values of a step that change from step to step, and its results. They are in device memory, so that every step has
/// the same launches and can reuse one CUDA graph.
#[repr(C)]
#[derive(Clone, Copy, Zeroable, Pod)]
struct StepState {
    learning_rate: f32,
    correction1: f32,
    correction2: f32,
    factor: f32,
    norm: f64,
}

/// A range of parameters with one learning rate and weight decay.
#[repr(C)]
#[derive(Clone, Copy, Zeroable, Pod)]
struct KernelRange {
    start: u64,
    count: u64,
    first_block: u32,
    rate_factor: f32,
    weight_decay: f32,
    padding: u32,
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct AdamWArguments {
    parameters: Pointer,
    gradients: Pointer,
    mean: Pointer,
    mean_of_squares: Pointer,
    state: Pointer,
    ranges: Pointer,
    count: i32,
    new1: f32,
    beta2: f32,
    new2: f32,
    eps: f32,
    padding: u32,
    rounded: Pointer,
}

/// Applies one step to the f32 parameters of each range, with the gradients of `written` scaled so that their norm is at most
/// `clip_norm`. Steps may differ only in learning rate and weight decay. Waits for the norm before scaling and returns it; if
/// it is not finite, nothing is changed.
pub(crate) fn adamw(
    op: &'static str,
    storages: [&Storage; 4],
    written: &[Range<usize>],
    clip_norm: Option<f64>,
    steps: &[(Range<usize>, AdamWStep)],
) -> Result<f64> {
    let Storage::Cuda(buffer) = storages[0] else { return Ok(0.0) };
    let device = buffer.device();
    let (partials, total) = squares(op, device, storages[1], written)?;
    let step = GpuStep::begin(device, (partials.pointer(), total), clip_norm, steps.iter().map(|(_, step)| *step))?;
    let mut pointers = [0; 4];
    for (pointer, storage) in pointers.iter_mut().zip(storages) {
        *pointer = address(op, storage, 0)?;
    }
    step.apply_at(pointers, buffer.rounded_beside(), steps)?;
    step.norm()
}

/// A step of AdamW on a GPU. What changes from step to step is in its memory, so that the host need not wait for the norm.
///
/// Made for ranks that share parameters; [`ParameterArena::adamw`](crate::ParameterArena::adamw) makes a whole step.
pub struct GpuStep {
    device: CudaDevice,
    state: DeviceBuffer,
    /// The largest learning rate, of which those of the others are constant fractions.
    learning_rate: f64,
    first: AdamWStep,
}

impl GpuStep {
    const OP: &'static str = "optimizer step";

    /// Begins a step with the norm of gradients whose squares add up to `squares`, f64 numbers on a GPU that are added in a fixed
    /// order. The gradients will be scaled so that their norm is at most `clip_norm`. `steps` are the steps of all parameters,
    /// also those that other ranks update; they may differ only in learning rate and weight decay.
    ///
    /// # Errors
    /// Returns an error if `squares` are not f64 numbers on a GPU, there is no step, or the device fails.
    pub fn new(
        squares: &Tensor,
        clip_norm: Option<f64>,
        steps: impl IntoIterator<Item = AdamWStep>,
    ) -> Result<GpuStep> {
        if squares.dtype() != DType::F64 {
            return Err(wrong_dtype(Self::OP, "squares", squares.dtype(), "f64"));
        }
        let device = device_of(Self::OP, squares)?;
        GpuStep::begin(&device, (pointer(squares), squares.elements()), clip_norm, steps)
    }

    fn begin(
        device: &CudaDevice,
        (sums, total): (Pointer, usize),
        clip_norm: Option<f64>,
        steps: impl IntoIterator<Item = AdamWStep>,
    ) -> Result<GpuStep> {
        let op = Self::OP;
        let mut steps = steps.into_iter();
        let first = steps.next().ok_or_else(|| Error::invalid(op, "there is no parameter"))?;
        let (correction1, correction2) = first.corrections();
        let learning_rate = steps.map(|step| step.learning_rate).fold(first.learning_rate, f64::max);
        let of_step = StepState {
            learning_rate: learning_rate as f32,
            correction1: correction1 as f32,
            correction2: correction2 as f32,
            ..StepState::zeroed()
        };
        let state = device.upload(op, &[of_step])?;
        let count = int(op, total)?;
        let most = clip_norm.map_or(0.0, |norm| norm as f32);
        let to = state.pointer();
        let arguments = [bytes_of(&sums), bytes_of(&count), bytes_of(&most), bytes_of(&to)];
        Launch::new(device, op, FILE, "clip_factor").moves(8 * total).threads(32).with_all(&arguments)?;
        Ok(GpuStep { device: device.clone(), state, learning_rate, first })
    }

    /// Updates `ranges` of parameters, gradients, means and means of squares, which are row-major f32 tensors on the GPU. If the
    /// norm is not finite, nothing is changed.
    ///
    /// # Errors
    /// Returns an error if a tensor is not f32 on the GPU, a range exceeds one, or the device fails.
    pub fn apply(&self, tensors: [&Tensor; 4], ranges: &[(Range<usize>, AdamWStep)]) -> Result<()> {
        check_f32(Self::OP, &tensors)?;
        let end = ranges.iter().map(|(range, _)| range.end).max().unwrap_or(0);
        for tensor in tensors {
            if device_of(Self::OP, tensor)? != self.device
                || !tensor.layout().is_contiguous()
                || end > tensor.elements()
            {
                let reason = format!("{tensor:?} is not row-major on the GPU with {end} elements");
                return Err(Error::invalid(Self::OP, reason));
            }
        }
        tensors[0].storage().changes();
        self.apply_at(tensors.map(pointer), 0, ranges)
    }

    /// Updates what is at these addresses; the parameters in bf16, too, if `rounded` is not null.
    fn apply_at(&self, at: [Pointer; 4], rounded: Pointer, steps: &[(Range<usize>, AdamWStep)]) -> Result<()> {
        let (op, first) = (Self::OP, &self.first);
        let (mut blocks, mut elements) = (0, 0);
        let mut ranges = Vec::with_capacity(steps.len());
        for (range, step) in steps.iter().filter(|(range, _)| !range.is_empty()) {
            let is_zero = self.learning_rate == 0.0;
            ranges.push(KernelRange {
                start: range.start as u64,
                count: range.len() as u64,
                first_block: int(op, blocks)? as u32,
                rate_factor: if is_zero { 0.0 } else { (step.learning_rate / self.learning_rate) as f32 },
                weight_decay: step.weight_decay as f32,
                padding: 0,
            });
            blocks += range.len().div_ceil(4 * THREADS as usize);
            elements += range.len();
        }
        let of_ranges = self.device.input(op, &ranges)?;
        let [parameters, gradients, mean, mean_of_squares] = at;
        let arguments = AdamWArguments {
            parameters,
            gradients,
            mean,
            mean_of_squares,
            state: self.state.pointer(),
            ranges: of_ranges.pointer(),
            count: int(op, ranges.len())?,
            new1: (1.0 - first.beta1) as f32,
            beta2: first.beta2 as f32,
            new2: (1.0 - first.beta2) as f32,
            eps: first.eps as f32,
            padding: 0,
            rounded,
        };
        // Reads all four and writes all but the gradients, and the parameters in bf16 too.
        let launch = Launch::new(&self.device, op, FILE, "adamw").threads(THREADS).grid([blocks, 1, 1]);
        launch.moves((7 * 4 + if rounded == 0 { 0 } else { 2 }) * elements).with(&arguments)
    }

    /// Waits for the device and returns the norm of the gradients before scaling.
    ///
    /// # Errors
    /// Returns an error if the device fails.
    pub fn norm(&self) -> Result<f64> {
        let mut found = [StepState::zeroed()];
        self.state.read(Self::OP, 0, &mut found)?;
        Ok(found[0].norm)
    }
}
