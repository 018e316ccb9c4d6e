//! The driver, a device and its stream.

use std::collections::HashMap;
use std::ffi::{CStr, c_int, c_void};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{result, sys};

use super::graph::Queue;
use super::launch::Kernels;
use super::memory::Pool;
use crate::{Error, Result};

/// The first driver that loads our kernels, 525: as `cuDriverGetVersion` says it, and as people do.
const OLDEST_DRIVER: (c_int, &str) = (12000, "525");

/// A GPU. Cheap to clone; [`Device::cuda`](crate::Device::cuda) opens it.
#[derive(Clone)]
pub struct CudaDevice(pub(super) Arc<Opened>);

/// An opened device. It stays open until the process ends, as its context does.
pub(super) struct Opened {
    pub(super) index: usize,
    name: String,
    /// Of its compute capability, major and minor.
    pub(super) capability: (u32, u32),
    context: sys::CUcontext,
    stream: sys::CUstream,
    pub(super) pool: Mutex<Pool>,
    pub(super) kernels: Mutex<Kernels>,
    pub(super) queue: Mutex<Queue>,
}

// SAFETY: the driver's handles may be used from any thread whose current context is the device's: `enter` sees to that.
unsafe impl Send for Opened {}
// SAFETY: as above; what changes is behind a mutex.
unsafe impl Sync for Opened {}

static OPENED: Mutex<Option<HashMap<usize, CudaDevice>>> = Mutex::new(None);

/// Device `index`: the same one for all who ask.
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

impl Opened {
    fn new(index: usize) -> Result<Opened> {
        let wrong = |reason: String| Error::device("cuda", reason);
        // SAFETY: it only looks for the library.
        if !unsafe { sys::is_culib_present() } {
            return Err(wrong(
                "there is no NVIDIA driver: libcuda.so.1 is not found; use the CPU, or install the driver".into(),
            ));
        }
        match result::init() {
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_STUB_LIBRARY => {
                return Err(wrong(
                    "libcuda.so is the toolkit's stub, not a driver: take its folder, stubs, out of LD_LIBRARY_PATH"
                        .into(),
                ));
            }
            answer => check("cuda", "cuInit", answer)?,
        }
        let mut version: c_int = 0;
        // SAFETY: it writes an int.
        check("cuda", "cuDriverGetVersion", unsafe { sys::cuDriverGetVersion(&mut version) }.result())?;
        if version < OLDEST_DRIVER.0 {
            let (major, minor) = (version / 1000, version % 1000 / 10);
            let reason = format!("the driver is for CUDA {major}.{minor}; {} or newer is needed", OLDEST_DRIVER.1);
            return Err(wrong(reason));
        }
        let count = check("cuda", "cuDeviceGetCount", result::device::get_count())?;
        if index >= usize::try_from(count).unwrap_or(0) {
            return Err(wrong(match count {
                0 => "there is a driver, but no NVIDIA device".into(),
                1 => format!("no device {index}: there is one, cuda:0"),
                _ => format!("no device {index}: there are {count}, cuda:0 to cuda:{}", count - 1),
            }));
        }
        let device = check("cuda", "cuDeviceGet", result::device::get(index as c_int))?;
        let name = result::device::get_name(device).unwrap_or_else(|_| "a device without a name".into());
        let attribute = |which| {
            // SAFETY: the device is one.
            check("cuda", "cuDeviceGetAttribute", unsafe { result::device::get_attribute(device, which) })
        };
        let major = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let capability = (major as u32, minor as u32);
        let most_shared = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let kernels = Kernels::new(&name, capability, version, most_shared as u32)?;
        // SAFETY: the device is one; the context is never released.
        let context = check("cuda", "cuDevicePrimaryCtxRetain", unsafe { result::primary_ctx::retain(device) })?;
        // SAFETY: the context was just made.
        check("cuda", "cuCtxSetCurrent", unsafe { result::ctx::set_current(context) })?;
        let stream = check("cuda", "cuStreamCreate", result::stream::create(result::stream::StreamKind::NonBlocking))?;
        let (pool, kernels, queue) = (Mutex::default(), Mutex::new(kernels), Mutex::default());
        Ok(Opened { index, name, capability, context, stream, pool, kernels, queue })
    }
}

