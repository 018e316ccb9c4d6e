//! Time per operation, and the kernels that a GPU is given.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

#[cfg(feature = "cuda")]
use crate::device::Device;
#[cfg(feature = "cuda")]
use crate::error::{Error, Result};

/// The time that each operation of a computation took, and the kernels that it launched on GPUs, as measured by [`profile`].
///
/// Operations on a GPU return before the kernels that they launch have run, so their times are those of the host alone.
/// `profile_kernels` measures the kernels too.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// The total time, including what is not an operation.
    pub elapsed: Duration,
    operations: BTreeMap<(&'static str, Pass), (usize, Duration)>,
    kernels: BTreeMap<&'static str, KernelUse>,
}

/// The direction of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pass {
    /// Computing its output.
    Forward,
    /// Computing the gradients of its inputs.
    Backward,
}

/// The time of one operation in all its calls.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct OperationTime {
    /// The name of the operation, as in error messages.
    pub op: &'static str,
    /// The direction.
    pub pass: Pass,
    /// The number of calls.
    pub calls: usize,
    /// The time of all calls together.
    pub time: Duration,
}

/// What the launches of a kernel, a copy or a memset cost a GPU at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GpuCost {
    /// Bytes read and written, each once, however often the kernel reads them.
    pub bytes: u64,
    /// Multiplications and additions of matrix products.
    pub operations: u64,
}

/// A kernel, a copy or a memset of a GPU in all its launches.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct KernelUse {
    /// The name of the kernel.
    pub name: &'static str,
    /// The number of launches, each a node if a graph launches them.
    pub launches: usize,
    /// The cost of all launches together.
    pub cost: GpuCost,
    /// The time of all launches together on the device, if `profile_kernels` measured it.
    pub time: Option<Duration>,
}

