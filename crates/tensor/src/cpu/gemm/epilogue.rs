//! What is done with an element of a product when its sum is complete: the bias, GELU, GELU's gradient.

use super::super::Real;
use super::super::parallel::for_rows;
use super::super::real::LANES;
use super::super::simd::simd;
use super::super::unary::{Gelu, GeluTanh, Unary};
use super::ViewMut;

/// What is done with an element of C when its sum is complete. Matrices besides C lie as C does, which must then be
/// row-major without gaps.
#[derive(Default)]
pub(crate) enum Epilogue<'a, T> {
    #[default]
    None,
    /// `c += bias`, which has an element for each column.
    Bias(&'a [T]),
    /// `c = gelu(c + bias)`.
    BiasGelu(&'a [T], crate::Gelu),
    /// `c += bias`, and the second matrix becomes `gelu(c)`.
    BiasAndGelu(&'a [T], crate::Gelu, &'a mut [T]),
    /// For `u`, the first matrix: `c *= gelu'(u)`, and the second matrix becomes `gelu(u)`.
    GeluGradient(&'a [T], crate::Gelu, &'a mut [T]),
}

impl<T> Epilogue<'_, T> {
    /// Panics where it does not fit C.
    pub(super) fn check(&self, c: &ViewMut<'_, T>) {
        let (size, whole) = (c.rows * c.cols, c.col_stride == 1 && c.row_stride == c.cols);
        assert!(match self {
            Epilogue::None => true,
            Epilogue::Bias(bias) | Epilogue::BiasGelu(bias, _) => c.col_stride == 1 && bias.len() == c.cols,
            Epilogue::BiasAndGelu(bias, _, out) => whole && bias.len() == c.cols && out.len() == size,
            Epilogue::GeluGradient(u, _, out) => whole && u.len() == size && out.len() == size,
        });
    }

    /// For threads to share.
    pub(super) fn finish(self) -> Finish<T> {
        match self {
            Epilogue::None => Finish::None,
            Epilogue::Bias(bias) => Finish::Bias(bias.as_ptr()),
            Epilogue::BiasGelu(bias, gelu) => Finish::BiasGelu(bias.as_ptr(), gelu),
            Epilogue::BiasAndGelu(bias, gelu, out) => Finish::BiasAndGelu(bias.as_ptr(), gelu, out.as_mut_ptr()),
            Epilogue::GeluGradient(u, gelu, out) => Finish::GeluGradient(u.as_ptr(), gelu, out.as_mut_ptr()),
        }
    }
}

/// An [`Epilogue`] that several threads apply, each to tiles of its own.
#[derive(Clone, Copy)]
pub(super) enum Finish<T> {
    None,
    Bias(*const T),
    BiasGelu(*const T, crate::Gelu),
    BiasAndGelu(*const T, crate::Gelu, *mut T),
    GeluGradient(*const T, crate::Gelu, *mut T),
}

// SAFETY: the pointers are to be used as `Finish::tile` says, by which no two threads meet at an element.
unsafe impl<T: Send> Send for Finish<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Finish<T> {}

/// A part of C: `rows` rows of at most [`LANES`] columns from (`row`, `column`) on.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub(super) row: usize,
    pub(super) column: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

/// Replaces each row of a tile, given it and the index of its first element. Not a function of a closure: the compiler may leave
/// that out of line, where it has none of the SIMD of its caller, and a multiply-add is a call.
macro_rules! each_row {
    ($c:expr, $stride:expr, $tile:expr, |$row:ident, $at:ident| $body:expr) => {
        for row in $tile.row..$tile.row + $tile.rows {
            let $at = row * $stride + $tile.column;
            let to = $c.add($at);
            let $row = load(to, $tile.cols);
            store($body, to, $tile.cols);
        }
    };
}

/// The first `n` elements from `p` on, and zeros.
///
/// # Safety
/// They must be readable.
#[inline(always)]
unsafe fn load<T: Real>(p: *const T, n: usize) -> [T; LANES] {
    let mut x = [T::ZERO; LANES];
    if n == LANES {
        // SAFETY: the caller's promise.
        x = unsafe { *p.cast() };
    } else {
        for (i, x) in x.iter_mut().enumerate().take(n) {
            // SAFETY: the caller's promise.
            *x = unsafe { *p.add(i) };
        }
    }
    x
}

/// # Safety
/// `n` elements from `p` on must be writable.
#[inline(always)]
unsafe fn store<T: Real>(x: [T; LANES], p: *mut T, n: usize) {
    if n == LANES {
        // SAFETY: the caller's promise.
        unsafe { *p.cast() = x };
    } else {
        for (i, &x) in x.iter().enumerate().take(n) {
            // SAFETY: the caller's promise.
            unsafe { *p.add(i) = x };
        }
    }
}

