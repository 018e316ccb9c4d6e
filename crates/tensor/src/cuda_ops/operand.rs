//! Operands of matrix products: where they lie, and their form in a narrow type.

use super::arguments::{device_of, fresh, pointer};
use super::scaled::{Narrow, Scale, scaled};
use crate::copy::copy;
#[cfg(doc)]
use crate::cuda::DeviceBuffer;
use crate::cuda::Pointer;
use crate::dtype::DType;
use crate::error::Result;
use crate::layout::{Dims, Layout, rows_and_width};
use crate::precision::Precision;
use crate::storage::Storage;
use crate::tensor::{Origin, Tensor};

/// Rows of operands on tensor cores start at multiples of this many elements, which are 16 bytes.
const CHUNK: usize = 8;

/// The most elements of memory that is rounded as a whole.
const LARGEST: usize = u32::MAX as usize;

/// In f16, operands are scaled to below 2 to this power. Sums are in f32, so operands may use the whole range of f16.
const LIMIT: i32 = 15;

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
    /// The layers whose weights it consists of, if there are several.
    pub(super) stack: Option<Stack>,
}

/// The weights of several layers in one memory as a taller one, as `Stack` in epilogue.cuh: `rows` of each, and other rows of memory
/// between them. The biases lie apart likewise.
#[derive(Clone, Copy)]
pub(super) struct Stack {
    pub(super) rows: usize,
    pub(super) between: usize,
    /// The elements between the biases of two layers.
    pub(super) between_biases: usize,
}

impl<'a> Matrix<'a> {
    /// A row-major tensor as a matrix of its last dimension.
    pub(super) fn of(tensor: &'a Tensor) -> Matrix<'a> {
        let (rows, columns) = rows_and_width(tensor.shape());
        Matrix { tensor, start: 0, rows, columns, step: (columns, 1), scale: None, stack: None }
    }

    /// A tensor of two dimensions in any layout.
    pub(super) fn viewed(tensor: &'a Tensor) -> Matrix<'a> {
        let strides = &tensor.layout().strides;
        let (rows, columns) = (tensor.size(0), tensor.size(1));
        Matrix { tensor, start: 0, rows, columns, step: (strides[0], strides[1]), scale: None, stack: None }
    }

    /// Some of the columns.
    pub(super) fn columns(self, start: usize, columns: usize) -> Matrix<'a> {
        Matrix { start: self.start + start * self.step.1, columns, ..self }
    }

    pub(super) fn transposed(self) -> Matrix<'a> {
        Matrix { rows: self.columns, columns: self.rows, step: (self.step.1, self.step.0), ..self }
    }

    pub(super) fn pointer(&self) -> Pointer {
        pointer(self.tensor) + (self.start * self.tensor.dtype().size()) as u64
    }

    /// The layers of which the tensor is the first, as one weight.
    pub(super) fn stacked(self, layers: usize, stack: Stack) -> Matrix<'a> {
        Matrix { rows: layers * stack.rows, stack: Some(stack), ..self }
    }

    /// The rows of memory from its first to its last.
    pub(super) fn rows_of_memory(&self) -> usize {
        self.rows + self.stack.map_or(0, |stack| (self.rows / stack.rows - 1) * stack.between)
    }

    /// Whether its columns lie together, not its rows.
    pub(super) fn lies_across(&self) -> bool {
        self.step.1 != 1 && self.step.0 == 1
    }

    /// Whether the kernels on tensor cores read it as it lies.
    pub(super) fn is(&self, narrow: Narrow) -> bool {
        let start = self.tensor.layout().offset + self.start;
        self.tensor.dtype() == narrow.dtype() && self.step.1 == 1 && [self.step.0, start].iter().all(|x| x % CHUNK == 0)
    }
}

/// A matrix as products in a precision read it, made once for several of them.
pub(super) struct Operand {
    pub(super) tensor: Tensor,
    rows: usize,
    columns: usize,
    /// Elements from row to row.
    pub(super) row: usize,
    pub(super) scale: Option<Scale>,
    stack: Option<Stack>,
}

