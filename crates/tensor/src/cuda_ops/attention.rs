//! Attention over packed sequences: attention_forward.cu and attention_backward.cu in bf16 or f16 for heads of 32, 64 and 128,
//! attention_any.cu in f32 for every size. The output and the gradient of bf16 are bf16.

use std::sync::Arc;

use bytemuck::{NoUninit, Zeroable};

use super::arguments::{KernelDropout, device_of, floats, fresh, int, pointer, write_gradient};
use super::scaled::{Narrow, Scale, in_f16, of_scale};
use crate::cuda::{CudaDevice, DeviceBuffer, Launch, Pointer};
use crate::dispatch::gpu::{CudaOp, GpuOutput};
use crate::dispatch::{Op, apply};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ops::attention::PackedAttention;
use crate::precision::Precision;
use crate::sequences::Sequences;
use crate::tensor::Tensor;

/// The largest head of attention_any.cu.
const LARGEST: usize = 256;
/// Queries or keys of a block.
const TILE: usize = 64;
const WARPS: usize = 4;

/// In f16, queries, keys and values are scaled to below 2 to this power, and the gradient of the output to below that: so is what
/// comes of them on the way, a gradient of probabilities being a sum over a head.
const LIMIT: i32 = 0;
const LIMIT_OF_GRADIENT: i32 = 4;

impl CudaOp for PackedAttention {
    type Arity = [(); 1];

    fn reads_bf16(&self, inputs: &[&Tensor]) -> bool {
        let op = self.name();
        let kernels = || OnTensorCores::of(op, self.precision, &device_of(op, inputs[0])?, self.head_size);
        kernels().is_ok_and(|kernels| kernels.is_some_and(|kernels| kernels.narrow == Narrow::Bf16))
    }

    fn forward(&self, [qkv]: [&Tensor; 1], _: bool) -> Result<GpuOutput> {
        let attention = Attention::new(self, qkv)?;
        if qkv.dtype() == DType::F32 && attention.kernels.as_ref().is_some_and(|kernels| kernels.narrow == Narrow::Bf16)
        {
            let rounded = qkv.to_dtype(DType::BF16)?;
            return Ok(GpuOutput::Composed(apply(self.clone(), [&rounded])?.to_dtype(DType::F32)?));
        }
        let (output, kept) = attention.forward(qkv)?;
        Ok(GpuOutput::new(output, move |dy, [dqkv]| {
            write_gradient(dqkv, |dqkv, add| attention.backward(&kept, &dy, dqkv, add))
        }))
    }
}

/// The state that both passes share.
struct Attention {
    op: &'static str,
    device: CudaDevice,
    sequences: Sequences,
    heads: usize,
    head_size: usize,
    /// Elements of a row of the output.
    hidden: usize,
    dropout: KernelDropout,
    /// The kernels on tensor cores, if there are any for this type and head size.
    kernels: Option<OnTensorCores>,
}

