//! Matrix products with an epilogue: gemm.cu and, for bf16 on sm_90a, gemm_hopper.cu on tensor cores, for
//! [`Precision::Bf16`] and [`Precision::F16`], and gemm_any.cu in f32.

use bytemuck::{NoUninit, Zeroable, bytes_of};

use super::arguments::{device_of, fresh, int, pointer};
use super::column_sums::{Rows, add_rows};
use super::operand::{Matrix, Operand};
use super::scaled::{Narrow, of_scale};
use crate::cpu::unary::Function;
use crate::cuda::{Accumulate, CudaDevice, EpilogueKind, Launch, Pointer, TensorMap};
use crate::dtype::DType;
use crate::error::Result;
use crate::gelu::Gelu;
use crate::precision::Precision;
use crate::tensor::Tensor;

/// Rows and columns of the product that a block computes: on tensor cores, and in gemm_any.cu.
const TILE: usize = 128;
const TILE_ANY: usize = 64;
const THREADS: u32 = 256;
const SHARED: usize = 4 * 2 * 128 * 32 * 2;
/// One more warp fetches operands, into a ring with barriers.
const THREADS_HOPPER: u32 = 256 + 32;
const SHARED_HOPPER: usize = 3 * (4 * 64 * 64 * 2 + 2 * 8);
const SHARED_ANY: usize = 2 * 16 * 65 * 4;

/// A product of fewer tiles than this is split along k, into parts of at least [`PART`]: the gradient of a weight is small
/// and long. The numbers follow from the shape alone, so that every GPU adds in the same order.
const ENOUGH_TILES: usize = 128;
const PART: usize = 1024;
/// Kernels advance along k in steps of 32 or 64.
const SMALLEST_PART: usize = 64;

/// The kernels of the types of operands and of the product, by how the operands lie: both along rows, B across, both across.
const F16_F32: [&str; 3] = ["gemm_nn_f16_f32", "gemm_nt_f16_f32", "gemm_tn_f16_f32"];
const BF16_F32: [&str; 3] = ["gemm_nn_bf16_f32", "gemm_nt_bf16_f32", "gemm_tn_bf16_f32"];
const BF16_BF16: [&str; 3] = ["gemm_nn_bf16_bf16", "gemm_nt_bf16_bf16", "gemm_tn_bf16_bf16"];
const HOPPER_F32: [&str; 3] = ["gemm_hopper_nn_bf16_f32", "gemm_hopper_nt_bf16_f32", "gemm_hopper_tn_bf16_f32"];
const HOPPER_BF16: [&str; 3] = ["gemm_hopper_nn_bf16_bf16", "gemm_hopper_nt_bf16_bf16", "gemm_hopper_tn_bf16_bf16"];

