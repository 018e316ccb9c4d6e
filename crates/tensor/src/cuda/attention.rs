//! Attention over packed sequences: attention_forward.cu and attention_backward.cu in bf16 or f16 for heads of 32, 64 and 128,
//! attention_any.cu in f32 for every size.

use bytemuck::{NoUninit, bytes_of};

use super::launch::Launch;
use super::scaled::{Narrow, Scale, narrowed, of_scale};
use super::{CudaDevice, KernelDropout, Pointer, device_of, f32s, fresh, int, pointer};
use crate::ops::Sequences;
use crate::tensor::Tensor;
use crate::{DType, Dropout, Error, Precision, Result};

/// The largest head of attention_any.cu.
const LARGEST: usize = 256;
/// Queries or keys of a block.
const TILE: usize = 64;
const WARPS: usize = 4;

/// In f16, queries, keys and values are scaled to below 2 to this power, and the gradient of the output to below that: so is what
/// comes of them on the way, a gradient of probabilities being a sum over a head.
const LIMIT: i32 = 0;
const LIMIT_OF_GRADIENT: i32 = 4;

/// What both passes are told.
pub(crate) struct Attention<'a> {
    pub(crate) sequences: &'a Sequences,
    pub(crate) heads: usize,
    pub(crate) dropout: &'a Dropout,
    pub(crate) precision: Precision,
}

