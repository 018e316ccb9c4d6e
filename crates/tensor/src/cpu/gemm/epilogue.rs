//! Epilogues: what follows the sum of an element of a product, such as a bias, GELU or the gradient of GELU.

#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "the accesses of a loop over a tile or panel have one contract"
)]

use super::view::ViewMut;
use crate::cpu::real::Real;
use crate::cpu::simd::prefetch;
use crate::cpu::unary::{self, GeluTanh, Unary};
use crate::gelu::Gelu;

/// An operation on each element of C when its sum is complete. If it involves a second matrix, that and C are row-major
/// without gaps.
#[derive(Default)]
pub(crate) enum Epilogue<'a, T> {
    #[default]
    None,
    /// `c += bias`, where the bias has an element for each column.
    Bias(&'a [T]),
    /// `c = gelu(c + bias)`.
    BiasGelu(&'a [T], Gelu),
    /// `c += bias`, and the matrix becomes `gelu(c)`.
    BiasAndGelu(&'a [T], Gelu, &'a mut [T]),
    /// For `u`, the first matrix: `c *= gelu'(u)`, and the second matrix becomes `gelu(u)`.
    GeluGradient(&'a [T], Gelu, &'a mut [T]),
}

impl<'a, T: Real> Epilogue<'a, T> {
    /// The same epilogue with elements of type `U`, which has the size of `T`.
    #[inline]
    pub(super) fn cast<U: Real>(self) -> Epilogue<'a, U> {
        use bytemuck::{cast_slice, cast_slice_mut};
        match self {
            Epilogue::None => Epilogue::None,
            Epilogue::Bias(bias) => Epilogue::Bias(cast_slice(bias)),
            Epilogue::BiasGelu(bias, gelu) => Epilogue::BiasGelu(cast_slice(bias), gelu),
            Epilogue::BiasAndGelu(bias, gelu, out) => {
                Epilogue::BiasAndGelu(cast_slice(bias), gelu, cast_slice_mut(out))
            }
            Epilogue::GeluGradient(u, gelu, out) => Epilogue::GeluGradient(cast_slice(u), gelu, cast_slice_mut(out)),
        }
    }
}

impl<T> Epilogue<'_, T> {
    /// # Panics
    /// Panics if the sizes do not fit C.
    pub(super) fn check(&self, c: &ViewMut<'_, T>) {
        let (size, whole) = (c.rows * c.cols, c.rows <= 1 || c.stride == c.cols);
        assert!(match self {
            Epilogue::None => true,
            Epilogue::Bias(bias) | Epilogue::BiasGelu(bias, _) => bias.len() == c.cols,
            Epilogue::BiasAndGelu(bias, _, out) => whole && bias.len() == c.cols && out.len() == size,
            Epilogue::GeluGradient(u, _, out) => whole && u.len() == size && out.len() == size,
        });
    }

    /// Converts to the form that the threads share.
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

/// An [`Epilogue`] that several threads apply, each to different tiles.
#[derive(Clone, Copy)]
pub(super) enum Finish<T> {
    None,
    Bias(*const T),
    BiasGelu(*const T, Gelu),
    BiasAndGelu(*const T, Gelu, *mut T),
    GeluGradient(*const T, Gelu, *mut T),
}

// SAFETY: the pointers are used only in `Finish::tile`, by whose contract no two threads access the same element.
unsafe impl<T: Send> Send for Finish<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Finish<T> {}

/// A part of C: `rows` rows and `cols` columns from (`row`, `column`) on.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub(super) row: usize,
    pub(super) column: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

/// Replaces each row of a tile by an expression of the row and the index of its first element. It is a macro because the
/// compiler may leave a closure out of line, without the SIMD features of its caller and with a call per multiply-add.
macro_rules! each_row {
    ($c:expr, $stride:expr, $tile:expr, |$row:ident, $at:ident| $body:expr) => {
        for row in $tile.row..$tile.row + $tile.rows {
            let $at = row * $stride + $tile.column;
            let to = $c.add($at);
            let $row = load::<T, N>(to, $tile.cols);
            store($body, to, $tile.cols);
        }
    };
}

/// Reads `n` elements from `p` on, followed by zeros.
///
/// # Safety
/// `p` must be valid for reads of `n` elements.
#[inline(always)]
unsafe fn load<T: Real, const N: usize>(p: *const T, n: usize) -> [T; N] {
    let mut x = [T::ZERO; N];
    if n == N {
        // SAFETY: `p` is valid for reads of `N` elements, and an array has the alignment of its elements.
        x = unsafe { *p.cast() };
    } else {
        for (i, x) in x.iter_mut().enumerate().take(n) {
            // SAFETY: `i` is below `n`.
            *x = unsafe { *p.add(i) };
        }
    }
    x
}

