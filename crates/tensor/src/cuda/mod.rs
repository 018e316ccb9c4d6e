//! The CUDA backend, with the feature `cuda`.
//!
//! The kernels are our own and come compiled with `cloze-kernels`: the backend needs the NVIDIA driver, but no toolkit to
//! build and no compiler to run. Operations compute in f32. With [`Precision::Bf16`](crate::Precision) or `F16` the operands
//! of matrix products and attention are rounded to that type; sums stay in f32.
//!
//! Everything goes through one stream per device, in the order of the calls. A call returns before its work is done; reading
//! a value waits for it.
//!
//! From the bottom up:
//! - `driver`: the context, and errors of the driver in words;
//! - `pool`: memory that is kept for reuse;
//! - `work`, `staging`, `graph`: units of work, pinned memory for their inputs, and CUDA graphs of them;
//! - `stream`: enqueues work immediately or gathers it into a graph;
//! - `kernels`: compiled kernels by name;
//! - `device`: a GPU, composed of the above;
//! - `memory`, `launch`: buffers and kernel launches;
//! - `arguments`, `enumerations`, `tensor_map`, `scaled`: tensors, functions and matrices as kernels take them;
//! - the others: operations, one file per file of kernels.

mod arguments;
pub(crate) mod attention;
pub(crate) mod cross_entropy;
mod device;
mod driver;
pub(crate) mod dropout;
pub(crate) mod elementwise;
pub(crate) mod embedding;
mod enumerations;
mod graph;
mod kernels;
mod launch;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod matmul;
pub(crate) mod memory;
pub(crate) mod optimizer;
mod pool;
pub(crate) mod pooling;
pub(crate) mod scaled;
pub(crate) mod softmax;
mod staging;
mod stream;
mod tensor_map;
mod work;

use arguments::{KernelDropout, f32s, fresh, int, pointer};
pub(crate) use arguments::{coordinates, device_of};
pub use device::CudaDevice;
pub(crate) use device::open;
use driver::Pointer;
pub use graph::GraphUse;
pub(crate) use memory::DeviceBuffer;
