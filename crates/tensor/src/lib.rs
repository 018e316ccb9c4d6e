//! Tensors, autograd and CPU kernels of [cloze](https://docs.rs/cloze), a BERT library.
//!
//! - [`Tensor`]: a cheap handle, with a run-time [`DType`] and [`Device`]. Every operation returns a
//!   [`Result`]; user input never panics.
//! - [`Gradients`]: what [`Tensor::backward`] gives, or [`Tensor::backward_into`] fills. Gradients are a
//!   value; tensors hide none.
//! - [`Module`] and [`ParameterArena`]: named parameters, and the flat buffer they live in while a model
//!   trains.
//! - [`random`]: one counter-based generator for everything random, so that results depend neither on
//!   the number of threads nor on how sequences are packed.
//!
//! ```
//! use cloze_tensor::{Device, Tensor};
//! let device = Device::Cpu;
//! let h = Tensor::new(&[0.2f32, 0.1, 0.4], &device)?.requires_grad();
//! let w = Tensor::new(&[[0.5f32, -0.3, 0.1], [-0.2, 0.4, 0.6]], &device)?.requires_grad();
//! let loss = w.matmul(&h)?.cross_entropy(&[1])?;
//! assert!((loss.item()? - 0.6302582).abs() < 1e-6);
//! let gradients = loss.backward()?;
//! let dh = gradients.get(&h).expect("h requires a gradient").to_vec::<f32>()?;
//! assert!((dh[0] - 0.3273).abs() < 1e-4);
//! # Ok::<(), cloze_tensor::Error>(())
//! ```

mod autograd;
#[cfg(test)]
mod conformance;
mod copy;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod cuda_ops;
mod device;
mod dispatch;
mod dropout;
mod dtype;
mod element;
mod error;
mod files;
mod finite;
mod gelu;
mod gradcheck;
mod gradients;
#[cfg(feature = "ndarray")]
mod interop;
mod layout;
mod memory;
mod module;
#[doc(hidden)]
pub mod nearest;
mod ops;
pub mod optim;
mod parameters;
mod precision;
mod profile;
pub mod random;
mod sequences;
mod storage;
mod tensor;
mod watch;

pub use autograd::no_grad;
#[cfg(feature = "nccl")]
pub use cuda::Nccl;
#[cfg(feature = "cuda")]
pub use cuda::{CudaDevice, GpuExchange, GraphUse};
pub use device::Device;
pub use dropout::{Dropout, RowCoordinate};
pub use dtype::DType;
pub use element::{Element, TensorData};
#[doc(hidden)]
pub use error::OneLine;
pub use error::{Error, ErrorKind, Inside, Result};
pub use files::{TensorFile, save_safetensors};
#[doc(hidden)]
pub use files::{
    claim_abandoned, create_claimed, create_folders, entries, exists, metadata, remove_all_abandoned, replace_with,
    retry, sync_directory, try_lock, write_file_atomically,
};
pub use finite::check_finite;
pub use gelu::Gelu;
pub use gradcheck::check_gradients;
pub use gradients::{FinalGradients, Gradients};
pub use layout::MAX_RANK;
pub use memory::{DryRun, MemoryUse};
pub use module::Module;
#[doc(hidden)]
pub use module::join_name;
pub use ops::{CrossEntropy, EmbeddingIds, Pooling, Reduction, custom_op, recompute};
pub use parameters::{ParameterArena, ParameterRange};
pub use precision::Precision;
#[cfg(feature = "cuda")]
pub use profile::profile_kernels;
pub use profile::{GpuCost, KernelUse, OperationTime, Pass, Profile, profile};
pub use sequences::Sequences;
pub use tensor::Tensor;

/// Whether this crate was compiled with optimisation, without which it is many times slower.
#[doc(hidden)]
pub const IS_OPTIMIZED: bool = !cfg!(unoptimized);
