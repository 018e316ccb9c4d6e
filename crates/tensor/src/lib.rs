//! Tensors, autograd and CPU kernels of cloze.

pub(crate) mod cpu;
mod dropout;
mod dtype;
mod error;
pub mod random;

pub use dropout::{Dropout, RowCoordinate};
pub use dtype::DType;
pub use error::{Error, ErrorKind, Inside, Result};
