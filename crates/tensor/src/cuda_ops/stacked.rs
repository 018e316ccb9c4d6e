//! Tensors that lie equally far apart in one memory, as one tensor: the weights of queries, keys and values in the arena, and
//! their gradients. So three products with them become one.

use std::sync::Arc;

use super::operand::Operand;
use crate::dtype::DType;
use crate::error::Result;
use crate::layout::{Dims, Layout};
use crate::precision::Precision;
use crate::storage::Storage;
use crate::tensor::{Origin, Tensor};

/// Returns a view of several row-major tensors of one shape, [tensors, ..], if they lie equally far apart in one memory.
pub(super) fn stacked(op: &'static str, tensors: &[&Tensor]) -> Result<Option<Tensor>> {
    let [first, second, ..] = tensors else { return Ok(None) };
    let layout = first.layout();
    let step = second.layout().offset.saturating_sub(layout.offset);
    let is_next = |(index, tensor): (usize, &&Tensor)| {
        let of_tensor = tensor.layout();
        let is_there = match (first.storage(), tensor.storage()) {
            (Storage::Cuda(memory), Storage::Cuda(of_tensor)) => Arc::ptr_eq(memory, of_tensor),
            _ => false,
        };
        is_there
            && tensor.dtype() == first.dtype()
            && of_tensor.is_contiguous()
            && tensor.shape() == first.shape()
            && of_tensor.offset == layout.offset + index * step
    };
    if step < first.elements() || !tensors.iter().enumerate().all(is_next) {
        return Ok(None);
    }
    let shape = Dims::new(op, &[&[tensors.len()], first.shape()].concat())?;
    let strides = Dims::new(op, &[&[step], &layout.strides[..]].concat())?;
    let layout = Layout { shape, strides, offset: layout.offset };
    Ok(Some(Tensor::from_parts(first.storage().clone(), layout, first.dtype(), Origin::Constant)))
}

/// Copies the weights, in bf16, and the biases of several layers into those of one layer, if they can be copied at once.
pub(super) fn as_one_layer(
    op: &'static str,
    weights: &[Operand],
    biases: &[Tensor],
) -> Result<Option<(Operand, Tensor)>> {
    if weights.iter().any(|weight| weight.tensor.dtype() != DType::BF16) {
        return Ok(None);
    }
    let of_weights = stacked(op, &weights.iter().map(|weight| &weight.tensor).collect::<Vec<_>>())?;
    let of_biases = stacked(op, &biases.iter().collect::<Vec<_>>())?;
    let (Some(of_weights), Some(of_biases)) = (of_weights, of_biases) else { return Ok(None) };
    let &[layers, outputs, inputs] = of_weights.shape() else { return Ok(None) };
    let weight = of_weights.copied()?.reshape(&[layers * outputs, inputs])?;
    let bias = of_biases.copied()?.reshape(&[layers * outputs])?;
    Ok(Some((Operand::of(op, Precision::Bf16, &weight)?, bias)))
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
            Ok(Layer { weight: salted(&[24, 16])?.requires_grad(), bias: salted(&[24])?.requires_grad() })
        };
        let mut layers = [1.0, 0.8, -0.7].map(layer).into_iter().collect::<Result<Vec<_>>>()?;
        let (x, dy) = (of(&[70, 16], DType::BF16)?, of(&[70, 72], DType::BF16)?);
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
