//! Compiled kernels by name, loaded when they are first launched.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::mem::MaybeUninit;

use cloze_kernels::Images;
use cudarc::driver::{result, sys};

use super::driver::check;
use crate::error::{Error, Result};

/// The kernels for a device. A file of them is loaded when the first kernel of the file is launched.
pub(super) struct Kernels {
    images: Images,
    /// The most shared memory that a block can have, in bytes.
    most_shared: u32,
    modules: HashMap<&'static str, sys::CUmodule>,
    functions: HashMap<&'static str, Function>,
    last: &'static str,
}

#[derive(Clone, Copy)]
struct Function {
    function: sys::CUfunction,
    /// Shared memory that a launch may ask for, in bytes.
    allowed: u32,
}

/// Shared memory that every kernel may use; more has to be allowed for each function.
const FREE_SHARED: u32 = 48 << 10;

impl Kernels {
    /// Finds the kernels for a device of compute capability `major.minor` and a driver of this version.
    pub(super) fn new(name: &str, (major, minor): (u32, u32), driver: i32, most_shared: u32) -> Result<Kernels> {
        let images = cloze_kernels::images(major, minor).ok_or_else(|| {
            let known = cloze_kernels::ARCHITECTURES.join(", ");
            Error::device("cuda", format!("{name} has sm_{major}{minor}, which is too old: kernels exist for {known}"))
        })?;
        let (needed, of_driver) = images.oldest_driver();
        if driver < needed {
            let reason = format!(
                "{name} has sm_{major}{minor}, for which the driver must compile the kernels: update the driver to \
                 {of_driver} or newer"
            );
            return Err(Error::device("cuda", reason));
        }
        Ok(Kernels { images, most_shared, modules: HashMap::new(), functions: HashMap::new(), last: "no kernel" })
    }

    /// Returns the name of the kernel that was launched last.
    pub(super) fn last(&self) -> &'static str {
        self.last
    }

    /// Returns the module of `file.cu`, loading it if necessary.
    fn module(&mut self, op: &'static str, file: &'static str) -> Result<sys::CUmodule> {
        if let Some(&module) = self.modules.get(file) {
            return Ok(module);
        }
        let image = self.images.of(file);
        let image = image.ok_or_else(|| Error::device(op, format!("{file}.cu has no kernels for this device")))?;
        let module = load(file, &image)?;
        self.modules.insert(file, module);
        Ok(module)
    }

    /// Returns a kernel that may use `shared` bytes of shared memory. The context must be current.
    pub(super) fn function(
        &mut self,
        op: &'static str,
        file: &'static str,
        name: &'static str,
        shared: u32,
    ) -> Result<sys::CUfunction> {
        let mut known = match self.functions.get(name) {
            Some(&known) => known,
            None => {
                let text = CString::new(name).unwrap_or_default();
                // SAFETY: `module` returns a loaded module, and modules are never unloaded.
                let function = unsafe { result::module::get_function(self.module(op, file)?, text) };
                Function { function: check(op, name, function)?, allowed: FREE_SHARED }
            }
        };
        if shared > self.most_shared {
            let (needed, most) = (shared.div_ceil(1 << 10), self.most_shared >> 10);
            let reason = format!("{name} needs {needed} KiB of shared memory per block, this device has {most} KiB");
            return Err(Error::device(op, reason));
        }
        if shared > known.allowed {
            allow_shared(op, name, known.function, shared)?;
            known.allowed = shared;
        }
        self.functions.insert(name, known);
        self.last = name;
        Ok(known.function)
    }
}

/// Raises the limit of shared memory per block of a function.
fn allow_shared(op: &'static str, name: &str, function: sys::CUfunction, bytes: u32) -> Result<()> {
    let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    // SAFETY: `function` came from `cuModuleGetFunction`, and its module is never unloaded.
    check(op, name, unsafe { result::function::set_function_attribute(function, attribute, bytes as i32) })
}

/// Loads a cubin or PTX image.
fn load(name: &str, image: &[u8]) -> Result<sys::CUmodule> {
    // The driver expects an aligned image; a `Vec<u8>` need not be.
    let mut aligned = vec![MaybeUninit::<u128>::uninit(); image.len().div_ceil(16).max(1)];
    // SAFETY: `aligned` holds at least `image.len()` bytes, and the two do not overlap: it was just allocated.
    unsafe { std::ptr::copy_nonoverlapping(image.as_ptr(), aligned.as_mut_ptr().cast::<u8>(), image.len()) };
    // SAFETY: the image is a whole cubin, or PTX with a zero at its end, as `Images::of` documents.
    check("cuda", name, unsafe { result::module::load_data(aligned.as_ptr().cast::<c_void>()) })
}
