//! The CUDA driver: the context and stream of a device, and its errors in words.

use std::ffi::CStr;

use cudarc::driver::{result, sys};

use crate::error::{Error, Result};

/// An address on the device; 0 is the null pointer, as in C.
pub(crate) type Pointer = sys::CUdeviceptr;

/// The context of a device and the one stream that everything on it goes through.
///
/// Both live until the process ends, so a copy of the handles never dangles.
#[derive(Clone, Copy)]
pub(super) struct Context {
    pub(super) handle: sys::CUcontext,
    stream: sys::CUstream,
}

impl Context {
    /// Opens the primary context of a device, makes it current and creates a stream in it.
    ///
    /// # Safety
    /// `device` must come from `cuDeviceGet`.
    pub(super) unsafe fn open(device: sys::CUdevice) -> Result<Context> {
        // SAFETY: `device` is a valid handle by this function's contract; the context is never released.
        let handle = check("cuda", "cuDevicePrimaryCtxRetain", unsafe { result::primary_ctx::retain(device) })?;
        // SAFETY: the driver returned this context in the line above.
        check("cuda", "cuCtxSetCurrent", unsafe { result::ctx::set_current(handle) })?;
        let stream = check("cuda", "cuStreamCreate", result::stream::create(result::stream::StreamKind::NonBlocking))?;
        Ok(Context { handle, stream })
    }

    /// Makes the context current on this thread and returns its stream.
    ///
    /// Every call of the driver that needs a context comes after this one, because any thread may use the device.
    pub(super) fn enter(self, op: &'static str) -> Result<sys::CUstream> {
        // SAFETY: `open` retained the context, and nothing releases it.
        check(op, "cuCtxSetCurrent", unsafe { result::ctx::set_current(self.handle) })?;
        Ok(self.stream)
    }
}

/// Turns a driver result into ours. `call` names the function or kernel that failed.
pub(super) fn check<T>(op: &'static str, call: &str, answer: Result<T, result::DriverError>) -> Result<T> {
    answer.map_err(|error| {
        let cause = if is_fault(&error) { " (caused by earlier work on the device)" } else { "" };
        Error::device(op, format!("{call}: {}{cause}{}", describe(&error), consequence(&error)))
    })
}

/// Returns whether the error is permanent: the context is lost, and every later call returns the same error.
fn is_fault(error: &result::DriverError) -> bool {
    // Uncorrectable memory, link failures, invalid addresses, timeouts, assertions and other faults of a kernel.
    matches!(error.0 as u32, 214 | 220 | 226 | 700 | 702 | 709 | 710 | 714..=719)
}

/// Returns what a permanent error means for the process, to append to a message.
pub(super) fn consequence(error: &result::DriverError) -> &'static str {
    if is_fault(error) { "; this process can no longer use the device" } else { "" }
}

/// Returns the name of a driver error and, if the driver has one, its description.
pub(super) fn describe(error: &result::DriverError) -> String {
    let text = |text: Result<&CStr, _>| text.map_or(String::new(), |text| text.to_string_lossy().into_owned());
    let (name, string) = (text(error.error_name()), text(error.error_string()));
    if name == string || string.is_empty() {
        format!("{name} ({})", error.0 as u32)
    } else {
        format!("{name}: {string}")
    }
}
