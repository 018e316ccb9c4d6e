//! Layers whose weights lie equally far apart in one memory, as those of queries, keys and values do in the arena: so three products
//! with them become one, of a [`Stack`].

use std::sync::Arc;

use super::gemm::TILE;
use super::operand::Stack;
use crate::storage::Storage;
use crate::tensor::Tensor;

/// Returns the stack of several layers, given weights [outputs, inputs] and biases: parameters or their gradients, row-major. `None` if
/// they do not lie equally far apart, or kernels could not step over what lies between them.
pub(super) fn stack_of(weights: &[&Tensor], biases: &[&Tensor]) -> Option<Stack> {
    let (step, step_of_biases) = (step_of(weights)?, step_of(biases)?);
    let &[rows, inputs] = weights.first()?.shape() else { return None };
    let between = step.checked_sub(rows * inputs)?;
    // A tile of a product belongs to one layer.
    let is_stack = rows.is_multiple_of(TILE) && rows * inputs > 0 && between.is_multiple_of(inputs);
    let between_biases = step_of_biases.checked_sub(rows)?;
    is_stack.then(|| Stack { rows, between: between / inputs, between_biases })
}

/// Returns the elements from one row-major tensor to the next, if several of one shape lie equally far apart in one memory.
fn step_of(tensors: &[&Tensor]) -> Option<usize> {
    let [first, second, ..] = tensors else { return None };
    let start = first.layout().offset;
    let step = second.layout().offset.checked_sub(start)?;
    let is_next = |(index, tensor): (usize, &&Tensor)| {
        let is_there = match (first.storage(), tensor.storage()) {
            (Storage::Cuda(memory), Storage::Cuda(of_tensor)) => Arc::ptr_eq(memory, of_tensor),
            _ => false,
        };
        let layout = tensor.layout();
        is_there
            && tensor.dtype() == first.dtype()
            && layout.is_contiguous()
            && tensor.shape() == first.shape()
            && layout.offset == start + index * step
    };
    tensors.iter().enumerate().all(is_next).then_some(step)
}

#[cfg(test)]
mod tests {
    use crate::conformance::normal;
    use crate::device::Device;
    use crate::dtype::DType;
    use crate::error::Result;
    use crate::gradients::Gradients;
    use crate::module;
    use crate::parameters::ParameterArena;
    use crate::precision::Precision;
    use crate::profile::profile;
    use crate::tensor::Tensor;

    struct Layer {
        weight: Tensor,
        bias: Tensor,
    }
    module!(Layer { weight, bias });

    /// The output, the gradients of the parameters, that of the input, and the number of products, of two passes that add up.
    struct Passes {
        output: Vec<f32>,
        parameters: Vec<f32>,
        of_x: Vec<f32>,
        products: usize,
    }

    fn passes(layers: &[Layer], x: &Tensor, dy: &Tensor, mut gradients: Gradients) -> Result<Passes> {
        let parameters: Vec<(&Tensor, &Tensor)> = layers.iter().map(|layer| (&layer.weight, &layer.bias)).collect();
        let x = x.clone().requires_grad();
        let (output, profile) = profile(|| -> Result<Tensor> {
            let output = Precision::Bf16.scope(|| x.projections(&parameters))?;
            output.backward_with(dy, &mut gradients)?;
            Precision::Bf16.scope(|| x.projections(&parameters))?.backward_with(dy, &mut gradients)?;
            Ok(output)
        });
        let values = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.to_vec::<f32>();
        let gradient = |leaf: &Tensor| gradients.get(leaf).map_or(Ok(Vec::new()), |gradient| values(&gradient));
        let of_parameters = parameters.iter().flat_map(|&(weight, bias)| [weight, bias]).map(gradient);
        let products =
            profile.kernels().iter().filter(|kernel| kernel.name.starts_with("gemm")).map(|k| k.launches).sum();
        Ok(Passes {
            output: values(&output?)?,
            parameters: of_parameters.collect::<Result<Vec<_>>>()?.concat(),
            of_x: gradient(&x)?,
            products,
        })
    }

    #[test]
    fn layers_in_an_arena_are_multiplied_as_one_on_a_gpu() -> Result<()> {
        let Ok(gpu) = Device::cuda(0) else { return Ok(()) };
        if !gpu.supports(Precision::Bf16) {
            return Ok(());
        }
        let of = |shape: &[usize], dtype| normal(shape).tensor().to_dtype(dtype)?.to_device(&gpu);
        let layer = |salt: f64| -> Result<Layer> {
            let salted = |shape: &[usize]| of(shape, DType::F32)?.mul_scalar(salt)?.add_scalar(salt - 1.0);
            Ok(Layer { weight: salted(&[128, 16])?.requires_grad(), bias: salted(&[128])?.requires_grad() })
        };
        let mut layers = [1.0, 0.8, -0.7].map(layer).into_iter().collect::<Result<Vec<_>>>()?;
        let (x, dy) = (of(&[70, 16], DType::BF16)?, of(&[70, 3 * 128], DType::BF16)?);
        let apart = passes(&layers, &x, &dy, Gradients::new())?;
        let arena = ParameterArena::gather(&mut layers, |_| true)?;
        let together = passes(&layers, &x, &dy, arena.gradients()?)?;
        assert_eq!((apart.products, together.products), (18, 6));
        assert!(together.output == apart.output && together.parameters == apart.parameters);
        // A sum over all outputs, instead of three that are rounded.
        let largest = apart.of_x.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        let worst = apart.of_x.iter().zip(&together.of_x).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(together.of_x.len() == 70 * 16 && worst < 1e-2 * largest, "{worst} of {largest}");
        Ok(())
    }
}
