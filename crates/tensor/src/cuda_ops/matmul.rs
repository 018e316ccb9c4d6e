//! Matrix products of two tensors, or of batches of them: gemm.cu on tensor cores, gemm_any.cu in f32.

use std::ops::Range;

use bytemuck::Zeroable;

use super::arguments::{check_f32, device_of, fresh, int, pointer, write_gradient};
use super::gemm::{AnyArguments, Epilogue, KernelEpilogue, Product, TensorCoreArguments, are_bf16, multiply};
use super::operand::{Matrix, Operand};
use super::scaled::{Narrow, of_scale};
use crate::cuda::Pointer;
use crate::dispatch::TensorOp;
use crate::dispatch::gpu::{CudaOp, GpuOutput};
use crate::dtype::DType;
use crate::error::Result;
use crate::layout::Layout;
use crate::ops::matmul::MatMul;
use crate::precision::Precision;
use crate::tensor::Tensor;

impl CudaOp for MatMul {
    type Arity = [(); 2];

    fn reads_bf16(&self, inputs: &[&Tensor]) -> bool {
        inputs.iter().all(|input| input.rank() == 2) && are_bf16(self.name(), self.precision, inputs)
    }

    fn forward(&self, [a, b]: [&Tensor; 2], _: bool) -> Result<GpuOutput> {
        let (op, precision, rank) = (self.name(), self.precision, self.batch.len());
        let of = self.operands([a, b])?;
        let [m, k, n] = of.sizes;
        if a.dtype() == DType::BF16 {
            return in_bf16(op, a, b);
        }
        check_f32(op, &[a, b])?;
        let output = fresh(op, &self.whole(m, n), DType::F32, &device_of(op, a)?)?;
        let count: usize = self.batch.iter().product();
        if count == 1 {
            let matrix = |tensor, layout: &Layout, rows, columns| {
                let step = (layout.strides[rank], layout.strides[rank + 1]);
                Matrix { tensor, start: 0, rows, columns, step, scale: None, stack: None }
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

/// Multiplies a matrix in bf16 with one in f32, such as a weight. The product is bf16, and each gradient has the type of its operand.
fn in_bf16(op: &'static str, a: &Tensor, b: &Tensor) -> Result<GpuOutput> {
    fn multiply_bf16(op: &'static str, a: Matrix<'_>, b: Matrix<'_>, to: &Tensor, add: bool) -> Result<()> {
        multiply(op, Precision::Bf16, a, b, Matrix::of(to), Epilogue::Plain, add)
    }
    let output = fresh(op, &[a.size(0), b.size(1)], DType::BF16, &device_of(op, a)?)?;
    let (a, b) = (a.detach(), b.detach());
    multiply_bf16(op, Matrix::viewed(&a), Matrix::viewed(&b), &output, false)?;
    Ok(GpuOutput::new(output, move |dy, [da, db]| {
        let dy = Matrix::viewed(&dy);
        write_gradient(da, |da, add| multiply_bf16(op, dy, Matrix::viewed(&b).transposed(), da, add))?;
        write_gradient(db, |db, add| multiply_bf16(op, Matrix::viewed(&a).transposed(), dy, db, add))
    }))
}

/// The largest third dimension of a grid: matrices that one launch multiplies.
const LARGEST_BATCH: usize = 65535;

/// Multiplies batches of row-major matrices: a [N, m, k] and b [N, k, n] to c [N, m, n], which no other handle accesses.
fn multiply_each(op: &'static str, precision: Precision, a: &Tensor, b: &Tensor, c: &Tensor) -> Result<()> {
    let device = device_of(op, a)?;
    device_of(op, b)?;
    let is_empty = c.elements() * a.width() == 0;
    let operands = match Narrow::of(op, precision, &device)?.filter(|_| !is_empty) {
        Some(narrow) => {
            let rounded = |tensor| Operand::narrowed(op, narrow, Matrix::of(tensor));
            Some((narrow, rounded(a)?, rounded(b)?))
        }
        None => None,
    };
    // `c` may have several leading dimensions, which `a` has as one.
    for first in (0..a.size(0)).step_by(LARGEST_BATCH) {
        let batch = first..a.size(0).min(first + LARGEST_BATCH);
        match &operands {
            Some((narrow, of_a, of_b)) => on_tensor_cores(op, *narrow, [of_a, of_b], [a, b, c], batch)?,
            None => in_f32(op, [a, b, c], batch)?,
        }
    }
    Ok(())
}

/// The address of the matrix with this index in a row-major batch, whose matrices have `elements` elements of `size` bytes.
fn at(tensor: &Tensor, index: usize, elements: usize, size: usize) -> Pointer {
    pointer(tensor) + (index * elements * size) as u64
}

fn on_tensor_cores(
    op: &'static str,
    narrow: Narrow,
    [of_a, of_b]: [&Operand; 2],
    [a, b, c]: [&Tensor; 3],
    batch: Range<usize>,
) -> Result<()> {
    let (m, k, n) = (a.size(1), a.size(2), b.size(2));
    let epilogue = KernelEpilogue {
        scale_a: of_scale(of_a.scale.as_ref()),
        scale_b: of_scale(of_b.scale.as_ref()),
        ..KernelEpilogue::zeroed()
    };
    let arguments = TensorCoreArguments {
        a: at(&of_a.tensor, batch.start, m * of_a.row, 2),
        b: at(&of_b.tensor, batch.start, k * of_b.row, 2),
        batches: [(m * of_a.row) as u64, (k * of_b.row) as u64],
        row_a: int(op, of_a.row)?,
        row_b: int(op, of_b.row)?,
        product: Product {
            c: at(c, batch.start, m * n, 4),
            batch_c: (m * n) as u64,
            m: int(op, m)?,
            n: int(op, n)?,
            k: int(op, k)?,
            row_c: int(op, n)?,
            epilogue,
            ..Product::zeroed()
        },
    };
    let name = match narrow {
        Narrow::Bf16 => "gemm_nn_bf16_f32",
        Narrow::F16 => "gemm_nn_f16_f32",
    };
    arguments.launch(op, &device_of(op, a)?, name, batch.len())
}

fn in_f32(op: &'static str, [a, b, c]: [&Tensor; 3], batch: Range<usize>) -> Result<()> {
    let (m, k, n) = (a.size(1), a.size(2), b.size(2));
    let arguments = AnyArguments {
        a: at(a, batch.start, m * k, 4),
        b: at(b, batch.start, k * n, 4),
        c: at(c, batch.start, m * n, 4),
        m: int(op, m)?,
        n: int(op, n)?,
        k: int(op, k)?,
        row_a: int(op, k)?,
        column_a: 1,
        row_b: int(op, n)?,
        column_b: 1,
        row_c: int(op, n)?,
        batches: [m * k, k * n, m * n].map(|elements| elements as u64),
        epilogue: KernelEpilogue::zeroed(),
    };
    arguments.launch(op, &device_of(op, a)?, batch.len())
}
