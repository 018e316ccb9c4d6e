//! The devices that tensors are on.

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "cuda")]
use crate::cuda::CudaDevice;
use crate::error::{Error, Result};
use crate::memory::{self, MemoryUse};
use crate::module::Module;
use crate::precision::Precision;

/// A device that holds tensors and runs operations.
///
/// [`Device::from_str`] parses the names `cpu`, `cuda` (the first GPU), `cuda:1`, and `auto`, a GPU if one is available.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Device {
    /// The CPU, with as many threads as rayon's global thread pool.
    #[default]
    Cpu,
    /// An NVIDIA GPU, with the feature `cuda`.
    #[cfg(feature = "cuda")]
    Cuda(CudaDevice),
}

impl Device {
    /// Opens GPU number `index`, from 0.
    ///
    /// # Errors
    /// Returns an error without the feature `cuda`, if the driver is missing or too old, if the GPU does not exist, and if it
    /// has an architecture without kernels.
    #[cfg(not(feature = "cuda"))]
    pub fn cuda(index: usize) -> Result<Device> {
        Err(Error::device("cuda", format!("cannot open cuda:{index}: this was built without the feature `cuda`")))
    }

    /// Returns the UUIDs of the GPUs that this process can see, in the order of their numbers: none without the feature
    /// `cuda`, without a driver and without a GPU.
    pub fn gpu_uuids() -> Vec<[u8; 16]> {
        #[cfg(feature = "cuda")]
        return crate::cuda::uuids();
        #[cfg(not(feature = "cuda"))]
        Vec::new()
    }

    /// Returns the first GPU if it can be opened, otherwise the CPU.
    pub fn auto() -> Device {
        Device::cuda(0).unwrap_or(Device::Cpu)
    }

    /// Returns whether this is the CPU.
    pub fn is_cpu(&self) -> bool {
        matches!(self, Device::Cpu)
    }

    /// Returns whether the device supports matrix products in `precision`. GPUs before sm_80 do not support bf16.
    pub fn supports(&self, precision: Precision) -> bool {
        match (self, precision) {
            (Device::Cpu, _) => true,
            #[cfg(feature = "cuda")]
            (Device::Cuda(device), precision) => device.supports(precision),
        }
    }

    /// Runs `work` and gathers its kernel launches on a GPU into a CUDA graph, which is launched as a whole when values are
    /// read back and when `work` ends. That costs less than the individual launches. A later graph with the same kernels in
    /// the same order, such as the one of the next training step, reuses this one with other arguments. The results are the
    /// same as without a graph. Launches of other threads on the same GPU become part of the graph, too. On the CPU, `work`
    /// just runs.
    ///
    /// ```
    /// # use cloze_tensor::{Device, Tensor};
    /// let device = Device::auto();
    /// let sum = device.as_graph(|| Tensor::new([1f32, 2.0], &device)?.exp()?.sum_all())??;
    /// assert_eq!(sum.item()?, f64::from(1f32.exp() + 2f32.exp()));
    /// # Ok::<(), cloze_tensor::Error>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error if the driver rejects the graph.
    pub fn as_graph<R>(&self, work: impl FnOnce() -> R) -> Result<R> {
        match self {
            Device::Cpu => Ok(work()),
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => device.as_graph(work),
        }
    }

    /// Returns how much memory the tensors of this process take on the device. Mapped files do not count.
    pub fn memory_use(&self) -> MemoryUse {
        match self {
            Device::Cpu => memory::host_memory(),
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => device.memory_use(),
        }
    }

    /// Returns the memory that a GPU has left for tensors, in bytes, with the blocks that this process keeps for reuse. Returns
    /// `None` for the CPU, whose memory is the system's, and if the driver does not say.
    pub fn free_memory(&self) -> Option<usize> {
        match self {
            Device::Cpu => None,
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => device.free_memory(),
        }
    }

    /// Returns how much memory the parameters of `model` take on the device. Mapped files do not count.
    pub fn memory_of(&self, model: &impl Module) -> usize {
        memory::bytes_of(model, self)
    }

    /// Waits until the device has finished all launched work. Only needed for timing: reading a value back synchronises
    /// automatically.
    ///
    /// # Errors
    /// Returns an error if a kernel failed.
    pub fn synchronize(&self) -> Result<()> {
        match self {
            Device::Cpu => Ok(()),
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => device.synchronize(),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    /// Opens the device with this name.
    ///
    /// # Errors
    /// Returns an error if the name is not `cpu`, `cuda`, `cuda:N` or `auto`, and as [`Device::cuda`] does.
    fn from_str(name: &str) -> Result<Device> {
        let unknown =
            || Error::invalid("device", format!("unknown device `{name}`: use cpu, cuda, cuda:N (N from 0) or auto"));
        match name {
            "cpu" => Ok(Device::Cpu),
            "auto" => Ok(Device::auto()),
            "cuda" => Device::cuda(0),
            _ => Device::cuda(name.strip_prefix("cuda:").and_then(|index| index.parse().ok()).ok_or_else(unknown)?),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => write!(f, "cuda:{}", device.index()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        assert_eq!("cpu".parse::<Device>().expect("the CPU is always available").to_string(), "cpu");
        for name in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU"] {
            let error = name.parse::<Device>().expect_err("not a device").to_string();
            assert_eq!(error, format!("device: unknown device `{name}`: use cpu, cuda, cuda:N (N from 0) or auto"));
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn without_the_feature_there_is_no_gpu() {
        let error = Device::cuda(1).expect_err("no feature").to_string();
        assert_eq!(error, "cuda: cannot open cuda:1: this was built without the feature `cuda`");
        assert!(Device::auto().is_cpu());
    }
}
