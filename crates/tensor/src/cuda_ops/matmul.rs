//! Matrix products: gemm.cu and, for bf16 on sm_90a, gemm_hopper.cu on tensor cores, for [`Precision::Bf16`] and
//! [`Precision::F16`], and gemm_any.cu in f32.

use bytemuck::{NoUninit, Zeroable, bytes_of};

use super::arguments::{device_of, fresh, int, pointer, write_gradient};
use super::column_sums::add_rows;
use super::scaled::{Narrow, Scale, of_scale, scaled};
use crate::copy::copy;
use crate::cpu::unary::Function;
use crate::cuda::{Accumulate, EpilogueKind, Launch, Pointer, TensorMap};
use crate::dispatch::TensorOp;
use crate::dispatch::gpu::{CudaOp, GpuOutput};
use crate::dtype::DType;
use crate::error::Result;
use crate::gelu::Gelu;
use crate::gradients::Slot;
use crate::layout::{Dims, Layout, rows_and_width};
use crate::ops::matmul::MatMul;
use crate::precision::Precision;
use crate::tensor::{Origin, Tensor};

/// A block on tensor cores has so much of the product in each direction, a block of gemm_any.cu so much.
const TILE: usize = 128;
const TILE_ANY: usize = 64;
/// Rows of operands on tensor cores start at multiples of this many elements, which are 16 bytes.
const CHUNK: usize = 8;
const THREADS: u32 = 256;
const SHARED: usize = 4 * 2 * 128 * 32 * 2;
/// With the warp that fetches; the ring with its barriers.
const THREADS_HOPPER: u32 = 256 + 32;
const SHARED_HOPPER: usize = 3 * (4 * 64 * 64 * 2 + 2 * 8);
const SHARED_ANY: usize = 2 * 16 * 65 * 4;

/// A product of fewer tiles than this is split along k, into parts of at least [`PART`]: the gradient of a weight is small and
/// long. These are numbers of the shape alone, so that every GPU adds in the same order.
const ENOUGH_TILES: usize = 128;
const PART: usize = 1024;
/// Kernels go along k in pieces of 32 or 64.
const SMALLEST_PART: usize = 64;

/// In f16, operands are scaled to below 2 to this power: sums are in f32, so all of the range is theirs.
const LIMIT: i32 = 15;

impl CudaOp for MatMul {
    type Arity = [(); 2];

    fn forward(&self, [a, b]: [&Tensor; 2], _: bool) -> Result<GpuOutput> {
        let (op, precision, rank) = (self.name(), self.precision, self.batch.len());
        let of = self.operands([a, b])?;
        let [m, k, n] = of.sizes;
        let output = fresh(op, &self.whole(m, n), a.dtype(), &device_of(op, a)?)?;
        let count: usize = self.batch.iter().product();
        if count == 1 {
            let matrix = |tensor, layout: &Layout, rows, columns| {
                let step = (layout.strides[rank], layout.strides[rank + 1]);
                Matrix { tensor, start: 0, rows, columns, step, scale: None }
            };
            let (x, y) = (matrix(a, &of.a, m, k), matrix(b, &of.b, k, n));
            multiply(op, precision, x, y, Matrix::of(&output), Epilogue::Plain, false)?;
        } else {
            let each = |tensor: &Tensor, rows, columns| {
                tensor.detach().broadcast_to(&self.whole(rows, columns))?.contiguous()?.reshape(&[count, rows, columns])
            };
            multiply_each(op, precision, &each(a, m, k)?, &each(b, k, n)?, &output)?;
        }
        Ok(GpuOutput::Operation(output, self.keeps([a, b])?))
    }
}

/// A matrix in a tensor's memory: element (i, j) of `rows` x `columns` is `start + i * step.0 + j * step.1` elements from its
/// first.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) tensor: &'a Tensor,
    pub(super) start: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) step: (usize, usize),
    /// By which its numbers are to be multiplied.
    pub(super) scale: Option<&'a Scale>,
}

impl<'a> Matrix<'a> {
    /// A row-major tensor as a matrix of its last dimension.
    pub(super) fn of(tensor: &'a Tensor) -> Matrix<'a> {
        let (rows, columns) = rows_and_width(tensor.shape());
        Matrix { tensor, start: 0, rows, columns, step: (columns, 1), scale: None }
    }

    /// Some of the columns.
    pub(super) fn columns(self, start: usize, columns: usize) -> Matrix<'a> {
        Matrix { start: self.start + start * self.step.1, columns, ..self }
    }