/// The last step of a product before it is written.
#[derive(Clone, Copy)]
pub(super) enum Epilogue<'a> {
    Plain,
    Bias(&'a Tensor),
    /// GELU of the product plus a bias. The pre-activation is written to the second tensor, if given.
    BiasGelu(&'a Tensor, Option<&'a Tensor>, Gelu),
    /// The product times the derivative of GELU at the pre-activation. Parts of its column sums are written to the second
    /// tensor, if given; only tensor cores can do that.
    GeluGradient(&'a Tensor, Option<&'a Tensor>, Gelu),
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit, Zeroable)]
pub(super) struct KernelEpilogue {
    pub(super) bias: Pointer,
    pub(super) pre_activation: Pointer,
    pub(super) scale_a: Pointer,
    pub(super) scale_b: Pointer,
    pub(super) kind: i32,
    pub(super) gelu: i32,
    pub(super) add: i32,
    pub(super) padding: u32,
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit, Zeroable)]
pub(super) struct Product {
    pub(super) c: Pointer,
    pub(super) batch_c: u64,
    pub(super) m: i32,
    pub(super) n: i32,
    pub(super) k: i32,
    pub(super) row_c: i32,
    pub(super) split: i32,
    pub(super) padding: u32,
    pub(super) column_sums: Pointer,
    pub(super) epilogue: KernelEpilogue,
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
pub(super) struct TensorCoreArguments {
    pub(super) a: Pointer,
    pub(super) b: Pointer,
    pub(super) batches: [u64; 2],
    pub(super) row_a: i32,
    pub(super) row_b: i32,
    pub(super) product: Product,
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
pub(super) struct AnyArguments {
    pub(super) a: Pointer,
    pub(super) b: Pointer,
    pub(super) c: Pointer,
    pub(super) m: i32,
    pub(super) n: i32,
    pub(super) k: i32,
    pub(super) row_a: i32,
    pub(super) column_a: i32,
    pub(super) row_b: i32,
    pub(super) column_b: i32,
    pub(super) row_c: i32,
    pub(super) batches: [u64; 3],
    pub(super) epilogue: KernelEpilogue,
}

impl TensorCoreArguments {
    /// Launches a kernel of gemm.cu for the products of a batch, or the parts of one product.
    pub(super) fn launch(&self, op: &'static str, device: &CudaDevice, name: &'static str, batch: usize) -> Result<()> {
        let grid = grid(self.product.m, self.product.n, TILE, batch);
        let launch = Launch::new(device, op, "gemm", name).threads(THREADS).grid(grid).shared(SHARED);
        let of_c = if name.ends_with("_bf16") { DType::BF16 } else { DType::F32 };
        self.product.costs(launch, batch, of_c).with(self)
    }
}

impl AnyArguments {
    /// Launches the kernel of gemm_any.cu for the products of a batch.
    pub(super) fn launch(&self, op: &'static str, device: &CudaDevice, batch: usize) -> Result<()> {
        let grid = grid(self.m, self.n, TILE_ANY, batch);
        let launch = Launch::new(device, op, "gemm_any", "gemm_any_f32").threads(THREADS).grid(grid).shared(SHARED_ANY);
        let [m, n, k] = [self.m, self.n, self.k].map(|size| size as usize);
        let bytes = 4 * batch * (m * k + n * k + m * n * self.epilogue.passes());
        launch.moves(bytes).computes(2 * batch * m * n * k).with(self)
    }
}

/// Returns the grid whose blocks compute one tile each.
fn grid(m: i32, n: i32, tile: usize, batch: usize) -> [usize; 3] {
    [(n as usize).div_ceil(tile), (m as usize).div_ceil(tile), batch]
}

impl Product {
    /// Sets the cost of a launch for `batch` products of type `of_c`, or parts of a product, of operands of two bytes per
    /// element.
    fn costs<'a>(&self, launch: Launch<'a>, batch: usize, of_c: DType) -> Launch<'a> {
        let [m, n, k, split] = [self.m, self.n, self.k, self.split].map(|size| size as usize);
        // Parts share the operands.
        let products = if split > 0 { 1 } else { batch };
        let sums = if self.column_sums > 0 { m.div_ceil(TILE) * n } else { 0 };
        let written = of_c.size() * batch * m * n * self.epilogue.passes();
        let bytes = 2 * products * (m * k + n * k) + written + 4 * sums;
        launch.moves(bytes).computes(2 * products * m * n * k)
    }
}

impl KernelEpilogue {
    /// Returns how often a matrix with the shape of the product is read or written.
    fn passes(&self) -> usize {
        1 + usize::from(self.add != 0) + usize::from(self.pre_activation != 0)
    }

    /// Returns the epilogue, and the address for column sums.
    fn new(epilogue: Epilogue<'_>, add: bool) -> (KernelEpilogue, Pointer) {
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
        let (kind, gelu, add) = (kind as i32, Function::from(gelu) as i32, add.into());
        (KernelEpilogue { bias, pre_activation, kind, gelu, add, ..KernelEpilogue::zeroed() }, column_sums)
    }
}

/// Returns whether tensor cores multiply bf16 in a precision, and also write it. Products of the empty tensors among `sizes` are
/// not theirs.
pub(super) fn is_bf16(precision: Precision, sizes: &[usize], device: &CudaDevice) -> bool {
    precision == Precision::Bf16 && device.supports(precision) && !sizes.contains(&0)
}

/// As [`is_bf16`], for the device and the sizes of these tensors.
pub(super) fn are_bf16(op: &'static str, precision: Precision, inputs: &[&Tensor]) -> bool {
    let sizes: Vec<usize> = inputs.iter().map(|input| input.elements()).collect();
    device_of(op, inputs[0]).is_ok_and(|device| is_bf16(precision, &sizes, &device))
}

/// Computes c = a b, or adds a b to c with `add`. No other handle accesses `c`. It is f32, or bf16 if [`is_bf16`].
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
    let [int_m, int_n, int_k] = [int(op, m)?, int(op, n)?, int(op, k)?];
    let (epilogue, column_sums) = KernelEpilogue::new(epilogue, add);
    // If k is 0, an operand has no address from which tensor cores could fetch.
    if let Some(narrow) = Narrow::of(op, precision, &device)?.filter(|_| m * n * k > 0) {
        let sizes = Product { m: int_m, n: int_n, k: int_k, column_sums, epilogue, ..Product::zeroed() };
        let is_plain = epilogue.kind == EpilogueKind::Plain as i32;
        let is_split = is_plain
            && c.tensor.dtype() == DType::F32
            && c.step.0 == n
            && m * n <= i32::MAX as usize
            && parts(m, n, k) > 1;
        if is_split {
            return multiply_parts(op, narrow, (a, b, c), sizes, add);
        }
        let product = Product { c: c.pointer(), row_c: int(op, c.step.0)?, ..sizes };
        return on_tensor_cores(op, narrow, (a, b), product, 1, c.tensor.dtype());
    }
    let arguments = AnyArguments {
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
    arguments.launch(op, &device, 1)
}