impl Profile {
    /// Returns the time of each operation, the longest first.
    pub fn operations(&self) -> Vec<OperationTime> {
        let entry =
            |(&(op, pass), &(calls, time)): (&(&'static str, Pass), &_)| OperationTime { op, pass, calls, time };
        let mut operations: Vec<OperationTime> = self.operations.iter().map(entry).collect();
        operations.sort_by_key(|operation| std::cmp::Reverse(operation.time));
        operations
    }

    /// Returns the kernels, copies and memsets that were submitted to GPUs: the one that took longest first, or if no time was
    /// measured the one that moves the most bytes.
    pub fn kernels(&self) -> Vec<KernelUse> {
        let mut kernels: Vec<KernelUse> = self.kernels.values().copied().collect();
        kernels.sort_by_key(|kernel| std::cmp::Reverse((kernel.time, kernel.cost.bytes)));
        kernels
    }

    #[cfg(feature = "cuda")]
    fn kernel(&mut self, name: &'static str) -> &mut KernelUse {
        let unused = KernelUse { name, launches: 0, cost: GpuCost::default(), time: None };
        self.kernels.entry(name).or_insert(unused)
    }
}

/// Formats a table: operation, direction, calls, milliseconds, share of the total. On a GPU a second one follows: kernel, launches,
/// megabytes, billions of operations, and the milliseconds on the device if they were measured.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.elapsed.as_secs_f64();
        let mut line = |op: &str, pass: &str, calls: usize, time: Duration| {
            let (ms, share) = (time.as_secs_f64() * 1e3, 100.0 * time.as_secs_f64() / whole);
            writeln!(f, "{op:<24}{pass:<10}{calls:>7}{ms:>12.2} ms{share:>7.1} %")
        };
        let mut rest = self.elapsed;
        for OperationTime { op, pass, calls, time } in self.operations() {
            rest = rest.saturating_sub(time);
            line(op, if pass == Pass::Forward { "forward" } else { "backward" }, calls, time)?;
        }
        line("anything else", "", 0, rest)?;
        line("all", "", 0, self.elapsed)?;
        for KernelUse { name, launches, cost, time } in self.kernels() {
            let (megabytes, billions) = (cost.bytes as f64 / 1e6, cost.operations as f64 / 1e9);
            write!(f, "{name:<34}{launches:>7}{megabytes:>12.2} MB{billions:>12.2} GFLOP")?;
            time.map_or(Ok(()), |time| write!(f, "{:>12.3} ms", time.as_secs_f64() * 1e3))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Profile>> = const { RefCell::new(None) };
    /// Whether an operation is being timed: operations that it calls are part of it.
    static IS_TIMING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` and measures the operations that the current thread calls, whichever threads compute them.
///
/// ```
/// use cloze_tensor::{Device, Tensor, profile};
/// let x = Tensor::new([[1f32, 2.0], [3.0, 4.0]], &Device::Cpu)?;
/// let (product, profile) = profile(|| x.matmul(&x));
/// println!("{profile}");
/// assert_eq!(profile.operations()[0].op, "matmul");
/// # product?;
/// # Ok::<(), cloze_tensor::Error>(())
/// ```
pub fn profile<R>(f: impl FnOnce() -> R) -> (R, Profile) {
    struct Restore(Option<Profile>, bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.replace(self.0.take());
            IS_TIMING.set(self.1);
        }
    }
    let _restore = Restore(CURRENT.replace(Some(Profile::default())), IS_TIMING.replace(false));
    let start = Instant::now();
    let result = f();
    let profile = CURRENT.take().unwrap_or_default();
    (result, Profile { elapsed: start.elapsed(), ..profile })
}

/// Runs `f` as [`profile`] does, and measures the time of each kernel, copy and memset on the GPU `device` as well.
///
/// Each is launched by itself, between two events of the driver, and not as a part of a graph. So the sum of their times is the
/// work of the device, while the total is longer than without the measurement.
///
/// # Errors
/// Returns an error if `device` is the CPU, if the driver is older than release 570, or if a kernel failed.
///
/// ```no_run
/// use cloze_tensor::{DType, Device, Tensor, profile_kernels};
/// let gpu = Device::cuda(0)?;
/// let x = Tensor::zeros(&[1024, 1024], DType::F32, &gpu)?;
/// let (product, profile) = profile_kernels(&gpu, || x.matmul(&x))?;
/// println!("{:?}", profile.kernels()[0].time);
/// # product?;
/// # Ok::<(), cloze_tensor::Error>(())
/// ```
#[cfg(feature = "cuda")]
pub fn profile_kernels<R>(device: &Device, f: impl FnOnce() -> R) -> Result<(R, Profile)> {
    let Device::Cuda(device) = device else {
        return Err(Error::invalid("profile", "the device is the CPU, not a GPU"));
    };
    let ((result, mut profile), times) = device.timed(|| profile(f))?;
    for (name, time) in times {
        *profile.kernel(name).time.get_or_insert_default() += time;
    }
    Ok((result, profile))
}

/// Runs `f` as a call of the operation `op` and adds its time to the profile, if there is one. Operations that `f` calls in
/// turn are counted as part of `op`.
pub(crate) fn timed<R>(op: &'static str, pass: Pass, f: impl FnOnce() -> R) -> R {
    if IS_TIMING.get() || CURRENT.with_borrow(Option::is_none) {
        return f();
    }
    struct Timing;
    impl Drop for Timing {
        fn drop(&mut self) {
            IS_TIMING.set(false);
        }
    }
    IS_TIMING.set(true);
    let timing = Timing;
    let start = Instant::now();
    let result = f();
    let elapsed = start.elapsed();
    drop(timing);
    CURRENT.with_borrow_mut(|profile| {
        let Some(profile) = profile else { return };
        let (calls, time) = profile.operations.entry((op, pass)).or_default();
        *calls += 1;
        *time += elapsed;
    });
    result
}

/// Adds a launch to the profile, if there is one.
#[cfg(feature = "cuda")]
pub(crate) fn launched(name: &'static str, cost: GpuCost) {
    CURRENT.with_borrow_mut(|profile| {
        let Some(profile) = profile else { return };
        let kernel = profile.kernel(name);
        kernel.launches += 1;
        kernel.cost.bytes += cost.bytes;
        kernel.cost.operations += cost.operations;
    });
}

#[cfg(all(test, feature = "cuda"))]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::precision::Precision;
    use crate::tensor::Tensor;

    #[test]
    fn a_gpu_is_given_kernels() -> crate::Result<()> {
        let Ok(gpu) = Device::cuda(0) else { return Ok(()) };
        let (a, b) = (Tensor::zeros(&[8, 24], DType::F32, &gpu)?, Tensor::zeros(&[24, 16], DType::F32, &gpu)?);
        let (product, profile) = profile(|| Precision::F32.scope(|| a.matmul(&b)));
        product?;
        let kernels = profile.kernels();
        let [KernelUse { name, launches, cost, time, .. }] = kernels[..] else { panic!("{kernels:?}") };
        assert_eq!((name, launches, time), ("gemm_any_f32", 1, None));
        assert_eq!(cost, GpuCost { bytes: 4 * (8 * 24 + 24 * 16 + 8 * 16), operations: 2 * 8 * 24 * 16 });
        assert!(profile.to_string().contains("gemm_any_f32"));
        Ok(())
    }

    #[test]
    fn a_gpu_is_timed_kernel_by_kernel() -> crate::Result<()> {
        let Ok(gpu) = Device::cuda(0) else { return Ok(()) };
        let (a, b) = (Tensor::zeros(&[8, 24], DType::F32, &gpu)?, Tensor::zeros(&[24, 16], DType::F32, &gpu)?);
        // Enough for a graph.
        let many = || -> Result<()> {
            gpu.as_graph(|| Precision::F32.scope(|| (0..100).try_for_each(|_| a.matmul(&b).map(drop))))?
        };
        let (done, profile) = profile_kernels(&gpu, many)?;
        done?;
        let kernels = profile.kernels();
        let product = kernels.iter().find(|kernel| kernel.name == "gemm_any_f32").expect("there are products");
        assert_eq!(product.launches, 100);
        assert!(kernels.iter().all(|kernel| kernel.time.is_some_and(|time| !time.is_zero())), "{kernels:?}");
        assert!(kernels.is_sorted_by_key(|kernel| std::cmp::Reverse(kernel.time)));
        // Afterwards nothing is timed.
        let (done, profile) = super::profile(many);
        done?;
        assert!(profile.kernels().iter().all(|kernel| kernel.time.is_none()));
        assert!(profile_kernels(&Device::Cpu, || ()).is_err());
        Ok(())
    }
}