/// The driver's answer as a result of ours.
pub(super) fn check<T>(op: &'static str, call: &str, answer: Result<T, result::DriverError>) -> Result<T> {
    answer.map_err(|error| {
        let of_what = if is_fault(&error) { ", of what was asked for before" } else { "" };
        Error::device(op, format!("{call}: {}{of_what}{}", describe(&error), consequence(&error)))
    })
}

/// Whether the context is lost: whatever is asked for next is answered with this.
fn is_fault(error: &result::DriverError) -> bool {
    // Memory that does not correct itself, links, addresses, time limits, assertions, and what else a kernel does wrong.
    matches!(error.0 as u32, 214 | 220 | 226 | 700 | 702 | 709 | 710 | 714..=719)
}

fn consequence(error: &result::DriverError) -> &'static str {
    if is_fault(error) { "; the device is of no use to this process now" } else { "" }
}

pub(super) fn describe(error: &result::DriverError) -> String {
    let text = |text: Result<&CStr, _>| text.map_or(String::new(), |text| text.to_string_lossy().into_owned());
    let (name, string) = (text(error.error_name()), text(error.error_string()));
    if name == string || string.is_empty() {
        format!("{name} ({})", error.0 as u32)
    } else {
        format!("{name}: {string}")
    }
}

impl CudaDevice {
    /// Its number, from 0.
    pub fn index(&self) -> usize {
        self.0.index
    }

    /// What its maker calls it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub(super) fn context(&self) -> sys::CUcontext {
        self.0.context
    }

    /// Makes the device's context this thread's.
    pub(super) fn enter(&self, op: &'static str) -> Result<sys::CUstream> {
        // SAFETY: the context lives as long as the process.
        check(op, "cuCtxSetCurrent", unsafe { result::ctx::set_current(self.0.context) })?;
        Ok(self.0.stream)
    }

    /// Waits until everything that was asked for is done.
    ///
    /// # Errors
    /// When a kernel failed meanwhile; nothing more can be computed on the device then.
    pub fn synchronize(&self) -> Result<()> {
        self.flush("synchronize")?;
        let stream = self.enter("synchronize")?;
        self.settle(stream)
    }

    /// Waits for what was launched.
    pub(super) fn settle(&self, stream: sys::CUstream) -> Result<()> {
        // SAFETY: the stream is the device's.
        self.wait(|| self.waited(unsafe { result::stream::synchronize(stream) }))
    }

    /// The answer of a call that waits, which tells of what was asked for before.
    pub(super) fn waited(&self, answer: Result<(), result::DriverError>) -> Result<()> {
        answer.map_err(|error| {
            let last = self.0.kernels.lock().unwrap_or_else(PoisonError::into_inner).last();
            let (what, consequence) = (describe(&error), consequence(&error));
            Error::device("kernel", format!("{what}, in {last} or a kernel before it{consequence}"))
        })
    }

    /// Free and all memory of the device, in bytes.
    pub(super) fn memory(&self) -> Option<(usize, usize)> {
        self.enter("memory").ok().and_then(|_| result::mem_get_info().ok())
    }
}

/// Takes the most shared memory that a kernel asks for, which a launch does not get by itself above 48 KiB.
pub(super) fn allow_shared(op: &'static str, name: &str, function: sys::CUfunction, bytes: u32) -> Result<()> {
    let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    // SAFETY: the function is one of a loaded module.
    check(op, name, unsafe { result::function::set_function_attribute(function, attribute, bytes as i32) })
}

/// Loads compiled kernels.
pub(super) fn load(name: &str, image: &[u8]) -> Result<sys::CUmodule> {
    // The driver wants an image that is aligned, which bytes in a program need not be.
    let mut aligned = vec![MaybeUninit::<u128>::uninit(); image.len().div_ceil(16).max(1)];
    // SAFETY: there is room for the image.
    unsafe { std::ptr::copy_nonoverlapping(image.as_ptr(), aligned.as_mut_ptr().cast::<u8>(), image.len()) };
    // SAFETY: the image is one that the kernels' compiler made.
    check("cuda", name, unsafe { result::module::load_data(aligned.as_ptr().cast::<c_void>()) })
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
