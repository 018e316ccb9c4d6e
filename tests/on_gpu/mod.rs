//! The GPU of the tests.

use cloze::tensor::Device;

/// Returns the GPU, or prints that the test is skipped and returns `None`. If `CLOZE_REQUIRE_GPU` is set, a missing GPU
/// is a failure.
pub fn gpu() -> Option<Device> {
    match Device::cuda(0) {
        Ok(gpu) => Some(gpu),
        Err(error) if std::env::var_os("CLOZE_REQUIRE_GPU").is_some() => panic!("{error}"),
        Err(error) => {
            eprintln!("SKIPPED: {error}");
            None
        }
    }
}
