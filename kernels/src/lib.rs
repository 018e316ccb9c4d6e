//! The place of the CUDA kernels of [cloze](https://docs.rs/cloze).
//!
//! The library computes on the CPU, and there is no kernel yet. What there is, in the repository: `cuda/platform.cuh` and
//! `cuda/hopper.cuh`, in which kernels are written; `emulator/`, a CUDA driver whose device is the CPU, for tests without a
//! GPU; and `build.sh`, which compiles the same sources for GPUs without a CUDA installation.
