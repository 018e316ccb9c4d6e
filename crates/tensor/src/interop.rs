//! Conversion from and to `ndarray` arrays.

use ndarray::{Array, ArrayD, Dimension, IxDyn};

use crate::device::Device;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Copies an array of any layout and at most six dimensions to a CPU tensor.
impl<T: Element, D: Dimension> TryFrom<&Array<T, D>> for Tensor {
    type Error = Error;

    fn try_from(array: &Array<T, D>) -> Result<Tensor> {
        Tensor::from_vec(array.iter().copied().collect(), array.shape(), &Device::Cpu)
    }
}

/// Copies an array, like the conversion from a reference.
impl<T: Element, D: Dimension> TryFrom<Array<T, D>> for Tensor {
    type Error = Error;

    fn try_from(array: Array<T, D>) -> Result<Tensor> {
        Tensor::try_from(&array)
    }
}

/// Copies a tensor with element type `T` to an array.
impl<T: Element> TryFrom<&Tensor> for ArrayD<T> {
    type Error = Error;

    fn try_from(tensor: &Tensor) -> Result<ArrayD<T>> {
        ArrayD::from_shape_vec(IxDyn(tensor.shape()), tensor.to_vec()?)
            .map_err(|error| Error::invalid("ndarray", error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn there_and_back_in_any_layout() -> Result<()> {
        let array = array![[1f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
        let transposed = array.clone().reversed_axes();
        let tensor = Tensor::try_from(&transposed)?;
        assert_eq!(tensor.shape(), [3, 2]);
        assert_eq!(tensor.to_vec::<f32>()?, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(ArrayD::<f32>::try_from(&tensor.t()?)?, array.into_dyn());
        assert!(ArrayD::<f64>::try_from(&tensor).is_err());
        Ok(())
    }
}