/// The tensors that the backward reads: queries, keys and values, in the type in which they were multiplied, the output,
/// and the log-sum-exp of each row.
struct Kept {
    qkv: Tensor,
    scale: Option<Scale>,
    output: Tensor,
    log_sums: Tensor,
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit, Zeroable)]
struct AnyArguments {
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
    add: i32,
    padding: u32,
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct ForwardArguments {
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
struct BackwardArguments {
    q: Pointer,
    k: Pointer,
    v: Pointer,
    d_o: Pointer,
    scale_qkv: Pointer,
    scale_do: Pointer,
    o: Pointer,
    log_sums: Pointer,
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
    add: i32,
    padding: u32,
}

/// The kernels on tensor cores, of a type and a head size.
struct OnTensorCores {
    narrow: Narrow,
    forward: &'static str,
    backward: &'static str,
}

macro_rules! kernels {
    ($narrow:expr, $of:literal) => {
        OnTensorCores {
            narrow: $narrow,
            forward: concat!("attention_forward_", $of),
            backward: concat!("attention_backward_", $of),
        }
    };
}

impl OnTensorCores {
    fn of(op: &'static str, precision: Precision, device: &CudaDevice, size: usize) -> Result<Option<OnTensorCores>> {
        let Some(narrow) = Narrow::of(op, precision, device)? else { return Ok(None) };
        Ok(Some(match (narrow, size) {
            (Narrow::Bf16, 32) => kernels!(narrow, "bf16_32"),
            (Narrow::Bf16, 64) => kernels!(narrow, "bf16_64"),
            (Narrow::Bf16, 128) => kernels!(narrow, "bf16_128"),
            (Narrow::F16, 32) => kernels!(narrow, "f16_32"),
            (Narrow::F16, 64) => kernels!(narrow, "f16_64"),
            // The shared memory of sm_75 is too small.
            (Narrow::F16, 128) if device.capability() >= (8, 0) => kernels!(narrow, "f16_128"),
            _ => return Ok(None),
        }))
    }
}

impl Attention {
    fn new(attention: &PackedAttention, qkv: &Tensor) -> Result<Attention> {
        let (op, device) = (attention.name(), device_of(attention.name(), qkv)?);
        let (heads, head_size) = (attention.heads, attention.head_size);
        let kernels = OnTensorCores::of(op, attention.precision, &device, head_size)?;
        if kernels.is_none() && head_size > LARGEST {
            return Err(Error::invalid(op, format!("heads of {head_size} on a GPU, at most {LARGEST}")));
        }
        let (sequences, dropout) = (attention.sequences.clone(), KernelDropout::new(&attention.dropout));
        Ok(Attention { op, device, sequences, heads, head_size, hidden: heads * head_size, dropout, kernels })
    }

    /// Computes the output of `qkv` [T, 3 N D]: [T, N D], in the same type.
    fn forward(&self, qkv: &Tensor) -> Result<(Tensor, Kept)> {
        let Attention { op, device, hidden, .. } = self;
        let qkv = floats(op, qkv)?;
        let tokens = qkv.size(0);
        let log_sums = fresh(op, &[self.heads, tokens], DType::F32, device)?;
        let output = fresh(op, &[tokens, *hidden], qkv.dtype(), device)?;
        let Some(kernels) = &self.kernels else {
            let arguments = AnyArguments { o: pointer(&output), log_sums: pointer(&log_sums), ..self.any(&qkv)? };
            self.launch_any("attention_any_forward", arguments, (2, 4))?;
            return Ok((output.clone(), Kept { qkv, scale: None, output, log_sums }));
        };
        let (qkv, scale) = operand(op, &qkv, LIMIT)?;
        let [q, k, v] = thirds(&qkv, *hidden);
        let [starts, numbers] = self.layout()?;
        let arguments = ForwardArguments {
            q,
            k,
            v,
            scale_qkv: of_scale(scale.as_ref()),
            o: pointer(&output),
            log_sums: pointer(&log_sums),
            starts: starts.pointer(),
            numbers: numbers.pointer(),
            row_qkv: int(op, 3 * hidden)?,
            row_o: int(op, *hidden)?,
            tokens: int(op, tokens)?,
            scale: self.scale(),
            dropout: self.dropout,
            padding: 0,
        };
        let launch = Launch::new(device, op, "attention_forward", kernels.forward).grid(self.tiles());
        let launch = launch.moves(tokens * hidden * (3 * 2 + output.dtype().size())).computes(2 * self.operations());
        launch.shared(5 * TILE * self.head_size * 2).with(&arguments)?;
        Ok((output.clone(), Kept { qkv, scale, output, log_sums }))
    }

    /// Writes the gradient of `qkv`, or adds it, given that of the output.
    fn backward(&self, kept: &Kept, dy: &Tensor, dqkv: &Tensor, add: bool) -> Result<()> {
        let Attention { op, device, hidden, .. } = self;
        let Kept { qkv, scale, output, log_sums } = kept;
        let dy = floats(op, dy)?;
        let [dq, dk, dv] = thirds(dqkv, *hidden);
        let Some(kernels) = &self.kernels else {
            let deltas = fresh(op, log_sums.shape(), DType::F32, device)?;
            let arguments = AnyArguments {
                o: pointer(output),
                log_sums: pointer(log_sums),
                d_o: pointer(&dy),
                deltas: pointer(&deltas),
                dq,
                dk,
                dv,
                add: add.into(),
                ..self.any(qkv)?
            };
            self.launch_any("attention_any_dq", arguments, (3, 6))?;
            return self.launch_any("attention_any_dkv", arguments, (4, 6));
        };
        let (d_o, scale_do) = operand(op, &dy, LIMIT_OF_GRADIENT)?;
        let [q, k, v] = thirds(qkv, *hidden);
        let [starts, numbers] = self.layout()?;
        let arguments = BackwardArguments {
            q,
            k,
            v,
            d_o: pointer(&d_o),
            scale_qkv: of_scale(scale.as_ref()),
            scale_do: of_scale(scale_do.as_ref()),
            o: pointer(output),
            log_sums: pointer(log_sums),
            dq,
            dk,
            dv,
            starts: starts.pointer(),
            numbers: numbers.pointer(),
            row_qkv: int(op, 3 * hidden)?,
            row_o: int(op, *hidden)?,
            row_dqkv: int(op, 3 * hidden)?,
            tokens: int(op, qkv.size(0))?,
            scale: self.scale(),
            dropout: self.dropout,
            add: add.into(),
            padding: 0,
        };
        let (elements, of_result) = (qkv.size(0) * hidden, output.dtype().size());
        let bytes = elements * (4 * 2 + of_result * (1 + 3 * (1 + usize::from(add))));
        let [tiles, heads, sequences] = self.tiles();
        let launch =
            Launch::new(device, op, "attention_backward", kernels.backward).grid([2 * tiles, heads, sequences]);
        let launch = launch.moves(bytes).computes(7 * self.operations());
        launch.shared(4 * TILE * self.head_size * 2 + 1024).with(&arguments)
    }

    /// Returns the operations of one product of queries and keys, or of probabilities and values, in all heads.
    fn operations(&self) -> usize {
        let starts = self.sequences.cu_seqlens();
        let pairs: usize = starts.windows(2).map(|ends| ((ends[1] - ends[0]) as usize).pow(2)).sum();
        2 * pairs * self.hidden
    }

    /// Returns the factor of the scores.
    fn scale(&self) -> f32 {
        (1.0 / (self.head_size as f64).sqrt()) as f32
    }

    /// Where sequences start, and their numbers, on the device.
    fn layout(&self) -> Result<[Arc<DeviceBuffer>; 2]> {
        let Attention { op, device, sequences, .. } = self;
        Ok([device.input(op, sequences.cu_seqlens())?, device.input(op, sequences.numbers())?])
    }

    /// A block for 64 rows of the longest sequence, for each head and sequence.
    fn tiles(&self) -> [usize; 3] {
        [self.sequences.longest().div_ceil(TILE), self.heads, self.sequences.len()]
    }

    /// Arguments of attention_any.cu, without outputs.
    fn any(&self, qkv: &Tensor) -> Result<AnyArguments> {
        let Attention { op, hidden, head_size, .. } = self;
        let [q, k, v] = thirds(qkv, *hidden);
        let (row_qkv, row_o, tokens) = (int(op, 3 * hidden)?, int(op, *hidden)?, int(op, qkv.size(0))?);
        let (size, scale, dropout) = (int(op, *head_size)?, self.scale(), self.dropout);
        Ok(AnyArguments { q, k, v, row_qkv, row_o, tokens, size, scale, dropout, ..AnyArguments::zeroed() })
    }

    /// Launches a kernel of attention_any.cu that computes `products` products and moves `matrices` of the size of the output.
    fn launch_any(
        &self,
        name: &'static str,
        arguments: AnyArguments,
        (products, matrices): (usize, usize),
    ) -> Result<()> {
        let [starts, numbers] = self.layout()?;
        let arguments = AnyArguments { starts: starts.pointer(), numbers: numbers.pointer(), ..arguments };
        let grid = [self.sequences.longest().div_ceil(WARPS), self.heads, self.sequences.len()];
        let launch = Launch::new(&self.device, self.op, "attention_any", name).grid(grid);
        let bytes = 4 * matrices * arguments.tokens as usize * self.hidden;
        launch.moves(bytes).computes(products * self.operations()).with(&arguments)
    }
}

/// Returns queries, keys and values, or the gradient of the output, in the type in which they are multiplied: bf16 as they are, f32
/// in f16, scaled to below `2^limit`.
fn operand(op: &'static str, tensor: &Tensor, limit: i32) -> Result<(Tensor, Option<Scale>)> {
    if tensor.dtype() == DType::BF16 {
        return Ok((tensor.clone(), None));
    }
    let (to, scale) = in_f16(op, tensor, limit)?;
    Ok((to, Some(scale)))
}

/// Where the queries, the keys and the values of the first token start.
fn thirds(qkv: &Tensor, hidden: usize) -> [Pointer; 3] {
    let step = (hidden * qkv.dtype().size()) as u64;
    [pointer(qkv), pointer(qkv) + step, pointer(qkv) + 2 * step]
}
