//! The place of the CUDA kernels of [cloze](https://docs.rs/cloze).
//!
//! Nothing is here yet: the library computes on the CPU. The kernels, the cubins they compile to and the
//! emulator that tests them without a GPU will live in this crate, so that a CPU build never sees them.