/// What the gradient needs: queries, keys and values, as they were multiplied, the output, and the logarithms of the sums of each
/// row's exponentials.
pub(crate) struct Kept {
    qkv: Tensor,
    scale: Option<Scale>,
    output: Tensor,
    log_sums: Tensor,
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Any {
    q: Pointer,
    k: Pointer,
    v: Pointer,
    o: Pointer,
    log_sums: Pointer,
    d_o: Pointer,
    deltas: Pointer,
    dq: Pointer,
    dk: Pointer,
    dv: Pointer,
    starts: Pointer,
    numbers: Pointer,
    row_qkv: i32,
    row_o: i32,
    tokens: i32,
    size: i32,
    scale: f32,
    dropout: KernelDropout,
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Forward {
    q: Pointer,
    k: Pointer,
    v: Pointer,
    scale_qkv: Pointer,
    o: Pointer,
    log_sums: Pointer,
    starts: Pointer,
    numbers: Pointer,
    row_qkv: i32,
    row_o: i32,
    tokens: i32,
    scale: f32,
    dropout: KernelDropout,
    padding: u32,
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Backward {
    q: Pointer,
    k: Pointer,
    v: Pointer,
    d_o: Pointer,
    scale_qkv: Pointer,
    scale_do: Pointer,
    o: Pointer,
    log_sums: Pointer,
    deltas: Pointer,
    dq: Pointer,
    dk: Pointer,
    dv: Pointer,
    starts: Pointer,
    numbers: Pointer,
    row_qkv: i32,
    row_o: i32,
    row_dqkv: i32,
    tokens: i32,
    scale: f32,
    dropout: KernelDropout,
}

/// The kernels on tensor cores, of a type and a head size.
struct OnTensorCores {
    narrow: Narrow,
    forward: &'static str,
    deltas: &'static str,
    dq: &'static str,
    dkv: &'static str,
}

macro_rules! kernels {
    ($narrow:expr, $of:literal) => {
        OnTensorCores {
            narrow: $narrow,
            forward: concat!("attention_forward_", $of),
            deltas: concat!("attention_deltas_", $of),
            dq: concat!("attention_dq_", $of),
            dkv: concat!("attention_dkv_", $of),
        }
    };
}

impl Attention<'_> {
    fn size(&self, hidden: usize) -> usize {
        hidden / self.heads
    }

    fn on_tensor_cores(&self, op: &'static str, device: &CudaDevice, size: usize) -> Result<Option<OnTensorCores>> {
        let Some(narrow) = Narrow::of(op, self.precision, device)? else { return Ok(None) };
        Ok(Some(match (narrow, size) {
            (Narrow::Bf16, 32) => kernels!(narrow, "bf16_32"),
            (Narrow::Bf16, 64) => kernels!(narrow, "bf16_64"),
            (Narrow::Bf16, 128) => kernels!(narrow, "bf16_128"),
            (Narrow::F16, 32) => kernels!(narrow, "f16_32"),
            (Narrow::F16, 64) => kernels!(narrow, "f16_64"),
            // On sm_75 shared memory is too small.
            (Narrow::F16, 128) if device.0.capability >= (8, 0) => kernels!(narrow, "f16_128"),
            _ => return Ok(None),
        }))
    }

    /// The output of `qkv` [T, 3 N D]: [T, N D], in f32.
    pub(crate) fn forward(&self, op: &'static str, qkv: &Tensor) -> Result<(Tensor, Kept)> {
        let qkv = f32s(op, qkv)?;
        let device = device_of(op, &qkv)?;
        let (tokens, hidden) = (qkv.size(0), qkv.width() / 3);
        let size = self.size(hidden);
        let log_sums = fresh(op, &[self.heads, tokens], DType::F32, &device)?;
        let starts = device.input(op, self.sequences.cu_seqlens())?;
        let numbers = device.input(op, self.sequences.numbers())?;
        let (row_qkv, row_o, tokens) = (int(op, 3 * hidden)?, int(op, hidden)?, int(op, tokens)?);
        let scale = (1.0 / (size as f64).sqrt()) as f32;
        let dropout = KernelDropout::new(self.dropout);
        let output = fresh(op, &[qkv.size(0), hidden], DType::F32, &device)?;
        let Some(kernels) = self.on_tensor_cores(op, &device, size)? else {
            let arguments = Any {
                o: pointer(&output),
                log_sums: pointer(&log_sums),
                d_o: 0,
                deltas: 0,
                starts: starts.pointer(),
                numbers: numbers.pointer(),
                ..self.any(op, &qkv, None)?
            };
            self.launch_any(op, &qkv, "attention_any_forward", &arguments)?;
            return Ok((output.clone(), Kept { qkv, scale: None, output, log_sums }));
        };
        let (qkv, scale_qkv) = narrowed(op, kernels.narrow, &qkv, LIMIT)?;
        let [q, k, v] = thirds(&qkv, hidden);
        let arguments = Forward {
            q,
            k,
            v,
            scale_qkv: of_scale(scale_qkv.as_ref()),
            o: pointer(&output),
            log_sums: pointer(&log_sums),
            starts: starts.pointer(),
            numbers: numbers.pointer(),
            row_qkv,
            row_o,
            tokens,
            scale,
            dropout,
            padding: 0,
        };
        let launch = Launch::new(&device, op, "attention_forward", kernels.forward).grid(self.tiles());
        launch.shared(5 * TILE * size * 2).with(&arguments)?;
        Ok((output.clone(), Kept { qkv, scale: scale_qkv, output, log_sums }))
    }

    /// The gradient of `qkv`, for that of the output.
    pub(crate) fn backward(&self, op: &'static str, kept: &Kept, dy: &Tensor) -> Result<Tensor> {
        let Kept { qkv, scale, output, log_sums } = kept;
        let dy = f32s(op, dy)?;
        let device = device_of(op, &dy)?;
        let hidden = output.width();
        let size = self.size(hidden);
        let dqkv = fresh(op, qkv.shape(), DType::F32, &device)?;
        let deltas = fresh(op, log_sums.shape(), DType::F32, &device)?;
        let starts = device.input(op, self.sequences.cu_seqlens())?;
        let numbers = device.input(op, self.sequences.numbers())?;
        let Some(kernels) = self.on_tensor_cores(op, &device, size)? else {
            let arguments = Any {
                o: pointer(output),
                log_sums: pointer(log_sums),
                d_o: pointer(&dy),
                deltas: pointer(&deltas),
                starts: starts.pointer(),
                numbers: numbers.pointer(),
                ..self.any(op, qkv, Some(&dqkv))?
            };
            self.launch_any(op, qkv, "attention_any_dq", &arguments)?;
            self.launch_any(op, qkv, "attention_any_dkv", &arguments)?;
            return Ok(dqkv);
        };
        let (d_o, scale_do) = narrowed(op, kernels.narrow, &dy, LIMIT_OF_GRADIENT)?;
        let ([q, k, v], [dq, dk, dv]) = (thirds(qkv, hidden), thirds(&dqkv, hidden));
        let arguments = Backward {
            q,
            k,
            v,
            d_o: pointer(&d_o),
            scale_qkv: of_scale(scale.as_ref()),
            scale_do: of_scale(scale_do.as_ref()),
            o: pointer(output),
            log_sums: pointer(log_sums),
            deltas: pointer(&deltas),
            dq,
            dk,
            dv,
            starts: starts.pointer(),
            numbers: numbers.pointer(),
            row_qkv: int(op, 3 * hidden)?,
            row_o: int(op, hidden)?,
            row_dqkv: int(op, 3 * hidden)?,
            tokens: int(op, qkv.size(0))?,
            scale: (1.0 / (size as f64).sqrt()) as f32,
            dropout: KernelDropout::new(self.dropout),
        };
        let launch = |name| Launch::new(&device, op, "attention_backward", name);
        let rows = [qkv.size(0).div_ceil(WARPS), self.heads, 1];
        launch(kernels.deltas).grid(rows).with_all(&[bytes_of(&arguments), bytes_of(&pointer(&deltas))])?;
        launch(kernels.dq).grid(self.tiles()).shared(4 * TILE * size * 2).with(&arguments)?;
        launch(kernels.dkv).grid(self.tiles()).shared(4 * TILE * size * 2 + 512).with(&arguments)?;
        Ok(dqkv)
    }

    /// A block for 64 rows of the longest sequence, for each head and sequence.
    fn tiles(&self) -> [usize; 3] {
        [self.sequences.longest().div_ceil(TILE), self.heads, self.sequences.len()]
    }

    fn any(&self, op: &'static str, qkv: &Tensor, dqkv: Option<&Tensor>) -> Result<Any> {
        let hidden = qkv.width() / 3;
        let size = self.size(hidden);
        if size > LARGEST {
            return Err(Error::invalid(op, format!("heads of {size} on a GPU, at most {LARGEST}")));
        }
        let ([q, k, v], [dq, dk, dv]) = (thirds(qkv, hidden), dqkv.map_or([0; 3], |dqkv| thirds(dqkv, hidden)));
        Ok(Any {
            q,
            k,
            v,
            o: 0,
            log_sums: 0,
            d_o: 0,
            deltas: 0,
            dq,
            dk,
            dv,
            starts: 0,
            numbers: 0,
            row_qkv: int(op, 3 * hidden)?,
            row_o: int(op, hidden)?,
            tokens: int(op, qkv.size(0))?,
            size: int(op, size)?,
            scale: (1.0 / (size as f64).sqrt()) as f32,
            dropout: KernelDropout::new(self.dropout),
        })
    }

    fn launch_any(&self, op: &'static str, qkv: &Tensor, name: &'static str, arguments: &Any) -> Result<()> {
        let device = device_of(op, qkv)?;
        let grid = [self.sequences.longest().div_ceil(WARPS), self.heads, self.sequences.len()];
        Launch::new(&device, op, "attention_any", name).grid(grid).with(arguments)
    }
}

/// Where the queries, the keys and the values of the first token begin.
fn thirds(qkv: &Tensor, hidden: usize) -> [Pointer; 3] {
    let step = (hidden * qkv.dtype().size()) as u64;
    [pointer(qkv), pointer(qkv) + step, pointer(qkv) + 2 * step]
}
