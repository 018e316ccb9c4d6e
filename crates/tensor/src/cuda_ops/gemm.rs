//! Matrix products with an epilogue: gemm.cu and, for bf16 on sm_90a, gemm_hopper.cu on tensor cores, for
//! [`Precision::Bf16`] and [`Precision::F16`], and gemm_any.cu in f32.

use bytemuck::{NoUninit, Zeroable, bytes_of};

use super::arguments::{device_of, fresh, int, pointer};
use super::column_sums::{Rows, add_rows};
use super::operand::{Matrix, Operand, Stack};
use super::scaled::{Narrow, of_scale};
use crate::cpu::unary::Function;
use crate::cuda::{Accumulate, CudaDevice, DeviceBuffer, EpilogueKind, Launch, Pointer, TensorMap};
use crate::dtype::DType;
use crate::error::Result;
use crate::gelu::Gelu;
use crate::precision::Precision;
use crate::tensor::Tensor;

/// Rows and columns of the product that a block computes: on tensor cores, and in gemm_any.cu.
pub(super) const TILE: usize = 128;
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
    /// The sums of the rows of A are written to this address, or added to what is there. See [`sums_rows`].
    RowSums(Pointer, bool),
    Bias(&'a Tensor),
    /// GELU of the product plus a bias. What its derivative is known from is written, if there is a place for it.
    BiasGelu(&'a Tensor, Option<&'a Saved>, Gelu),
    /// The product times the derivative of GELU.
    GeluGradient(&'a Saved, Gelu),
}

/// The tensor that a product with GELU saves for its backward; see `SavedOf` in epilogue.cuh.
pub(super) enum Saved {
    /// The input of GELU, for products in f32.
    Input(Tensor),
    /// The derivative in eight bits, for products in bf16.
    Slopes(DeviceBuffer),
}

impl Saved {
    /// Allocates it for the product `c`.
    pub(super) fn fresh(op: &'static str, c: &Tensor) -> Result<Saved> {
        let device = device_of(op, c)?;
        Ok(match c.dtype() {
            DType::BF16 => Saved::Slopes(device.allocate(op, c.elements())?),
            _ => Saved::Input(fresh(op, c.shape(), DType::F32, &device)?),
        })
    }

    fn pointer(&self) -> Pointer {
        match self {
            Saved::Input(u) => pointer(u),
            Saved::Slopes(slopes) => slopes.pointer(),
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit, Zeroable)]
pub(super) struct KernelEpilogue {
    pub(super) bias: Pointer,
    pub(super) saved: Pointer,
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
    pub(super) stack: [i32; 3],
    pub(super) add_sums: i32,
    pub(super) padding: u32,
    pub(super) row_sums: Pointer,
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
        let bytes = 4 * batch * (m * k + n * k) + batch * m * n * self.epilogue.bytes(DType::F32);
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
        let sums = if self.row_sums > 0 { m * (1 + usize::from(self.add_sums != 0)) } else { 0 };
        let written = batch * (m * n * self.epilogue.bytes(of_c) + 4 * sums);
        let bytes = 2 * products * (m * k + n * k) + written;
        launch.moves(bytes).computes(2 * products * m * n * k)
    }
}

impl KernelEpilogue {
    /// Returns the bytes that an element of a product of type `of_c` is written and read with.
    fn bytes(&self, of_c: DType) -> usize {
        let of_saved = if of_c == DType::BF16 { 1 } else { 4 };
        of_c.size() * (1 + usize::from(self.add != 0)) + of_saved * usize::from(self.saved != 0)
    }

    fn new(epilogue: Epilogue<'_>, add: bool) -> KernelEpilogue {
        let (kind, bias, saved, gelu) = match epilogue {
            Epilogue::Plain | Epilogue::RowSums(..) => (EpilogueKind::Plain, 0, 0, Gelu::Erf),
            Epilogue::Bias(bias) => (EpilogueKind::Bias, pointer(bias), 0, Gelu::Erf),
            Epilogue::BiasGelu(bias, saved, gelu) => {
                (EpilogueKind::BiasGelu, pointer(bias), saved.map_or(0, Saved::pointer), gelu)
            }
            Epilogue::GeluGradient(saved, gelu) => (EpilogueKind::GeluGradient, 0, saved.pointer(), gelu),
        };
        let (kind, gelu, add) = (kind as i32, Function::from(gelu) as i32, add.into());
        KernelEpilogue { bias, saved, kind, gelu, add, ..KernelEpilogue::zeroed() }
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
    let (row_sums, add_sums) = match epilogue {
        Epilogue::RowSums(to, add) => (to, add.into()),
        _ => (0, 0),
    };
    let epilogue = KernelEpilogue::new(epilogue, add);
    // If k is 0, an operand has no address from which tensor cores could fetch.
    if let Some(narrow) = Narrow::of(op, precision, &device)?.filter(|_| m * n * k > 0) {
        let stack = match b.stack.or(c.stack) {
            Some(Stack { rows, between, between_biases }) => {
                [int(op, rows)?, int(op, between)?, int(op, between_biases)?]
            }
            None => [0; 3],
        };
        let sizes = Product { m: int_m, n: int_n, k: int_k, stack, row_sums, add_sums, epilogue, ..Product::zeroed() };
        let is_plain = epilogue.kind == EpilogueKind::Plain as i32;
        let is_split = is_plain
            && c.tensor.dtype() == DType::F32
            && c.step.0 == n
            && c.stack.is_none()
            && m * (n + 1) <= i32::MAX as usize
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
    // Behind each part of the product, those of the sums of rows.
    let width = m * n + if sizes.row_sums > 0 { m } else { 0 };
    let sums = fresh(op, &[count, width], DType::F32, &device)?;
    let rows = Rows::of(&sums);
    let product = Product {
        c: pointer(&sums),
        batch_c: width as u64,
        row_c: int(op, n)?,
        split: int(op, part)?,
        row_sums: if sizes.row_sums > 0 { rows.columns(m * n, m).parts } else { 0 },
        add_sums: 0,
        epilogue: KernelEpilogue { add: 0, ..sizes.epilogue },
        ..sizes
    };
    on_tensor_cores(op, narrow, (a, b), product, count, DType::F32)?;
    // The parts continue the sum that is there, as a product that is not split does.
    let accumulate = |add| if add { Accumulate::Continue } else { Accumulate::Overwrite };
    let (to, add_sums) = (c.pointer(), sizes.add_sums != 0);
    // In the arena, a bias often starts where its weight ends.
    if sizes.row_sums == to + 4 * (m * n) as u64 && add_sums == add {
        return add_rows(op, &device, rows, to, accumulate(add));
    }
    add_rows(op, &device, rows.columns(0, m * n), to, accumulate(add))?;
    match sizes.row_sums {
        0 => Ok(()),
        to => add_rows(op, &device, rows.columns(m * n, m), to, accumulate(add_sums)),
    }
}

/// Returns the number of parts along k into which a product is split.
fn parts(m: usize, n: usize, k: usize) -> usize {
    let tiles = n.div_ceil(TILE) * m.div_ceil(TILE);
    (ENOUGH_TILES / tiles.max(1)).min(k / PART).max(1)
}

/// Returns whether a product a b can also sum the rows of a: on tensor cores, where a lies across k and b does too.
pub(super) fn sums_rows(op: &'static str, precision: Precision, a: Matrix<'_>, b: Matrix<'_>) -> Result<bool> {
    let is_across = a.lies_across() && !b.lies_across() && a.rows * a.columns * b.columns > 0;
    Ok(is_across && Narrow::of(op, precision, &device_of(op, a.tensor)?)?.is_some())
}

/// Returns whether a product of this size is computed in one piece, as that of a stack has to be.
pub(super) fn is_whole(m: usize, n: usize, k: usize) -> bool {
    parts(m, n, k) == 1
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
        let map_b = TensorMap::of(op, b.pointer(), (b.rows_of_memory(), b.columns, b.step.0))?;
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
