//! The place of the CUDA kernels of [cloze](https://docs.rs/cloze).
//!
//! The library computes on the CPU: its tensors do not know of a GPU yet. What there is, in the repository: kernels in `cuda/`,
//! their tests in `tests/`, and `emulator/`, a CUDA driver whose device is the CPU, on which these run without a GPU.
