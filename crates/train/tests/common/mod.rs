//! Where models of tests are.

use cloze_tensor::Device;

/// The CPU, or what `CLOZE_TEST_DEVICE` names: these tests hold on any device.
pub fn device() -> Device {
    std::env::var("CLOZE_TEST_DEVICE")
        .map_or(Device::Cpu, |name| name.parse().unwrap_or_else(|error| panic!("{error}")))
}
