//! How the [driver](super::driver) cuts a product: sizes that the cache hierarchy gives, never the number of threads. Under Miri
//! they are smaller, so that small products have several blocks.

/// Most words along k in a block, the same for all kernels, so that they add in the same order. A slice of B takes 98 KB of
/// f32 then. The smallest second-level caches have 256 KB; those of processors with AVX-512 have 1 MiB.
pub(super) const K_UNITS: usize = if cfg!(miri) { 12 } else { 384 };
/// Panels of A that are multiplied with one panel of B after the other. They take 442 KB with AVX-512 (12 rows each) and 221 KB
/// with AVX2 (6 rows each).
pub(super) const A_BLOCK: usize = if cfg!(miri) { 2 } else { 24 };
/// Columns of B in a task: two panels with AVX-512.
pub(super) const SLICE: usize = 64;
/// Panels of A up to which tiles widen bf16 themselves, which costs some processors a tenth of their speed.
pub(super) const DIRECT: usize = if cfg!(miri) { 2 } else { 24 };
/// Most bytes of A that are packed at a time: a share of the third-level cache.
pub(super) const PACKED_A: usize = if cfg!(miri) { 1 << 10 } else { 12 << 20 };

/// The blocks of `units` words along k, all but the last of one length: the first unit and the number of units of each.
/// There is at least one, which is empty if `units` is 0.
pub(super) fn blocks(units: usize) -> impl Iterator<Item = (usize, usize)> {
    let length = units.div_ceil(units.div_ceil(K_UNITS).max(1)).max(1);
    (0..units.max(1)).step_by(length).map(move |from| (from, length.min(units - from)))
}
