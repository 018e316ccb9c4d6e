//! A GPU: opening it, and waiting for it. It is composed of a stream, a memory pool and the kernels that fit it.

use std::collections::HashMap;
use std::ffi::c_int;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cudarc::driver::{result, sys};

use super::driver::{Context, check, consequence, describe};
use super::graph::GraphUse;
use super::kernels::Kernels;
use super::pool::Pool;
use super::stream::Stream;
use super::timing::Timing;
use crate::error::{Error, Result};

/// The first driver that loads our kernels: as `cuDriverGetVersion` returns it, and by its release number.
const OLDEST_DRIVER: (c_int, &str) = (12000, "525");

/// A GPU. Cheap to clone; [`Device::cuda`](crate::Device::cuda) opens it.
#[derive(Clone)]
pub struct CudaDevice(pub(super) Arc<Opened>);

/// An open device. It stays open until the process ends.
pub(super) struct Opened {
    index: usize,
    name: String,
    /// Compute capability, major and minor.
    capability: (u32, u32),
    pub(super) stream: Stream,
    pub(super) pool: Arc<Pool>,
    kernels: Mutex<Kernels>,
}

// SAFETY: driver handles may be used from any thread on which the device's context is current, and every use follows
// `Context::enter`, which makes it current.
unsafe impl Send for Opened {}
// SAFETY: as above; all mutable state is behind a mutex.
unsafe impl Sync for Opened {}

static OPENED: Mutex<Option<HashMap<usize, CudaDevice>>> = Mutex::new(None);

/// Returns device `index`, opening it on the first call.
pub(crate) fn open(index: usize) -> Result<CudaDevice> {
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let opened = opened.get_or_insert_default();
    if let Some(device) = opened.get(&index) {
        return Ok(device.clone());
    }
    let device = CudaDevice(Arc::new(Opened::new(index)?));
    opened.insert(index, device.clone());
    Ok(device)
}

fn wrong(reason: impl Into<String>) -> Error {
    Error::device("cuda", reason.into())
}

/// Initialises the driver and returns its version.
fn driver() -> Result<c_int> {
    // SAFETY: this only looks for the library.
    if !unsafe { sys::is_culib_present() } {
        return Err(wrong("there is no NVIDIA driver (libcuda.so.1 was not found): install it or use the CPU"));
    }
    match result::init() {
        Err(error) if error.0 == sys::CUresult::CUDA_ERROR_STUB_LIBRARY => {
            return Err(wrong(
                "libcuda.so is the toolkit's stub, not a driver: remove the toolkit's stubs folder from LD_LIBRARY_PATH",
            ));
        }
        answer => check("cuda", "cuInit", answer)?,
    }
    let mut version: c_int = 0;
    // SAFETY: this only writes an int to the pointer.
    check("cuda", "cuDriverGetVersion", unsafe { sys::cuDriverGetVersion(&mut version) }.result())?;
    if version < OLDEST_DRIVER.0 {
        let (major, minor) = (version / 1000, version % 1000 / 10);
        let needed = OLDEST_DRIVER.1;
        return Err(wrong(format!("the driver supports CUDA {major}.{minor}: update it to {needed} or newer")));
    }
    Ok(version)
}

/// Returns the UUIDs of the devices that this process may use; none if there is no driver or device.
pub(crate) fn uuids() -> Vec<[u8; 16]> {
    let count = driver().ok().and_then(|_| result::device::get_count().ok()).unwrap_or(0);
    let uuid = |index| {
        let device = result::device::get(index).ok()?;
        let mut uuid = sys::CUuuid { bytes: [0; 16] };
        // SAFETY: this only writes to the pointer, and the device came from `cuDeviceGet`.
        unsafe { sys::cuDeviceGetUuid_v2(&mut uuid, device) }.result().ok()?;
        Some(uuid.bytes.map(|byte| byte as u8))
    };
    (0..count).filter_map(uuid).collect()
}

