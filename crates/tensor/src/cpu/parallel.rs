//! Work sharing with results that do not depend on the number of threads.
//!
//! Work is cut into blocks whose size depends only on the sizes of the operands. Threads take blocks in any order, each
//! block is computed the same way on every thread, and partial sums of blocks are added in the order of the blocks. Work
//! that is not worth waking a thread for (some 10 microseconds) runs on the calling thread.
//!
//! Destinations are handed out as disjoint `&mut` blocks by splitting them ([`Rows`]), so kernels over rows need no
//! `unsafe`.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::team::{threads, work_together};
use crate::memory::is_dry;

/// The cost of one block, in elements of light arithmetic: about 10 microseconds. Miri, which is a thousand times slower, has
/// smaller sizes, so that small inputs are shared among threads.
const BLOCK_COST: usize = if cfg!(miri) { 1 << 6 } else { 1 << 15 };
/// Pieces of work per thread.
const PIECES: usize = 4;
/// Work that costs less than this in total runs serially.
const SERIAL_COST: usize = 2 * BLOCK_COST;

/// Returns the number of items in a block if each costs `cost`: the elements that it touches, times a weight for heavy
/// arithmetic.
pub(crate) fn block_items(cost: usize) -> usize {
    (BLOCK_COST / cost.max(1)).max(1)
}

/// A destination that is cut into blocks of rows: a mutable matrix, or several that are cut together.
pub(crate) trait Rows: Send + Sized {
    /// Splits off the first `rows` rows.
    fn split(self, rows: usize) -> (Self, Self);
}

/// A row-major matrix for writing: `data.len() / width` rows.
pub(crate) struct RowsMut<'a, T> {
    pub(crate) data: &'a mut [T],
    pub(crate) width: usize,
}

impl<'a, T> RowsMut<'a, T> {
    pub(crate) fn new(data: &'a mut [T], width: usize) -> Self {
        RowsMut { data, width }
    }
}

impl<T: Send> Rows for RowsMut<'_, T> {
    #[inline]
    fn split(self, rows: usize) -> (Self, Self) {
        let (a, b) = self.data.split_at_mut(rows * self.width);
        (RowsMut { data: a, width: self.width }, RowsMut { data: b, width: self.width })
    }
}

/// A matrix with one element per row.
impl<T: Send> Rows for &mut [T] {
    #[inline]
    fn split(self, rows: usize) -> (Self, Self) {
        self.split_at_mut(rows)
    }
}

/// Partial results: `width` elements for each block of `block` rows.
pub(crate) struct PerBlock<'a, T> {
    pub(crate) data: &'a mut [T],
    pub(crate) width: usize,
    pub(crate) block: usize,
}

impl<T: Send> Rows for PerBlock<'_, T> {
    fn split(self, rows: usize) -> (Self, Self) {
        debug_assert_eq!(rows % self.block, 0);
        let PerBlock { data, width, block } = self;
        let (a, b) = data.split_at_mut(rows / block * width);
        (PerBlock { data: a, width, block }, PerBlock { data: b, width, block })
    }
}

impl Rows for () {
    fn split(self, _: usize) -> ((), ()) {
        ((), ())
    }
}

impl<R: Rows> Rows for Option<R> {
    #[inline]
    fn split(self, rows: usize) -> (Self, Self) {
        match self.map(|r| r.split(rows)) {
            Some((a, b)) => (Some(a), Some(b)),
            None => (None, None),
        }
    }
}

macro_rules! tuple_rows {
    ($($name:ident)+) => {
        impl<$($name: Rows),+> Rows for ($($name,)+) {
            #[inline]
            #[allow(non_snake_case)]
            fn split(self, rows: usize) -> (Self, Self) {
                let ($($name,)+) = self;
                $(let $name = $name.split(rows);)+
                (($($name.0,)+), ($($name.1,)+))
            }
        }
    };
}
tuple_rows!(A B);
tuple_rows!(A B C);
tuple_rows!(A B C D);
tuple_rows!(A B C D E);

/// Cuts `count` rows into blocks and calls `f` for each with its range of rows and its part of `rows`. `cost` is the cost
/// of one row.
pub(crate) fn for_rows<R: Rows>(count: usize, cost: usize, rows: R, f: impl Fn(Range<usize>, R) + Sync) {
    for_blocks(count, block_items(cost), cost, rows, f);
}

/// Like [`for_rows`] with a given number of rows per block: for one partial result per block.
pub(crate) fn for_blocks<R: Rows>(
    count: usize,
    block: usize,
    cost: usize,
    rows: R,
    f: impl Fn(Range<usize>, R) + Sync,
) {
    if is_dry() {
        return;
    }
    if count.saturating_mul(cost) >= SERIAL_COST && count > block && threads() > 1 {
        share(0..count, block, rows, &f);
    } else {
        serial(0..count, block, rows, &f);
    }
}

fn serial<R: Rows>(range: Range<usize>, block: usize, mut rows: R, f: &impl Fn(Range<usize>, R)) {
    let mut start = range.start;
    while range.end - start > block {
        let (first, rest) = rows.split(block);
        f(start..start + block, first);
        rows = rest;
        start += block;
    }
    if start < range.end {
        f(start..range.end, rows);
    }
}