impl Operand {
    /// The matrix itself, or its elements in a narrower type.
    pub(super) fn of(op: &'static str, precision: Precision, tensor: &Tensor) -> Result<Operand> {
        let matrix = Matrix::of(tensor);
        match Narrow::of(op, precision, &device_of(op, tensor)?)? {
            Some(narrow) if !matrix.is(narrow) => Operand::narrowed(op, narrow, matrix),
            _ => {
                let Matrix { rows, columns, .. } = matrix;
                Ok(Operand { tensor: tensor.clone(), rows, columns, row: columns, scale: None, stack: None })
            }
        }
    }

    /// The matrix of a weight. In bf16, it is part of its memory's [rounded](DeviceBuffer::rounded) elements, if the memory
    /// contains parameters only.
    pub(super) fn of_weight(op: &'static str, precision: Precision, weight: &Tensor) -> Result<Operand> {
        let is_parameter = matches!(weight.0.origin, Origin::Leaf | Origin::Frozen);
        let layout = *weight.layout();
        let is_aligned = layout.is_contiguous() && [layout.offset, weight.width()].iter().all(|x| x % CHUNK == 0);
        if let Storage::Cuda(buffer) = weight.storage()
            && Narrow::of(op, precision, buffer.device())? == Some(Narrow::Bf16)
            && (is_parameter || buffer.len() == weight.elements() * DType::F32.size())
            && is_aligned
            && (1..=LARGEST).contains(&(buffer.len() / DType::F32.size()))
        {
            let rounded = Storage::Cuda(buffer.rounded(op)?);
            let tensor = Tensor::from_parts(rounded, layout, DType::BF16, Origin::Constant);
            let (rows, columns) = rows_and_width(tensor.shape());
            return Ok(Operand { tensor, rows, columns, row: columns, scale: None, stack: None });
        }
        Operand::of(op, precision, &weight.values()?)
    }

    /// The elements in a narrower type, with rows at multiples of 16 bytes.
    pub(super) fn narrowed(op: &'static str, narrow: Narrow, of: Matrix<'_>) -> Result<Operand> {
        let device = device_of(op, of.tensor)?;
        let row = of.columns.next_multiple_of(CHUNK);
        let to = fresh(op, &[of.rows, row], narrow.dtype(), &device)?;
        let Matrix { rows, columns, .. } = of;
        if narrow == Narrow::F16 && of.tensor.dtype() == DType::F32 {
            let scale = scaled(op, of.pointer(), (rows, columns), of.step, (&to, row), LIMIT)?;
            return Ok(Operand { tensor: to, rows, columns, row, scale: Some(scale), stack: None });
        }
        let view =
            |storage: &Storage, dtype: DType, offset: usize, columns: usize, step: (usize, usize)| -> Result<Tensor> {
                let (shape, strides) = (Dims::new(op, &[of.rows, columns])?, Dims::new(op, &[step.0, step.1])?);
                let layout = Layout { shape, strides, offset };
                Ok(Tensor::from_parts(storage.clone(), layout, dtype, Origin::Constant))
            };
        let place = |start: usize, columns: usize| view(to.storage(), narrow.dtype(), start, columns, (row, 1));
        if row != of.columns {
            // The padding of a row is multiplied too.
            let zero = Storage::Cuda(device.input(op, &[0u32])?);
            let zeros = view(&zero, narrow.dtype(), 0, row - of.columns, (0, 0))?;
            // SAFETY: `to`, which `place` views, was made above and is not read yet.
            unsafe { copy(op, &zeros, &place(of.columns, row - of.columns)?)? };
        }
        let source =
            view(of.tensor.storage(), of.tensor.dtype(), of.tensor.layout().offset + of.start, of.columns, of.step)?;
        let place = place(0, of.columns)?;
        // SAFETY: `to`, which `place` views, was made above and is not read yet.
        unsafe { copy(op, &source, &place)? };
        Ok(Operand { tensor: to, rows, columns, row, scale: of.scale.cloned(), stack: None })
    }

    pub(super) fn matrix(&self) -> Matrix<'_> {
        let Operand { tensor, rows, columns, row, scale, stack } = self;
        let (scale, stack) = (scale.as_ref(), *stack);
        Matrix { tensor, start: 0, rows: *rows, columns: *columns, step: (*row, 1), scale, stack }
    }

    /// The layers of which this is the first weight, as one weight.
    pub(super) fn stacked(self, layers: usize, stack: Stack) -> Operand {
        Operand { rows: layers * stack.rows, stack: Some(stack), ..self }
    }
}