/// Computes a product in parts along k, and then their sum, for products with too few tiles to occupy a device.
fn multiply_parts(
    op: &'static str,
    narrow: Narrow,
    (a, b, c): (Matrix<'_>, Matrix<'_>, Matrix<'_>),
    sizes: Product,
    add: bool,
) -> Result<()> {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    let device = device_of(op, c.tensor)?;
    let part = k.div_ceil(parts(m, n, k)).next_multiple_of(SMALLEST_PART);
    let count = k.div_ceil(part);
    let sums = fresh(op, &[count, m, n], DType::F32, &device)?;
    let product = Product {
        c: pointer(&sums),
        batch_c: (m * n) as u64,
        row_c: int(op, n)?,
        split: int(op, part)?,
        epilogue: KernelEpilogue { add: 0, ..sizes.epilogue },
        ..sizes
    };
    on_tensor_cores(op, narrow, (a, b), product, count, DType::F32)?;
    // The parts continue the sum that is there, as a product that is not split does.
    let accumulate = if add { Accumulate::Continue } else { Accumulate::Overwrite };
    let parts = Rows { parts: pointer(&sums), dtype: DType::F32, count, stride: m * n, width: m * n };
    add_rows(op, &device, parts, c.pointer(), accumulate)
}

/// Returns the number of parts along k into which a product is split.
fn parts(m: usize, n: usize, k: usize) -> usize {
    let tiles = n.div_ceil(TILE) * m.div_ceil(TILE);
    (ENOUGH_TILES / tiles.max(1)).min(k / PART).max(1)
}

/// Computes du = (a b) * gelu'(u), the gradient of a pre-activation in its type, and parts of the sums of its columns if the kernel can:
/// the gradient of the bias.
pub(super) fn gelu_gradient(
    op: &'static str,
    precision: Precision,
    a: Matrix<'_>,
    b: Matrix<'_>,
    (u, gelu): (&Tensor, Gelu),
) -> Result<(Tensor, Option<Tensor>)> {
    let device = device_of(op, u)?;
    let du = fresh(op, u.shape(), u.dtype(), &device)?;
    let to = Matrix::of(&du);
    let sums = match Narrow::of(op, precision, &device)? {
        Some(_) if to.rows * to.columns * a.columns > 0 => {
            Some(fresh(op, &[to.rows.div_ceil(TILE), to.columns], DType::F32, &device)?)
        }
        _ => None,
    };
    multiply(op, precision, a, b, to, Epilogue::GeluGradient(u, sums.as_ref(), gelu), false)?;
    Ok((du, sums))
}

/// Launches a product of type `of_c`, or its parts, with operands in a narrow type. Operands of another type are rounded first.
fn on_tensor_cores(
    op: &'static str,
    narrow: Narrow,
    (a, b): (Matrix<'_>, Matrix<'_>),
    product: Product,
    parts: usize,
    of_c: DType,
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
    let layouts = match (a_across, b_across) {
        (false, false) => 0,
        (false, true) => 1,
        _ => 2,
    };
    if narrow == Narrow::Bf16 && device.capability() == (9, 0) {
        let map_a = TensorMap::of(op, a.pointer(), (a.rows, a.columns, a.step.0))?;
        let map_b = TensorMap::of(op, b.pointer(), (b.rows, b.columns, b.step.0))?;
        let grid = grid(product.m, product.n, TILE, parts);
        let names = if of_c == DType::BF16 { HOPPER_BF16 } else { HOPPER_F32 };
        let launch = Launch::new(device, op, "gemm_hopper", names[layouts]);
        let launch = launch.threads(THREADS_HOPPER).grid(grid).shared(SHARED_HOPPER);
        return product.costs(launch, parts, of_c).with_all(&[bytes_of(&map_a), bytes_of(&map_b), bytes_of(&product)]);
    }
    let names = match (narrow, of_c) {
        (Narrow::Bf16, DType::BF16) => BF16_BF16,
        (Narrow::Bf16, _) => BF16_F32,
        (Narrow::F16, _) => F16_F32,
    };
    let arguments = TensorCoreArguments {
        a: a.pointer(),
        b: b.pointer(),
        batches: [0; 2],
        row_a: int(op, a.step.0)?,
        row_b: int(op, b.step.0)?,
        product,
    };
    arguments.launch(op, device, names[layouts], parts)
}