fn share<R: Rows>(range: Range<usize>, block: usize, mut rows: R, f: &(impl Fn(Range<usize>, R) + Sync)) {
    let (count, threads) = (range.len().div_ceil(block), threads());
    // Several pieces per thread, so that the other threads can take over from one that is delayed.
    let piece = count.div_ceil(PIECES * threads) * block;
    let mut pieces = Vec::with_capacity(PIECES * threads);
    let mut start = range.start;
    while range.end - start > piece {
        let (first, rest) = rows.split(piece);
        pieces.push(Mutex::new(Some((start..start + piece, first))));
        rows = rest;
        start += piece;
    }
    pieces.push(Mutex::new(Some((start..range.end, rows))));
    take_turns(
        pieces.len(),
        threads,
        || (),
        |(), piece| {
            let taken = pieces[piece].lock().unwrap_or_else(PoisonError::into_inner).take();
            let (range, rows) = taken.expect("a piece is taken once");
            serial(range, block, rows, f);
        },
    );
}

/// Calls `f` for each of `0..count`: for a few tasks of unequal size. They start in order, so sort them by descending
/// cost. Each thread that takes a task makes its scratch space with `scratch`. `cost` is the total cost of all tasks.
pub(crate) fn for_tasks<S>(
    count: usize,
    cost: usize,
    scratch: impl Fn() -> S + Sync,
    f: impl Fn(&mut S, usize) + Sync,
) {
    let threads = threads().min(count);
    if count == 0 {
        return;
    }
    if is_dry() {
        // The memory that the threads would have at the same time.
        drop((0..if cost < SERIAL_COST { 1 } else { threads }).map(|_| scratch()).collect::<Vec<_>>());
        return;
    }
    if cost < SERIAL_COST || threads <= 1 {
        let mut scratch = scratch();
        return (0..count).for_each(|task| f(&mut scratch, task));
    }
    take_turns(count, threads, scratch, f);
}

/// Shares out the tasks `0..count`: each thread takes the next one until none is left.
fn take_turns<S>(count: usize, threads: usize, scratch: impl Fn() -> S + Sync, f: impl Fn(&mut S, usize) + Sync) {
    let next = AtomicUsize::new(0);
    work_together(threads, &|| {
        let mut task = next.fetch_add(1, Ordering::Relaxed);
        if task < count {
            let mut scratch = scratch();
            while task < count {
                f(&mut scratch, task);
                task = next.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
}

/// A pointer that threads share, each for different elements.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(*mut T);

// SAFETY: a `Shared` only yields raw pointers, which no safe code dereferences; whoever does states why no other thread
// accesses the element. Elements move between threads, so they must be `Send`.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above; a shared reference only yields the same pointers.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn new(pointer: *mut T) -> Self {
        Shared(pointer)
    }

    /// The address of element `index`, which need not be in bounds.
    #[inline(always)]
    pub(crate) fn at(self, index: usize) -> *mut T {
        self.0.wrapping_add(index)
    }
}

/// A mutable slice that several threads write, each to disjoint elements: for parts that are not blocks of rows.
pub(crate) struct Disjoint<'a, T> {
    pointer: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: elements are accessed only through `slice`, by whose contract no two live parts overlap, and through pointers of
// `strided`, whose users state why no other thread accesses the elements.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Disjoint { pointer: slice.as_mut_ptr(), len: slice.len(), life: PhantomData }
    }

    /// Returns a pointer to element `index`.
    ///
    /// # Panics
    /// Panics if `rows` parts of `width` elements, `stride` apart, do not fit into the slice from there on.
    #[inline(always)]
    pub(crate) fn strided(&self, index: usize, rows: usize, width: usize, stride: usize) -> *mut T {
        assert!(rows == 0 || index + (rows - 1) * stride + width <= self.len);
        self.pointer.wrapping_add(index)
    }

    /// Returns a part of the slice.
    ///
    /// # Panics
    /// Panics if the part is out of bounds.
    ///
    /// # Safety
    /// No two live parts may overlap.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: the assertion checked the bounds of the slice that `new` borrowed for `'a`, and no other live part overlaps
        // this one by the contract above.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.wrapping_add(range.start), range.len()) }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    /// Runs `f` in pools of one, two and five threads and on the team, and returns the four results.
    pub(crate) fn with_threads<R: Send>(f: impl Fn() -> R + Sync) -> [R; 4] {
        // Miri knows only the team.
        if cfg!(miri) {
            return std::array::from_fn(|_| f());
        }
        let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(&f);
        [pool(1), pool(2), pool(5), f()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_visited_once_with_its_own_block() {
        for count in if cfg!(miri) { [0, 1, 3, 7, 16, 17] } else { [0, 1, 7, 100, 4096, 4097] } {
            let [a, b, c, team] = testing::with_threads(|| {
                let (mut wide, mut narrow) = (vec![0usize; count * 3], vec![0usize; count]);
                let rows = (RowsMut::new(&mut wide, 3), &mut narrow[..]);
                for_rows(count, 100, rows, |range, (wide, narrow)| {
                    assert_eq!((wide.data.len(), narrow.len()), (range.len() * 3, range.len()));
                    for (i, row) in range.clone().enumerate() {
                        wide.data[i * 3..][..3].iter_mut().for_each(|x| *x += row + 1);
                        narrow[i] += range.start + 1;
                    }
                });
                (wide, narrow)
            });
            assert!(a.0.chunks(3).enumerate().all(|(i, row)| row == [i + 1; 3]));
            assert!(a == b && b == c && c == team, "blocks depend on the number of threads");
        }
    }

    #[test]
    fn each_task_runs_once() {
        for cost in [1, 1 << 20] {
            let counts: Vec<AtomicUsize> = (0..100).map(|_| AtomicUsize::new(0)).collect();
            testing::with_threads(|| {
                for_tasks(
                    100,
                    cost,
                    || (),
                    |(), i| {
                        counts[i].fetch_add(1, Ordering::Relaxed);
                    },
                )
            });
            assert!(counts.iter().all(|n| n.load(Ordering::Relaxed) == 4));
        }
    }
}
