//! Where tensors live.

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "cuda")]
use crate::cuda::CudaDevice;
use crate::{Error, Precision, Result};

/// A place where tensors live and operations run. Written `cpu`, `cuda` (the first GPU) or `cuda:1`, as [`Device::from_str`]
/// reads them; `auto` is a GPU where there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Device {
    /// The processor, through rayon's global thread pool.
    #[default]
    Cpu,
    /// An NVIDIA GPU, with the feature `cuda`.
    #[cfg(feature = "cuda")]
    Cuda(CudaDevice),
}

impl Device {
    /// GPU number `index`, from 0.
    ///
    /// # Errors
    /// Without the feature `cuda`; when there is no driver, an old one, no such GPU, or one that there are no kernels for.
    pub fn cuda(index: usize) -> Result<Device> {
        #[cfg(feature = "cuda")]
        return crate::cuda::open(index).map(Device::Cuda);
        #[cfg(not(feature = "cuda"))]
        Err(Error::device("cuda", format!("no cuda:{index}: this was built without the feature `cuda`")))
    }

    /// The first GPU where there is one that works, else the processor.
    pub fn auto() -> Device {
        Device::cuda(0).unwrap_or(Device::Cpu)
    }

    /// Whether this is the processor.
    pub fn is_cpu(&self) -> bool {
        matches!(self, Device::Cpu)
    }

    /// Whether matrix products here can be in this precision: not in bf16 on GPUs before sm_80, which refuse it.
    pub fn supports(&self, precision: Precision) -> bool {
        match (self, precision) {
            (Device::Cpu, _) => true,
            #[cfg(feature = "cuda")]
            (Device::Cuda(device), precision) => device.supports(precision),
        }
    }

    /// Runs `work`, and lets what it asks of a GPU be one CUDA graph: it is launched as a whole when numbers are read and when
    /// `work` ends, and costs less than its launches. The next graph of the same kernels in the same order, such as that of the
    /// next step, is that one again with other numbers. What `work` computes is what it computes without; what other threads ask
    /// of the GPU meanwhile is a part of the graph. On the processor it just runs.
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
    /// When the driver refuses the graph.
    pub fn as_graph<R>(&self, work: impl FnOnce() -> R) -> Result<R> {
        match self {
            Device::Cpu => Ok(work()),
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => device.as_graph(work),
        }
    }

    /// Waits until the device has done all that was asked of it. Nothing needs to be waited for but by a clock: what reads
    /// numbers back waits for them.
    ///
    /// # Errors
    /// When a kernel failed.
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

    /// Opens the device that `name` names.
    ///
    /// # Errors
    /// When it is none of `cpu`, `cuda`, `cuda:N` and `auto`, and as [`Device::cuda`].
    fn from_str(name: &str) -> Result<Device> {
        let unknown = || Error::invalid("device", format!("`{name}` is none of cpu, cuda, cuda:N (N from 0) and auto"));
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
        assert_eq!("cpu".parse::<Device>().expect("there is one").to_string(), "cpu");
        for name in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU"] {
            let error = name.parse::<Device>().expect_err("no device").to_string();
            assert_eq!(error, format!("device: `{name}` is none of cpu, cuda, cuda:N (N from 0) and auto"));
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn without_the_feature_there_is_no_gpu() {
        let error = Device::cuda(1).expect_err("no feature").to_string();
        assert_eq!(error, "cuda: no cuda:1: this was built without the feature `cuda`");
        assert!(Device::auto().is_cpu());
    }
}