    pub(super) fn transposed(self) -> Matrix<'a> {
        Matrix { rows: self.columns, columns: self.rows, step: (self.step.1, self.step.0), ..self }
    }

    fn pointer(&self) -> Pointer {
        pointer(self.tensor) + (self.start * self.tensor.dtype().size()) as u64
    }

    /// Whether its columns lie together, not its rows.
    fn lies_across(&self) -> bool {
        self.step.1 != 1 && self.step.0 == 1
    }

    /// Whether the kernels on tensor cores read it as it lies.
    fn is(&self, narrow: Narrow) -> bool {
        let start = self.tensor.layout().offset + self.start;
        self.tensor.dtype() == narrow.dtype() && self.step.1 == 1 && [self.step.0, start].iter().all(|x| x % CHUNK == 0)
    }
}

/// A matrix as products in a precision read it, made once for several of them.
pub(super) struct Operand {
    tensor: Tensor,
    rows: usize,
    columns: usize,
    /// Elements from row to row.
    row: usize,
    scale: Option<Scale>,
}

impl Operand {
    /// The matrix itself, or its elements in a narrower type.
    pub(super) fn of(op: &'static str, precision: Precision, tensor: &Tensor) -> Result<Operand> {
        let matrix = Matrix::of(tensor);
        match Narrow::of(op, precision, &device_of(op, tensor)?)? {
            Some(narrow) => Operand::narrowed(op, narrow, matrix),
            None => {
                let Matrix { rows, columns, .. } = matrix;
                Ok(Operand { tensor: tensor.clone(), rows, columns, row: columns, scale: None })
            }
        }
    }

    /// The elements in a narrower type, with rows at multiples of 16 bytes.
    fn narrowed(op: &'static str, narrow: Narrow, of: Matrix<'_>) -> Result<Operand> {
        let device = device_of(op, of.tensor)?;
        let row = of.columns.next_multiple_of(CHUNK);
        let to = fresh(op, &[of.rows, row], narrow.dtype(), &device)?;
        let Matrix { rows, columns, .. } = of;
        if narrow == Narrow::F16 && of.tensor.dtype() == DType::F32 {
            let scale = scaled(op, of.pointer(), (rows, columns), of.step, (&to, row), LIMIT)?;
            return Ok(Operand { tensor: to, rows, columns, row, scale: Some(scale) });
        }
        if row != of.columns {
            // The padding of a row is multiplied too.
            to.clear()?;
        }
        let shape = Dims::new(op, &[of.rows, of.columns])?;
        let view = |tensor: &Tensor, start: usize, step: (usize, usize)| -> Result<Tensor> {
            let layout =
                Layout { shape, strides: Dims::new(op, &[step.0, step.1])?, offset: tensor.layout().offset + start };
            Ok(Tensor::from_parts(tensor.storage().clone(), layout, tensor.dtype(), Origin::Constant))
        };
        copy(op, &view(of.tensor, of.start, of.step)?, &view(&to, 0, (row, 1))?)?;
        Ok(Operand { tensor: to, rows, columns, row, scale: of.scale.cloned() })
    }

    pub(super) fn matrix(&self) -> Matrix<'_> {
        let Operand { tensor, rows, columns, row, scale } = self;
        Matrix { tensor, start: 0, rows: *rows, columns: *columns, step: (*row, 1), scale: scale.as_ref() }
    }
}