/// Returns the handle of device `index`.
fn find(index: usize) -> Result<sys::CUdevice> {
    let count = check("cuda", "cuDeviceGetCount", result::device::get_count())?;
    if index >= usize::try_from(count).unwrap_or(0) {
        return Err(wrong(match count {
            0 => "there is a driver, but no NVIDIA device".into(),
            1 => format!("there is no device {index}: the only one is cuda:0"),
            _ => format!("there is no device {index}: the last of {count} is cuda:{}", count - 1),
        }));
    }
    check("cuda", "cuDeviceGet", result::device::get(index as c_int))
}

impl Opened {
    fn new(index: usize) -> Result<Opened> {
        use sys::CUdevice_attribute as Attribute;
        let version = driver()?;
        let device = find(index)?;
        let name = result::device::get_name(device).unwrap_or_else(|_| "an unnamed device".into());
        let attribute = |which| {
            // SAFETY: `find` returned a valid handle.
            check("cuda", "cuDeviceGetAttribute", unsafe { result::device::get_attribute(device, which) })
        };
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let capability = (major as u32, minor as u32);
        let most_shared = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let kernels = Kernels::new(&name, capability, version, most_shared as u32)?;
        // SAFETY: `find` returned a valid handle.
        let stream = Stream::new(unsafe { Context::open(device)? });
        Ok(Opened { index, name, capability, stream, pool: Arc::default(), kernels: Mutex::new(kernels) })
    }
}

impl CudaDevice {
    /// Returns the device number, from 0.
    pub fn index(&self) -> usize {
        self.0.index
    }

    /// Returns the product name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns the compute capability, major and minor.
    pub(crate) fn capability(&self) -> (u32, u32) {
        self.0.capability
    }

    /// Returns counts of the CUDA graphs launched so far.
    pub fn graph_use(&self) -> GraphUse {
        self.0.stream.graph_use()
    }

    /// Runs `work` and launches what it submits as one CUDA graph; see [`Device::as_graph`](crate::Device::as_graph).
    pub(crate) fn as_graph<R>(&self, work: impl FnOnce() -> R) -> Result<R> {
        self.0.stream.gather(work)
    }

    /// Runs `f` and returns the time that the device took for each unit of work that this thread submitted.
    ///
    /// # Errors
    /// Returns an error if the driver is too old, or if a kernel failed.
    pub(crate) fn timed<R>(&self, f: impl FnOnce() -> R) -> Result<(R, Vec<(&'static str, Duration)>)> {
        // Otherwise the first kernel's time would include earlier work.
        self.synchronize()?;
        let timing = Timing::start()?;
        let done = f();
        self.synchronize()?;
        Ok((done, timing.times()?))
    }

    pub(super) fn kernels(&self) -> MutexGuard<'_, Kernels> {
        self.0.kernels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all submitted work is done.
    ///
    /// # Errors
    /// Returns an error if a kernel failed. The process cannot use the device any more after that.
    pub fn synchronize(&self) -> Result<()> {
        self.0.stream.flush("synchronize")?;
        let stream = self.0.stream.enter("synchronize")?;
        self.settle(stream)
    }

    /// Waits until all enqueued work is done.
    pub(super) fn settle(&self, stream: sys::CUstream) -> Result<()> {
        // SAFETY: `stream` belongs to this device, whose streams are never destroyed.
        self.0.stream.wait(|| self.waited(unsafe { result::stream::synchronize(stream) }))
    }

    /// Turns the result of a call that waits into ours. Such a call also reports the failures of earlier kernels.
    pub(super) fn waited(&self, answer: Result<(), result::DriverError>) -> Result<()> {
        answer.map_err(|error| {
            let (last, reason, consequence) = (self.kernels().last(), describe(&error), consequence(&error));
            Error::device("kernel", format!("{reason}, in {last} or an earlier kernel{consequence}"))
        })
    }
}

impl PartialEq for CudaDevice {
    fn eq(&self, other: &CudaDevice) -> bool {
        self.0.index == other.0.index
    }
}

impl Eq for CudaDevice {}

impl Hash for CudaDevice {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.index.hash(state);
    }
}

impl fmt::Debug for CudaDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CudaDevice({}, {})", self.0.index, self.0.name)
    }
}
