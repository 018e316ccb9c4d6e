//! The CUDA backend, with the feature `cuda`: the device, its memory, and launches of kernels on it. `cuda_ops` builds the
//! operations on it.
//!
//! The kernels are our own and come compiled with `cloze-kernels`: the backend needs the NVIDIA driver, but no toolkit to
//! build and no compiler to run.
//!
//! All computation goes through one stream per device, in the order of the calls. A call returns before its work is done;
//! reading a value waits for it.
//!
//! From the bottom up:
//! - `driver`: the context, and errors of the driver in words;
//! - `pool`: memory that is kept for reuse;
//! - `work`, `staging`, `graph`: units of work, pinned memory for their inputs, and CUDA graphs of them;
//! - `timing`: the time that the device takes for a unit of work;
//! - `stream`: enqueues work immediately or gathers it into a graph;
//! - `kernels`: compiled kernels by name;
//! - `device`: a GPU, composed of the above;
//! - `exchange`, `nccl`: a second stream, and the exchanges of memory with other GPUs on it;
//! - `memory`, `launch`: buffers and kernel launches;
//! - `copy`: copies between layouts and types;
//! - `enumerations`, `tensor_map`: functions and matrices as kernels take them.

pub(crate) mod copy;
mod device;
mod driver;
pub(crate) mod enumerations;
mod exchange;
mod graph;
mod kernels;
mod launch;
mod memory;
#[cfg(feature = "nccl")]
mod nccl;
mod pool;
mod staging;
mod stream;
mod tensor_map;
mod timing;
mod work;

pub use device::CudaDevice;
pub(crate) use device::{open, uuids};
pub(crate) use driver::Pointer;
pub(crate) use enumerations::{Accumulate, EpilogueKind};
pub use exchange::GpuExchange;
pub use graph::GraphUse;
pub(crate) use launch::Launch;
pub(crate) use memory::DeviceBuffer;
#[cfg(feature = "nccl")]
pub use nccl::Nccl;
pub(crate) use pool::DryPool;
pub(crate) use tensor_map::TensorMap;