/// Writes the first `n` elements of `x` to `p`.
///
/// # Safety
/// `p` must be valid for writes of `n` elements.
#[inline(always)]
unsafe fn store<T: Real, const N: usize>(x: [T; N], p: *mut T, n: usize) {
    if n == N {
        // SAFETY: `p` is valid for writes of `N` elements, and an array has the alignment of its elements.
        unsafe { *p.cast() = x };
    } else {
        for (i, &x) in x.iter().enumerate().take(n) {
            // SAFETY: `i` is below `n`.
            unsafe { *p.add(i) = x };
        }
    }
}

impl<T: Real> Finish<T> {
    /// Prefetches what the epilogue of a tile reads or writes besides C.
    pub(super) fn prefetch(self, stride: usize, tile: Tile) {
        let both = match self {
            Finish::None | Finish::Bias(_) | Finish::BiasGelu(..) => return,
            Finish::BiasAndGelu(_, _, out) => [out.cast_const(); 2],
            Finish::GeluGradient(u, _, out) => [u, out.cast_const()],
        };
        for row in tile.row..tile.row + tile.rows {
            for matrix in both {
                let start = matrix.wrapping_add(row * stride + tile.column);
                for element in (0..tile.cols).step_by(64 / size_of::<T>()) {
                    prefetch::<1, _>(start.wrapping_add(element));
                }
            }
        }
    }

    /// Applies the epilogue to a tile of C, of at most `N` columns, whose rows are `stride` elements apart.
    ///
    /// # Safety
    /// The elements of the tile must be valid for reads and writes, in C and in the second matrix, and nothing else may
    /// access them.
    #[inline(always)]
    pub(super) unsafe fn tile<const N: usize>(self, c: *mut T, stride: usize, tile: Tile) {
        // SAFETY: the tile is valid and exclusive by this function's contract; `Epilogue::check` compared the sizes of the
        // bias and the second matrix with C.
        unsafe {
            match self {
                Finish::None => {}
                Finish::Bias(bias) => {
                    let bias = load::<T, N>(bias.add(tile.column), tile.cols);
                    each_row!(c, stride, tile, |c, _at| add(c, bias));
                }
                Finish::BiasGelu(_, Gelu::Erf) => self.gelu::<unary::Gelu, N>(c, stride, tile),
                Finish::BiasGelu(_, Gelu::Tanh) => self.gelu::<GeluTanh, N>(c, stride, tile),
                Finish::BiasAndGelu(_, Gelu::Erf, _) => self.gelu::<unary::Gelu, N>(c, stride, tile),
                Finish::BiasAndGelu(_, Gelu::Tanh, _) => self.gelu::<GeluTanh, N>(c, stride, tile),
                Finish::GeluGradient(_, Gelu::Erf, _) => self.gelu::<unary::Gelu, N>(c, stride, tile),
                Finish::GeluGradient(_, Gelu::Tanh, _) => self.gelu::<GeluTanh, N>(c, stride, tile),
            }
        }
    }

    /// Applies an epilogue with GELU.
    ///
    /// # Safety
    /// As for [`tile`](Finish::tile).
    #[inline(always)]
    unsafe fn gelu<F: Unary, const N: usize>(self, c: *mut T, stride: usize, tile: Tile) {
        // SAFETY: as in `tile`.
        unsafe {
            match self {
                Finish::BiasGelu(bias, _) => {
                    let bias = load::<T, N>(bias.add(tile.column), tile.cols);
                    each_row!(c, stride, tile, |c, _at| each(add(c, bias), F::value));
                }
                Finish::BiasAndGelu(bias, _, out) => {
                    let bias = load::<T, N>(bias.add(tile.column), tile.cols);
                    each_row!(c, stride, tile, |c, at| {
                        let c = add(c, bias);
                        store(each(c, F::value), out.add(at), tile.cols);
                        c
                    });
                }
                Finish::GeluGradient(u, _, out) => each_row!(c, stride, tile, |c, at| {
                    let u = load::<T, N>(u.add(at), tile.cols);
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

/// The same as `x.map(f)`, which the compiler does not vectorise.
#[inline(always)]
fn each<T: Real, const N: usize>(mut x: [T; N], f: impl Fn(T) -> T) -> [T; N] {
    for x in &mut x {
        *x = f(*x);
    }
    x
}

#[inline(always)]
fn add<T: Real, const N: usize>(mut x: [T; N], y: [T; N]) -> [T; N] {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
    x
}
