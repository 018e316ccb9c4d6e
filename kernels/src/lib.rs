//! The compiled CUDA kernels of [cloze](https://docs.rs/cloze), which the feature `cuda` of
//! [cloze-tensor](https://docs.rs/cloze-tensor) launches. The sources are in `cuda/`, one file per family of kernels.

#![forbid(unsafe_code)]

use std::io::Read;

use flate2::read::ZlibDecoder;

/// The architectures that kernels are compiled for. A cubin also runs on later members of the same generation: that of sm_80 on
/// sm_86 and sm_89, that of sm_100 on sm_103. On sm_75 the tensor cores multiply f16, on all others also bf16.
pub const ARCHITECTURES: [&str; 5] = ["sm_75", "sm_80", "sm_90a", "sm_100", "sm_120"];

/// The C++ source of the enumerations whose numbers the host passes to kernels, for a test that the host declares the same ones.
pub const ENUMERATIONS: &str = include_str!("../cuda/enumerations.cuh");

/// The compiled kernels for one architecture.
#[derive(Clone, Copy, Debug)]
pub struct Images(&'static [(&'static str, &'static [u8])]);

impl Images {
    /// Returns the image of `cuda/FILE.cu`: a cubin, or PTX that ends with a zero byte.
    pub fn of(&self, file: &str) -> Option<Vec<u8>> {
        let (_, packed) = self.0.iter().find(|(name, _)| *name == file)?;
        let mut image = Vec::new();
        ZlibDecoder::new(*packed).read_to_end(&mut image).ok()?;
        Some(image)
    }

    /// Returns the oldest driver that loads these images: the number that `cuDriverGetVersion` returns, and the release.
    ///
    /// Cubins of CUDA 12 load on any driver for CUDA 12. PTX needs one that is at least as new as the compiler.
    pub fn oldest_driver(&self) -> (i32, &'static str) {
        if std::ptr::eq(self.0, PTX) { (12090, "575") } else { (12000, "525") }
    }
}

/// Returns the kernels for a GPU of this compute capability: cubins for the generations of [`ARCHITECTURES`], PTX for other
/// GPUs from sm_80 on, `None` for GPUs before sm_75.
pub fn images(major: u32, minor: u32) -> Option<Images> {
    match (major, minor) {
        (..7, _) | (7, ..5) => None,
        (7, 5..) => Some(Images(SM_75)),
        // The GPU of Jetson boards, which does not run cubins for sm_80.
        (8, 7) => Some(Images(PTX)),
        (8, _) => Some(Images(SM_80)),
        (9, 0) => Some(Images(SM_90A)),
        (10, _) => Some(Images(SM_100)),
        (12, _) => Some(Images(SM_120)),
        _ => Some(Images(PTX)),
    }
}

/// Embeds the images of all files for one architecture, and of the files that only it has.
macro_rules! images {
    ($kind:literal $(, $only:literal)*) => {
        embed!($kind, [
            $($only,)*
            "attention_any",
            "attention_backward",
            "attention_forward",
            "cross_entropy",
            "dropout",
            "elementwise",
            "embedding",
            "gemm",
            "gemm_any",
            "layer_norm",
            "optimizer",
            "pooling",
            "ranks",
            "scaled_f16",
            "softmax",
        ])
    };
}

macro_rules! embed {
    ($kind:literal, [$($file:literal,)*]) => {
        &[$(($file, include_bytes!(concat!("../images/", $file, ".", $kind, ".z")))),*]
    };
}

static SM_75: &[(&str, &[u8])] = images!("sm_75.cubin");
static SM_80: &[(&str, &[u8])] = images!("sm_80.cubin");
static SM_90A: &[(&str, &[u8])] = images!("sm_90a.cubin", "gemm_hopper");
static SM_100: &[(&str, &[u8])] = images!("sm_100.cubin");
static SM_120: &[(&str, &[u8])] = images!("sm_120.cubin");
static PTX: &[(&str, &[u8])] = images!("ptx");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gpu_from_turing_on_has_images() {
        for (major, minor) in [(5, 0), (6, 1), (7, 0), (7, 2)] {
            assert!(images(major, minor).is_none(), "sm_{major}{minor}");
        }
        for (major, minor) in
            [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (11, 0), (12, 0), (12, 1), (13, 0)]
        {
            let image = images(major, minor).and_then(|images| images.of("optimizer"));
            let image = image.unwrap_or_else(|| panic!("no image for sm_{major}{minor}"));
            let is_ptx = !image.starts_with(b"\x7fELF");
            assert_eq!(is_ptx, matches!(major, 11 | 13), "sm_{major}{minor}");
            assert!(!is_ptx || image.ends_with(b"\0"), "the driver reads PTX as a C string");
        }
    }

    /// CUDA 12.9 emits PTX 8.8, and its first driver is 575.
    #[test]
    fn ptx_has_the_version_that_drivers_are_checked_for() {
        for (file, _) in PTX {
            let image = Images(PTX).of(file).unwrap_or_default();
            assert!(String::from_utf8_lossy(&image).contains("\n.version 8.8\n"), "{file}");
        }
        assert_eq!(Images(PTX).oldest_driver(), (12090, "575"));
        assert_eq!(Images(SM_80).oldest_driver(), (12000, "525"));
    }

    #[test]
    fn every_image_unpacks() {
        for images in [SM_75, SM_80, SM_90A, SM_100, SM_120, PTX] {
            for (file, _) in images {
                assert!(Images(images).of(file).is_some_and(|image| image.len() > 1000), "{file}");
            }
        }
    }
}
