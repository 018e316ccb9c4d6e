//! The code around the driver, on the emulated GPU, when calls of the driver fail: any of them, with any of several errors.
//! What a user gets is an error or the numbers of a run without failures, bit for bit, and the device works afterwards.
//!
//! Needs the emulator's `libcuda.so.1` in `LD_LIBRARY_PATH`.
#![no_main]

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

use cloze_fuzz::{Choices, checked, limited};
use cloze_tensor::{DType, Device, Dropout, Gelu, Result, Sequences, Tensor};
use libfuzzer_sys::fuzz_target;
use libloading::{Library, Symbol};

/// Errors that are not of the context: after them the device works.
const ERRORS: [i32; 5] = [1, 2, 101, 500, 999];

struct Emulator {
    device: Device,
    /// Makes the driver's call of this number, from 1, fail with an error; 0 makes none fail.
    fail: Symbol<'static, unsafe extern "C" fn(u64, i32)>,
}

// SAFETY: the function may be called from any thread, and so may the device.
unsafe impl Sync for Emulator {}
// SAFETY: as above.
unsafe impl Send for Emulator {}

static EMULATOR: OnceLock<Emulator> = OnceLock::new();

fn emulator() -> &'static Emulator {
    EMULATOR.get_or_init(|| {
        // SAFETY: loading the emulator runs no code but the constructors of its variables.
        let library = unsafe { Library::new("libcuda.so.1") }.expect("LD_LIBRARY_PATH has the emulator");
        let library: &'static Library = Box::leak(Box::new(library));
        // SAFETY: the emulator's function has this type.
        let fail = unsafe { library.get(b"emu_fail") }.expect("the driver is the emulator");
        Emulator { device: Device::cuda(0).expect("the emulator has a device"), fail }
    })
}

/// The bits of the first run without failures of each list of operations.
static UNDISTURBED: Mutex<Option<HashMap<Vec<u8>, Vec<u32>>>> = Mutex::new(None);

fuzz_target!(init: { emulator(); }, |data: &[u8]| {
    let mut choices = Choices::new(data);
    let Emulator { device, fail } = emulator();
    let (call, error) = (1 + u64::from(choices.byte()), choices.of(&ERRORS));
    let operations: Vec<u8> = choices.rest().iter().map(|operation| operation % 10).take(4).collect();
    let (found, again) = limited(1 << 20, || {
        // SAFETY: only sets two numbers.
        unsafe { fail(call, error) };
        let found = run(&operations, device);
        // SAFETY: as above.
        unsafe { fail(0, 0) };
        // Only after it: what a first run loads, such as kernels, may fail too.
        (checked(found), run(&operations, device).expect("the device works after an error"))
    });
    if let Some(found) = found {
        assert_eq!(found, again, "with a failure that nobody noticed, and without");
    }
    let mut undisturbed = UNDISTURBED.lock().expect("nobody panics here and goes on");
    let first = undisturbed.get_or_insert_default().entry(operations).or_insert_with(|| again.clone());
    assert_eq!(*first, again, "before failures, and after");
});

/// Computes on a device, also backward, and returns the bits of the result and of the gradient.
fn run(operations: &[u8], device: &Device) -> Result<Vec<u32>> {
    let numbers: Vec<f32> = (0..8 * 12).map(|i| (i * 37 % 23) as f32 / 16.0 - 0.5).collect();
    let x = Tensor::from_slice(&numbers, &[8, 12], device)?.requires_grad();
    let weight = Tensor::from_slice(&numbers, &[8, 12], device)?;
    let bias = Tensor::zeros(&[8], DType::F32, device)?;
    let mut y = x.clone();
    for operation in operations {
        y = match operation {
            0 => y.add(&x)?,
            1 => y.mul_scalar(0.5)?.tanh()?,
            2 => y.linear(&weight, &bias)?.matmul(&weight)?,
            3 => y.t()?.contiguous()?.t()?,
            4 => {
                let y = y.attention(&Sequences::new(&[3, 5])?, 2, &Dropout::NONE)?;
                Tensor::concat(&[&y, &y, &y], 1)?
            }
            5 => y.softmax()?,
            6 => y.gather_rows(&[7, 0, 0, 1, 2, 3, 5, 6])?,
            7 => y.linear_gelu(&weight, &bias, Gelu::Erf)?.matmul(&weight)?,
            8 => y.to_dtype(DType::BF16)?.to_dtype(DType::F32)?,
            _ => Tensor::concat(&[&y.narrow(0, 4, 4)?, &y.narrow(0, 0, 4)?], 0)?,
        };
        // Keeps numbers small.
        y = y.tanh()?;
    }
    let gradients = y.sum_all()?.backward()?;
    let dx = gradients.get(&x).map_or(Ok(Vec::new()), |dx| dx.to_vec::<f32>())?;
    Ok(y.to_vec::<f32>()?.into_iter().chain(dx).map(f32::to_bits).collect())
}
