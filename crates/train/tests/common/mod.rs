//! The device of the models in tests.

use cloze_tensor::Device;

/// Returns the device that `CLOZE_TEST_DEVICE` names, or the CPU.
pub fn device() -> Device {
    std::env::var("CLOZE_TEST_DEVICE")
        .map_or(Device::Cpu, |name| name.parse().unwrap_or_else(|error| panic!("{error}")))
}