impl<T: Real> Finish<T> {
    /// Asks for what the tile's epilogue will read or write besides C, ahead of time.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn prefetch(self, stride: usize, tile: Tile) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let both = match self {
            Finish::None | Finish::Bias(_) | Finish::BiasGelu(..) => return,
            Finish::BiasAndGelu(_, _, out) => [out.cast_const(); 2],
            Finish::GeluGradient(u, _, out) => [u, out.cast_const()],
        };
        for row in tile.row..tile.row + tile.rows {
            for matrix in both {
                let start = matrix.wrapping_add(row * stride + tile.column).cast::<i8>();
                for line in 0..LANES * size_of::<T>() / 64 {
                    // SAFETY: a prefetch has no effect but on the caches.
                    unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(64 * line)) };
                }
            }
        }
    }

    /// Applies it to a tile of C, whose rows are `stride` apart.
    ///
    /// # Safety
    /// C must be writable, and nothing else may access the tile's elements in it and in what lies as C does.
    #[inline(always)]
    pub(super) unsafe fn tile(self, c: *mut T, stride: usize, tile: Tile) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Finish::None => {}
                Finish::Bias(bias) => {
                    let bias = load(bias.add(tile.column), tile.cols);
                    each_row!(c, stride, tile, |c, _at| add(c, bias));
                }
                Finish::BiasGelu(_, crate::Gelu::Erf) => self.gelu::<Gelu>(c, stride, tile),
                Finish::BiasGelu(_, crate::Gelu::Tanh) => self.gelu::<GeluTanh>(c, stride, tile),
                Finish::BiasAndGelu(_, crate::Gelu::Erf, _) => self.gelu::<Gelu>(c, stride, tile),
                Finish::BiasAndGelu(_, crate::Gelu::Tanh, _) => self.gelu::<GeluTanh>(c, stride, tile),
                Finish::GeluGradient(_, crate::Gelu::Erf, _) => self.gelu::<Gelu>(c, stride, tile),
                Finish::GeluGradient(_, crate::Gelu::Tanh, _) => self.gelu::<GeluTanh>(c, stride, tile),
            }
        }
    }

    /// The forms with GELU.
    ///
    /// # Safety
    /// As [`tile`](Finish::tile).
    #[inline(always)]
    unsafe fn gelu<F: Unary>(self, c: *mut T, stride: usize, tile: Tile) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Finish::BiasGelu(bias, _) => {
                    let bias = load(bias.add(tile.column), tile.cols);
                    each_row!(c, stride, tile, |c, _at| each(add(c, bias), F::value));
                }
                Finish::BiasAndGelu(bias, _, out) => {
                    let bias = load(bias.add(tile.column), tile.cols);
                    each_row!(c, stride, tile, |c, at| {
                        let c = add(c, bias);
                        store(each(c, F::value), out.add(at), tile.cols);
                        c
                    });
                }
                Finish::GeluGradient(u, _, out) => each_row!(c, stride, tile, |c, at| {
                    let u = load(u.add(at), tile.cols);
                    store(each(u, F::value), out.add(at), tile.cols);
                    let mut dx = each(u, F::derivative);
                    for (dx, dy) in dx.iter_mut().zip(c) {
                        *dx *= dy;
                    }
                    dx
                }),
                Finish::None | Finish::Bias(_) => {}
            }
        }
    }
}

/// As `x.map(f)`, which does not become vector instructions.
#[inline(always)]
fn each<T: Real>(mut x: [T; LANES], f: impl Fn(T) -> T) -> [T; LANES] {
    for x in &mut x {
        *x = f(*x);
    }
    x
}

#[inline(always)]
fn add<T: Real>(mut x: [T; LANES], y: [T; LANES]) -> [T; LANES] {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
    x
}

/// Where C lies.
#[derive(Clone, Copy)]
struct Place<T> {
    c: *mut T,
    stride: usize,
    cols: usize,
}

// SAFETY: used for rows that the threads share out.
unsafe impl<T: Send> Send for Place<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Place<T> {}

simd! {
    /// The caller promises what [`Finish::tile`] asks for, of these rows.
    fn finish_rows<T: Real>(finish: Finish<T>, place: Place<T>, row: usize, rows: usize) {
        for column in (0..place.cols).step_by(LANES) {
            let tile = Tile { row, column, rows, cols: LANES.min(place.cols - column) };
            // SAFETY: the caller's promise.
            unsafe { finish.tile(place.c, place.stride, tile) };
        }
    }
}

/// Applies an epilogue to all of C, as a pass of its own.
pub(super) fn apply<T: Real>(epilogue: Epilogue<'_, T>, c: ViewMut<'_, T>) {
    let finish = epilogue.finish();
    if matches!(finish, Finish::None) {
        return;
    }
    let place = Place { c: c.data.as_mut_ptr(), stride: c.row_stride, cols: c.cols };
    // C is borrowed mutably, so are the matrices besides it, and every row is one thread's.
    for_rows(c.rows, 4 * c.cols, (), |range, ()| finish_rows(finish, place, range.start, range.len()));
}
