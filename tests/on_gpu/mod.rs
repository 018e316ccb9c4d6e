//! Where tests find their GPU.

use cloze::tensor::Device;

/// The GPU, or nothing, said aloud. With `CLOZE_REQUIRE_GPU` set, there must be one.
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