/// The last step of a product before it is written.
#[derive(Clone, Copy)]
pub(super) enum Epilogue<'a> {
    Plain,
    Bias(&'a Tensor),
    /// GELU of the product and a bias; the pre-activation is kept in the second, where there is one.
    BiasGelu(&'a Tensor, Option<&'a Tensor>, Gelu),
    /// The product times the derivative of GELU at the pre-activation. The sums of its columns, in parts, go to the second, where
    /// there is one: on tensor cores alone.
    GeluGradient(&'a Tensor, Option<&'a Tensor>, Gelu),
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit, Zeroable)]
struct KernelEpilogue {
    bias: Pointer,
    pre_activation: Pointer,
    scale_a: Pointer,
    scale_b: Pointer,
    kind: i32,
    gelu: i32,
    add: i32,
    padding: u32,
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit, Zeroable)]
struct Product {
    c: Pointer,
    batch_c: u64,
    m: i32,
    n: i32,
    k: i32,
    row_c: i32,
    split: i32,
    padding: u32,
    column_sums: Pointer,
    epilogue: KernelEpilogue,
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct OnTensorCores {
    a: Pointer,
    b: Pointer,
    batches: [u64; 2],
    row_a: i32,
    row_b: i32,
    product: Product,
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Any {
    a: Pointer,
    b: Pointer,
    c: Pointer,
    m: i32,
    n: i32,
    k: i32,
    row_a: i32,
    column_a: i32,
    row_b: i32,
    column_b: i32,
    row_c: i32,
    batches: [u64; 3],
    epilogue: KernelEpilogue,
}

/// Computes c = a b, or adds a b to c with `add`. No other handle accesses `c`.
pub(super) fn multiply(
    op: &'static str,
    precision: Precision,
    a: Matrix<'_>,
    b: Matrix<'_>,
    c: Matrix<'_>,
    epilogue: Epilogue<'_>,
    add: bool,
) -> Result<()> {
    debug_assert!(a.columns == b.rows && a.rows == c.rows && b.columns == c.columns && c.step.1 == 1);
    let device = device_of(op, a.tensor)?;
    device_of(op, b.tensor)?;
    device_of(op, c.tensor)?;
    let (m, n, k) = (a.rows, b.columns, a.columns);
    let (kind, bias, pre_activation, column_sums, gelu) = match epilogue {
        Epilogue::Plain => (EpilogueKind::Plain, 0, 0, 0, Gelu::Erf),
        Epilogue::Bias(bias) => (EpilogueKind::Bias, pointer(bias), 0, 0, Gelu::Erf),
        Epilogue::BiasGelu(bias, kept, gelu) => {
            (EpilogueKind::BiasGelu, pointer(bias), kept.map_or(0, pointer), 0, gelu)
        }
        Epilogue::GeluGradient(u, sums, gelu) => {
            (EpilogueKind::GeluGradient, 0, pointer(u), sums.map_or(0, pointer), gelu)
        }
    };
    let epilogue = KernelEpilogue {
        bias,
        pre_activation,
        kind: kind as i32,
        gelu: Function::from(gelu) as i32,
        add: add.into(),
        ..KernelEpilogue::zeroed()
    };
    let blocks = |tile: usize| [n.div_ceil(tile), m.div_ceil(tile), 1];
    let [int_m, int_n, int_k] = [int(op, m)?, int(op, n)?, int(op, k)?];
    // If k is 0, an operand has no address from which tensor cores could fetch.
    if let Some(narrow) = Narrow::of(op, precision, &device)?.filter(|_| m * n * k > 0) {
        let is_split = kind == EpilogueKind::Plain && c.step.0 == n && m * n <= i32::MAX as usize;
        let parts = if is_split { parts(blocks(TILE), k) } else { 1 };
        let product = Product {
            c: c.pointer(),
            m: int_m,
            n: int_n,
            k: int_k,
            row_c: int(op, c.step.0)?,
            column_sums,
            epilogue,
            ..Product::zeroed()
        };
        if parts == 1 {
            return on_tensor_cores(op, narrow, a, b, product, parts);
        }
        let sums = fresh(op, &[parts, m, n], DType::F32, &device)?;
        let part = k.div_ceil(parts).next_multiple_of(SMALLEST_PART);
        let epilogue = KernelEpilogue { add: 0, ..epilogue };
        let product =
            Product { c: pointer(&sums), batch_c: (m * n) as u64, split: int(op, part)?, epilogue, ..product };
        on_tensor_cores(op, narrow, a, b, product, k.div_ceil(part))?;
        // Parts continue the sum that is there, as a product that is not split does.
        let accumulate = if add { Accumulate::Continue } else { Accumulate::Overwrite };
        return add_rows(op, &device, pointer(&sums), (k.div_ceil(part), m * n, m * n), c.pointer(), accumulate);
    }
    let arguments = Any {
        a: a.pointer(),
        b: b.pointer(),
        c: c.pointer(),
        m: int_m,
        n: int_n,
        k: int_k,
        row_a: int(op, a.step.0)?,
        column_a: int(op, a.step.1)?,
        row_b: int(op, b.step.0)?,
        column_b: int(op, b.step.1)?,
        row_c: int(op, c.step.0)?,
        batches: [0; 3],
        epilogue,
    };
    let launch = Launch::new(&device, op, "gemm_any", "gemm_any_f32").threads(THREADS).grid(blocks(TILE_ANY));
    launch.shared(SHARED_ANY).with(&arguments)
}

/// Multiplies batches of row-major matrices: a [N, m, k] and b [N, k, n] to c [N, m, n], which no other handle accesses.
pub(super) fn multiply_each(op: &'static str, precision: Precision, a: &Tensor, b: &Tensor, c: &Tensor) -> Result<()> {
    let device = device_of(op, a)?;
    device_of(op, b)?;
    let (count, m, k, n) = (a.size(0), a.size(1), a.size(2), b.size(2));
    let [int_m, int_n, int_k] = [int(op, m)?, int(op, n)?, int(op, k)?];
    let epilogue = KernelEpilogue::zeroed();
    let narrow = Narrow::of(op, precision, &device)?.filter(|_| count * m * n * k > 0);
    let operands = match narrow {
        Some(narrow) => {
            Some((narrow, Operand::narrowed(op, narrow, Matrix::of(a))?, Operand::narrowed(op, narrow, Matrix::of(b))?))
        }
        None => None,
    };
    // The third dimension of a grid is limited to 65535.
    for first in (0..count).step_by(u16::MAX.into()) {
        let products = (count - first).min(u16::MAX.into());
        let grid = |tile: usize| [n.div_ceil(tile), m.div_ceil(tile), products];
        let at = |pointer: Pointer, elements: usize, size: usize| pointer + (first * elements * size) as u64;
        let to = at(pointer(c), m * n, 4);
        let Some((narrow, of_a, of_b)) = &operands else {
            let arguments = Any {
                a: at(pointer(a), m * k, 4),
                b: at(pointer(b), k * n, 4),
                c: to,
                m: int_m,
                n: int_n,
                k: int_k,
                row_a: int_k,
                column_a: 1,
                row_b: int_n,
                column_b: 1,
                row_c: int_n,
                batches: [m * k, k * n, m * n].map(|elements| elements as u64),
                epilogue,
            };
            let launch = Launch::new(&device, op, "gemm_any", "gemm_any_f32").threads(THREADS).grid(grid(TILE_ANY));
            launch.shared(SHARED_ANY).with(&arguments)?;
            continue;
        };
        let arguments = OnTensorCores {
            a: at(pointer(&of_a.tensor), m * of_a.row, 2),
            b: at(pointer(&of_b.tensor), k * of_b.row, 2),
            batches: [(m * of_a.row) as u64, (k * of_b.row) as u64],
            row_a: int(op, of_a.row)?,
            row_b: int(op, of_b.row)?,
            product: Product {
                c: to,
                batch_c: (m * n) as u64,
                m: int_m,
                n: int_n,
                k: int_k,
                row_c: int_n,
                epilogue: KernelEpilogue {
                    scale_a: of_scale(of_a.scale.as_ref()),
                    scale_b: of_scale(of_b.scale.as_ref()),
                    ..epilogue
                },
                ..Product::zeroed()
            },
        };
        let name = match narrow {
            Narrow::Bf16 => "gemm_nn_bf16_f32",
            Narrow::F16 => "gemm_nn_f16_f32",
        };
        let launch = Launch::new(&device, op, "gemm", name).threads(THREADS).grid(grid(TILE));
        launch.shared(SHARED).with(&arguments)?;
    }
    Ok(())
}

/// Computes du = (a b) * gelu'(u), the gradient of a pre-activation, and parts of the sums of its columns if the kernel can:
/// the gradient of the bias.
pub(super) fn gelu_gradient(
    op: &'static str,
    precision: Precision,
    a: Matrix<'_>,
    b: Matrix<'_>,
    (u, gelu): (&Tensor, Gelu),
) -> Result<(Tensor, Option<Tensor>)> {
    let device = device_of(op, u)?;
    let du = fresh(op, u.shape(), DType::F32, &device)?;
    let to = Matrix::of(&du);
    let sums = match Narrow::of(op, precision, &device)? {
        Some(_) if to.rows * to.columns * a.columns > 0 => {
            Some(fresh(op, &[2 * to.rows.div_ceil(TILE), to.columns], DType::F32, &device)?)
        }
        _ => None,
    };
    multiply(op, precision, a, b, to, Epilogue::GeluGradient(u, sums.as_ref(), gelu), false)?;
    Ok((du, sums))
}

/// Returns the number of parts along k into which a product of this many blocks is split.
fn parts(blocks: [usize; 3], k: usize) -> usize {
    (ENOUGH_TILES / blocks.iter().product::<usize>().max(1)).min(k / PART).max(1)
}

/// Launches a product, or its parts, with operands in a narrow type. Operands of another type are rounded first.
fn on_tensor_cores(
    op: &'static str,
    narrow: Narrow,
    a: Matrix<'_>,
    b: Matrix<'_>,
    product: Product,
    parts: usize,
) -> Result<()> {
    // Operands may lie along k or across it; there is no kernel for an A across k and a B along it.
    let b_across = b.lies_across();
    let a_across = a.lies_across() && !b_across;
    let a = if a_across { a.transposed() } else { a };
    let b = if b_across { b.transposed() } else { b };
    let device = &device_of(op, a.tensor)?;
    let narrowed = |matrix: Matrix<'_>| match matrix.is(narrow) {
        true => Ok(None),
        false => Operand::narrowed(op, narrow, matrix).map(Some),
    };
    let (of_a, of_b) = (narrowed(a)?, narrowed(b)?);
    let (a, b) = (of_a.as_ref().map_or(a, Operand::matrix), of_b.as_ref().map_or(b, Operand::matrix));
    let (scale_a, scale_b) = (of_scale(a.scale), of_scale(b.scale));
    let product = Product { epilogue: KernelEpilogue { scale_a, scale_b, ..product.epilogue }, ..product };
    let grid = [(product.n as usize).div_ceil(TILE), (product.m as usize).div_ceil(TILE), parts];
    if narrow == Narrow::Bf16 && device.capability() == (9, 0) {
        let name = match (a_across, b_across) {
            (false, false) => "gemm_hopper_nn_bf16_f32",
            (false, true) => "gemm_hopper_nt_bf16_f32",
            _ => "gemm_hopper_tn_bf16_f32",
        };
        let map_a = TensorMap::of(op, a.pointer(), (a.rows, a.columns, a.step.0))?;
        let map_b = TensorMap::of(op, b.pointer(), (b.rows, b.columns, b.step.0))?;
        let launch = Launch::new(device, op, "gemm_hopper", name).threads(THREADS_HOPPER).grid(grid);
        return launch.shared(SHARED_HOPPER).with_all(&[bytes_of(&map_a), bytes_of(&map_b), bytes_of(&product)]);
    }
    let name = match (narrow, a_across, b_across) {
        (Narrow::Bf16, false, false) => "gemm_nn_bf16_f32",
        (Narrow::Bf16, false, true) => "gemm_nt_bf16_f32",
        (Narrow::Bf16, true, _) => "gemm_tn_bf16_f32",
        (Narrow::F16, false, false) => "gemm_nn_f16_f32",
        (Narrow::F16, false, true) => "gemm_nt_f16_f32",
        (Narrow::F16, true, _) => "gemm_tn_f16_f32",
    };
    let arguments = OnTensorCores {
        a: a.pointer(),
        b: b.pointer(),
        batches: [0; 2],
        row_a: int(op, a.step.0)?,
        row_b: int(op, b.step.0)?,
        product,
    };
    Launch::new(device, op, "gemm", name).threads(THREADS).grid(grid).shared(SHARED).with(&arguments)
}

/// Writes the sums of the columns of a matrix, whose rows lie together, as a gradient.
pub(super) fn write_column_sums(op: &'static str, of: Matrix<'_>, slot: Slot<'_>) -> Result<()> {
    let device = device_of(op, of.tensor)?;
    write_gradient(slot, |to, add| {
        let shape = (of.rows, of.step.0, of.columns);
        add_rows(op, &device, of.pointer(), shape, pointer(to), Accumulate::gradient(add))
    })
}
