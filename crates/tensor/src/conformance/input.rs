//! Inputs of cases: reproducible random numbers as tensors of any type.

use crate::device::Device;
use crate::dtype::DType;
use crate::random::{Purpose, Stream};
use crate::tensor::Tensor;

/// The values of a tensor, in f64.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    shape: Vec<usize>,
    values: Vec<f64>,
    is_parameter: bool,
}

/// Returns standard normal numbers, rounded to bf16 so that they are the same in all types.
pub(crate) fn normal(shape: &[usize]) -> Input {
    let seed = shape.iter().fold(17, |seed, &size| seed * 31 + size as u64);
    let mut stream = Stream::new(seed, Purpose::User, 0, 0, 0);
    let count: usize = shape.iter().product();
    let values = (0..count).map(|_| half::bf16::from_f64(stream.normal_pair()[0]).to_f64()).collect();
    Input { shape: shape.to_vec(), values, is_parameter: false }
}

/// Returns numbers of about 0.5 to 2, for functions of positive numbers.
pub(crate) fn positive(shape: &[usize]) -> Input {
    let mut input = normal(shape);
    input.values.iter_mut().for_each(|x| *x = half::bf16::from_f64(0.5 + x.abs()).to_f64());
    input
}

impl Input {
    /// Makes an input of these values, rounded to bf16.
    pub(crate) fn of(shape: &[usize], value: impl Fn(usize) -> f64) -> Input {
        let count: usize = shape.iter().product();
        let values = (0..count).map(|at| half::bf16::from_f64(value(at)).to_f64()).collect();
        Input { shape: shape.to_vec(), values, is_parameter: false }
    }

    /// Replaces the values for which `value` returns one.
    pub(crate) fn with(mut self, value: impl Fn(usize) -> Option<f64>) -> Input {
        for (at, x) in self.values.iter_mut().enumerate() {
            *x = value(at).map_or(*x, |value| half::bf16::from_f64(value).to_f64());
        }
        self
    }

    /// Makes this a parameter, such as a weight, which may be f32 beside inputs of two bytes.
    pub(crate) fn parameter(self) -> Input {
        Input { is_parameter: true, ..self }
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(crate) fn values(&self) -> &[f64] {
        &self.values
    }

    /// Multiplies by a factor, for extremes.
    pub(crate) fn scaled(mut self, factor: f64) -> Input {
        self.values.iter_mut().for_each(|x| *x = half::bf16::from_f64(*x * factor).to_f64());
        self
    }

    /// Returns other numbers of the same shape, so that two inputs of one shape are not equal.
    pub(crate) fn varied(&self, salt: usize) -> Input {
        if salt == 0 {
            return self.clone();
        }
        let mut input = self.clone();
        let count = input.values.len().max(1);
        input.values.rotate_left((salt * 7 + 1) % count);
        input
    }

    /// Returns an f64 tensor.
    pub(crate) fn tensor(&self) -> Tensor {
        Tensor::from_slice(&self.values, &self.shape, &Device::Cpu).expect("as many values as the shape says")
    }

    /// Returns a tensor of this type, or for a parameter of the second one.
    pub(crate) fn tensor_of(&self, [dtype, of_parameters]: [DType; 2]) -> Tensor {
        self.tensor().to_dtype(if self.is_parameter { of_parameters } else { dtype }).expect("a float type")
    }
}
