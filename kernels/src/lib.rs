//! The CUDA kernels of [cloze](https://docs.rs/cloze), compiled: what the feature `cuda` of
//! [cloze-tensor](https://docs.rs/cloze-tensor) launches. The sources are in `cuda/`, a family of kernels a file.

/// What there are kernels for. A GPU runs those of its own generation: sm_80 also runs on sm_86 and sm_89. On sm_75 there are none
/// for tensor cores.
pub const ARCHITECTURES: [&str; 4] = ["sm_75", "sm_80", "sm_90a", "sm_120"];

/// The compiled files for one architecture.
#[derive(Clone, Copy, Debug)]
pub struct Images(&'static [(&'static str, &'static [u8])]);

impl Images {
    /// The image of `cuda/FILE.cu`.
    pub fn of(&self, file: &str) -> Option<&'static [u8]> {
        self.0.iter().find(|(name, _)| *name == file).map(|(_, image)| *image)
    }
}

/// The kernels for a GPU of this compute capability, if there are any.
pub fn images(major: u32, minor: u32) -> Option<Images> {
    match (major, minor) {
        (7, 5..) => Some(Images(SM_75)),
        (8, _) => Some(Images(SM_80)),
        (9, 0) => Some(Images(SM_90A)),
        (12, _) => Some(Images(SM_120)),
        _ => None,
    }
}

macro_rules! files {
    ($architecture:literal) => {
        files!($architecture: "attention_backward", "attention_forward", "gemm")
    };
    // These, and those for all architectures.
    ($architecture:literal: $($file:literal),*) => {
        files!(@ $architecture: $($file,)* "attention_any", "cross_entropy", "dropout", "elementwise", "embedding", "gemm_any",
            "layer_norm", "optimizer", "pooling", "softmax")
    };
    (@ $architecture:literal: $($file:literal),*) => {
        &[$(($file, include_bytes!(concat!("../cubins/", $file, ".", $architecture, ".cubin")))),*]
    };
}

static SM_75: &[(&str, &[u8])] = files!("sm_75":);
static SM_80: &[(&str, &[u8])] = files!("sm_80");
static SM_90A: &[(&str, &[u8])] = files!("sm_90a");
static SM_120: &[(&str, &[u8])] = files!("sm_120");
