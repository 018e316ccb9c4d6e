//! How the [driver](super::driver) cuts a product: sizes that the cache hierarchy gives, never the number of threads.

/// Most words along k in a block. With 384 words, [`B_PANELS`] panels of B (98 KB) and an [`A_BLOCK`] of A (442 KB) stay
/// in a second-level cache of 1 MiB.
pub(super) const K_UNITS: usize = 384;
/// Panels of A that are multiplied with one panel of B after the other: 24 panels of 12 rows.
pub(super) const A_BLOCK: usize = 24;
/// Panels of B in a task.
pub(super) const B_PANELS: usize = 2;
/// Most bytes of A that are packed at a time: a share of the third-level cache.
pub(super) const PACKED_A: usize = 12 << 20;

/// The blocks of `units` words along k, all but the last of one length: the first unit and the number of units of each.
pub(super) fn blocks(units: usize) -> impl Iterator<Item = (usize, usize)> {
    let length = units.div_ceil(units.div_ceil(K_UNITS).max(1)).max(1);
    (0..units).step_by(length).map(move |from| (from, length.min(units - from)))
}
