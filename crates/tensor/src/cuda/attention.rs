//! Attention over packed sequences: attention_forward.cu and attention_backward.cu in bf16 for heads of 32, 64 and 128,
//! attention_any.cu in f32 for every size.

use bytemuck::{NoUninit, bytes_of};

use super::elementwise::copied;
use super::launch::Launch;
use super::{KernelDropout, Pointer, device_of, f32s, fresh, int, pointer};
use crate::ops::Sequences;
use crate::tensor::Tensor;
use crate::{DType, Dropout, Error, Precision, Result};

/// The largest head of attention_any.cu.
const LARGEST: usize = 256;
/// Queries or keys of a block.
const TILE: usize = 64;
const WARPS: usize = 4;

/// What both passes are told.
pub(crate) struct Attention<'a> {
    pub(crate) sequences: &'a Sequences,
    pub(crate) heads: usize,
    pub(crate) dropout: &'a Dropout,
    pub(crate) precision: Precision,
}

/// What the gradient needs: queries, keys and values, the output, and the logarithms of the sums of each row's exponentials; in
/// bf16 where they were computed in that.
pub(crate) struct Kept {
    qkv: Tensor,
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
    o: Pointer,
    d_o: Pointer,
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

/// The kernels on tensor cores, of this head size.
struct OnTensorCores {
    forward: &'static str,
    deltas: &'static str,
    dq: &'static str,
    dkv: &'static str,
}

impl Attention<'_> {
    fn size(&self, hidden: usize) -> usize {
        hidden / self.heads
    }

    fn on_tensor_cores(&self, size: usize) -> Option<OnTensorCores> {
        let kernels = |forward, deltas, dq, dkv| Some(OnTensorCores { forward, deltas, dq, dkv });
        match (self.precision, size) {
            (Precision::Bf16, 32) => {
                kernels("attention_forward_32", "attention_deltas_32", "attention_dq_32", "attention_dkv_32")
            }
            (Precision::Bf16, 64) => {
                kernels("attention_forward_64", "attention_deltas_64", "attention_dq_64", "attention_dkv_64")
            }
            (Precision::Bf16, 128) => {
                kernels("attention_forward_128", "attention_deltas_128", "attention_dq_128", "attention_dkv_128")
            }
            _ => None,
        }
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
        let Some(kernels) = self.on_tensor_cores(size) else {
            let output = fresh(op, &[qkv.size(0), hidden], DType::F32, &device)?;
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
            return Ok((output.clone(), Kept { qkv, output, log_sums }));
        };
        let narrow = copied(op, &qkv, DType::BF16)?;
        let output = fresh(op, &[qkv.size(0), hidden], DType::BF16, &device)?;
        let [q, k, v] = thirds(&narrow, hidden);
        let arguments = Forward {
            q,
            k,
            v,
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
        Ok((copied(op, &output, DType::F32)?, Kept { qkv: narrow, output, log_sums }))
    }

    /// The gradient of `qkv`, for that of the output.
    pub(crate) fn backward(&self, op: &'static str, kept: &Kept, dy: &Tensor) -> Result<Tensor> {
        let Kept { qkv, output, log_sums } = kept;
        let dy = f32s(op, dy)?;
        let device = device_of(op, &dy)?;
        let hidden = output.width();
        let size = self.size(hidden);
        let dqkv = fresh(op, qkv.shape(), qkv.dtype(), &device)?;
        let deltas = fresh(op, log_sums.shape(), DType::F32, &device)?;
        let starts = device.input(op, self.sequences.cu_seqlens())?;
        let numbers = device.input(op, self.sequences.numbers())?;
        let Some(kernels) = self.on_tensor_cores(size) else {
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
        let d_o = copied(op, &dy, DType::BF16)?;
        let ([q, k, v], [dq, dk, dv]) = (thirds(qkv, hidden), thirds(&dqkv, hidden));
        let arguments = Backward {
            q,
            k,
            v,
            o: pointer(output),
            d_o: pointer(&d_o),
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
        copied(op, &dqkv, DType::F32)
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
