//! Rust types that can be tensor elements, and Rust values that can become tensors.

use bytemuck::Pod;
use half::{bf16, f16};

use crate::dtype::DType;
use crate::error::{Error, ErrorKind};

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that tensors can have as elements.
pub trait Element: Pod + Send + Sync + sealed::Sealed {
    /// The [`DType`] of tensors with these elements.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($type:ty => $dtype:ident),* $(,)?) => {$(
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: DType = DType::$dtype;
        }
        impl TensorData for $type {
            type Element = $type;

            fn shape(&self) -> Vec<usize> {
                Vec::new()
            }

            fn collect_into(&self, elements: &mut Vec<$type>) {
                elements.push(*self);
            }
        }
    )*};
}
elements!(f32 => F32, f64 => F64, bf16 => BF16, f16 => F16, u32 => U32, i64 => I64);

/// Numbers, and nested arrays, slices and vectors of numbers, for [`Tensor::new`](crate::Tensor::new).
pub trait TensorData {
    /// The element type.
    type Element: Element;

    /// Returns the shape, outermost dimension first.
    fn shape(&self) -> Vec<usize>;

    /// Appends the elements in row-major order.
    fn collect_into(&self, elements: &mut Vec<Self::Element>);
}

impl<T: Element> TensorData for [T] {
    type Element = T;

    fn shape(&self) -> Vec<usize> {
        vec![self.len()]
    }

    fn collect_into(&self, elements: &mut Vec<T>) {
        elements.extend_from_slice(self);
    }
}

impl<T: Element> TensorData for Vec<T> {
    type Element = T;

    fn shape(&self) -> Vec<usize> {
        self.as_slice().shape()
    }

    fn collect_into(&self, elements: &mut Vec<T>) {
        self.as_slice().collect_into(elements);
    }
}

impl<T: TensorData, const N: usize> TensorData for [T; N] {
    type Element = T::Element;

    fn shape(&self) -> Vec<usize> {
        let inner = self.first().map(T::shape).unwrap_or_default();
        [&[N], inner.as_slice()].concat()
    }

    fn collect_into(&self, elements: &mut Vec<T::Element>) {
        self.iter().for_each(|item| item.collect_into(elements));
    }
}

impl<T: TensorData + ?Sized> TensorData for &T {
    type Element = T::Element;

    fn shape(&self) -> Vec<usize> {
        (**self).shape()
    }

    fn collect_into(&self, elements: &mut Vec<T::Element>) {
        (**self).collect_into(elements);
    }
}

pub(crate) fn wrong_dtype(op: &'static str, operand: &'static str, found: DType, expected: &str) -> Error {
    ErrorKind::DType { op, operand, found, expected: expected.to_string() }.into()
}

/// Runs `$body` with `$T` as the Rust type of a dtype that the CPU computes in: f32 or f64.
macro_rules! float {
    ($op:expr, $dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::DType::F64 => {
                type $T = f64;
                $body
            }
            other => return Err($crate::element::wrong_dtype($op, "tensor", other, "f32 or f64")),
        }
    };
}
pub(crate) use float;

/// Runs `$body` with `$T` as the Rust type of any dtype.
macro_rules! element {
    ($op:expr, $dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::DType::BF16 => {
                type $T = half::bf16;
                $body
            }
            $crate::DType::F16 => {
                type $T = half::f16;
                $body
            }
            $crate::DType::U32 => {
                type $T = u32;
                $body
            }
            $crate::DType::I64 => {
                type $T = i64;
                $body
            }
            dtype => $crate::element::float!($op, dtype, $T => $body),
        }
    };
}
pub(crate) use element;
