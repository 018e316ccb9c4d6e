//! Inputs of cases: reproducible random numbers, as tensors of any type and layout.

use crate::random::{Purpose, Stream};
use crate::{DType, Device, Tensor};

/// Numbers of a shape.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    shape: Vec<usize>,
    values: Vec<f64>,
}

/// Standard normal numbers, rounded to what bf16 holds, so that all types start from the same values.
pub(crate) fn normal(shape: &[usize]) -> Input {
    let seed = shape.iter().fold(17, |seed, &size| seed * 31 + size as u64);
    let mut stream = Stream::new(seed, Purpose::User, 0, 0, 0);
    let count: usize = shape.iter().product();
    let values = (0..count).map(|_| half::bf16::from_f64(stream.normal_pair()[0]).to_f64()).collect();
    Input { shape: shape.to_vec(), values }
}

/// Numbers in [0.5, 2] or so, for functions that need positive ones.
pub(crate) fn positive(shape: &[usize]) -> Input {
    let mut input = normal(shape);
    input.values.iter_mut().for_each(|x| *x = half::bf16::from_f64(0.5 + x.abs()).to_f64());
    input
}

impl Input {
    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(crate) fn values(&self) -> &[f64] {
        &self.values
    }

    /// Times a factor, for extremes.
    pub(crate) fn scaled(mut self, factor: f64) -> Input {
        self.values.iter_mut().for_each(|x| *x = half::bf16::from_f64(*x * factor).to_f64());
        self
    }

    /// With one value changed.
    pub(crate) fn nudged(&self, index: usize, by: f64) -> Input {
        let mut input = self.clone();
        input.values[index] += by;
        input
    }

    /// Other numbers of the same shape: two inputs of one shape must not be equal by chance.
    pub(crate) fn varied(&self, salt: usize) -> Input {
        if salt == 0 {
            return self.clone();
        }
        let mut input = self.clone();
        let count = input.values.len().max(1);
        input.values.rotate_left((salt * 7 + 1) % count);
        input
    }

    /// As an f64 tensor.
    pub(crate) fn tensor(&self) -> Tensor {
        Tensor::from_slice(&self.values, &self.shape, &Device::Cpu).expect("as many values as the shape says")
    }

    pub(crate) fn tensor_of(&self, dtype: DType) -> Tensor {
        self.tensor().to_dtype(dtype).expect("a float type")
    }
}