#[cfg(test)]
mod tests {
    use crate::autograd::no_grad;
    use crate::conformance::normal;
    use crate::device::Device;
    use crate::error::Result;
    use crate::gradients::Gradients;
    use crate::module;
    use crate::optim::AdamWStep;
    use crate::parameters::ParameterArena;
    use crate::precision::Precision;
    use crate::tensor::Tensor;

    struct Layer {
        weight: Tensor,
        bias: Tensor,
    }
    module!(Layer { weight, bias });

    impl Layer {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            Precision::Bf16.scope(|| x.linear(&self.weight, &self.bias))
        }

        /// The output, computed from copies of the parameters, which share no memory with anything.
        fn forward_afresh(&self, x: &Tensor) -> Result<Vec<f32>> {
            let copy = |of: &Tensor| of.to_device(&Device::Cpu)?.to_device(&x.device());
            Layer { weight: copy(&self.weight)?, bias: copy(&self.bias)? }.forward(x)?.to_vec()
        }

        fn answer(&self, x: &Tensor) -> Result<Vec<f32>> {
            no_grad(|| self.forward(x))?.to_vec()
        }
    }

    fn step(arena: &ParameterArena, layer: &mut Layer, gradients: &Gradients, means: &mut [Tensor; 2]) -> Result<f64> {
        let of_step = AdamWStep { step: 1, learning_rate: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };
        arena.adamw(layer, gradients, means, None, |_| of_step)
    }

    /// Weights are rounded once and kept with their memory, so whoever writes them must write both or forget the rounded ones.
    #[test]
    fn rounded_weights_follow_their_parameters() -> Result<()> {
        let Ok(gpu) = Device::cuda(0) else { return Ok(()) };
        if !gpu.supports(Precision::Bf16) {
            return Ok(());
        }
        let on_gpu = |shape: &[usize]| normal(shape).tensor().to_dtype(crate::dtype::DType::F32)?.to_device(&gpu);
        let x = on_gpu(&[5, 16])?;
        let mut layer = Layer { weight: on_gpu(&[24, 16])?, bias: on_gpu(&[24])? };
        // Loaded weights; those of a model in training; after a step, with the rounded weights that the step wrote.
        assert_eq!(layer.answer(&x)?, layer.forward_afresh(&x)?);
        let arena = ParameterArena::gather(&mut layer, |_| true)?;
        assert_eq!(layer.answer(&x)?, layer.forward_afresh(&x)?);
        let (mut gradients, mut means) = (arena.gradients()?, [arena.zeros()?, arena.zeros()?]);
        let mut before = layer.answer(&x)?;
        for _ in 0..2 {
            gradients.clear();
            layer.forward(&x)?.sum_all()?.backward_into(&mut gradients)?;
            step(&arena, &mut layer, &gradients, &mut means)?;
            let after = layer.answer(&x)?;
            assert_ne!(after, before);
            assert_eq!(after, layer.forward_afresh(&x)?);
            before = after;
        }
        // A graph from before a step computes its gradients from the weights before it.
        let leaf = x.clone().requires_grad();
        let held = [layer.forward(&leaf)?.sum_all()?, layer.forward(&leaf)?.sum_all()?];
        let of_x = |loss: &Tensor| loss.backward()?.get(&leaf).map_or(Ok(Vec::new()), |dx| dx.to_vec::<f32>());
        let expected = of_x(&held[0])?;
        step(&arena, &mut layer, &gradients, &mut means)?;
        assert_eq!(of_x(&held[1])?, expected);
        assert_eq!(layer.answer(&x)?, layer.forward_afresh(&x)?);
        before = layer.answer(&x)?;
        drop(held);
        // Gradients that are not finite change neither form.
        let huge = layer.forward(&x)?.mul_scalar(f64::INFINITY)?.sum_all()?;
        gradients.clear();
        huge.backward_into(&mut gradients)?;
        drop(huge);
        step(&arena, &mut layer, &gradients, &mut means)?;
        assert_eq!(layer.answer(&x)?, before);
        // Other values, as when a moving average is evaluated, and the former ones again.
        let values = arena.replace(&mut layer, &arena.values()?.mul_scalar(3.0)?)?;
        assert_ne!(layer.answer(&x)?, before);
        assert_eq!(layer.answer(&x)?, layer.forward_afresh(&x)?);
        arena.replace(&mut layer, &values)?;
        assert_eq!(layer.answer(&x)?, before);
        Ok(())
    }
}
