//! Loops over strided operands: copies, broadcast pairs, sums over dimensions. The operations of a training step have
//! specialised loops; these serve everything else.

use crate::cpu::real::Real;
use crate::layout::Layout;
use crate::memory::is_dry;

/// Calls `f` for every run of elements along the last dimension of `layout`, with the row-major position and the offset of
/// its first element.
fn for_runs(layout: &Layout, mut f: impl FnMut(usize, usize)) {
    let Some((&width, outer)) = layout.shape.split_last() else { return f(0, 0) };
    if layout.elements() == 0 || is_dry() {
        return;
    }
    let runs: usize = outer.iter().product();
    let mut index = [0usize; crate::layout::MAX_RANK];
    let mut offset = 0;
    for run in 0..runs {
        f(run * width, offset);
        for axis in (0..outer.len()).rev() {
            index[axis] += 1;
            offset += layout.strides[axis];
            if index[axis] < outer[axis] {
                break;
            }
            offset -= layout.strides[axis] * outer[axis];
            index[axis] = 0;
        }
    }
}

/// Like [`for_runs`] for two layouts of the same shape: calls `f` with the position and both offsets.
fn for_run_pairs(a: &Layout, b: &Layout, mut f: impl FnMut(usize, usize, usize)) {
    let rank = a.shape.len().saturating_sub(1);
    // The second offset is computed from the position, with one division per dimension and run.
    for_runs(a, |start, a_offset| {
        let (mut rest, mut b_offset) = (start / a.shape.last().copied().unwrap_or(1).max(1), 0);
        for axis in (0..rank).rev() {
            b_offset += rest % a.shape[axis] * b.strides[axis];
            rest /= a.shape[axis];
        }
        f(start, a_offset, b_offset);
    });
}

fn run(layout: &Layout) -> (usize, usize) {
    (layout.shape.last().copied().unwrap_or(1), layout.strides.last().copied().unwrap_or(1))
}

/// Copies strided elements to the row-major `to`. `from` starts at the offset of `layout`.
pub(crate) fn copy<T: Copy>(from: &[T], layout: &Layout, to: &mut [T]) {
    let (width, stride) = run(layout);
    for_runs(layout, |start, offset| {
        let to = &mut to[start..start + width];
        match stride {
            1 => to.copy_from_slice(&from[offset..offset + width]),
            0 => to.fill(from[offset]),
            _ => to.iter_mut().enumerate().for_each(|(i, to)| *to = from[offset + i * stride]),
        }
    });
}

/// Writes `f(a, b)` for each pair of elements to the row-major `to`. Both layouts have the same shape.
pub(crate) fn zip<T: Copy>(
    a: &[T],
    a_layout: &Layout,
    b: &[T],
    b_layout: &Layout,
    to: &mut [T],
    f: impl Fn(T, T) -> T,
) {
    let ((width, a_stride), (_, b_stride)) = (run(a_layout), run(b_layout));
    for_run_pairs(a_layout, b_layout, |start, a_offset, b_offset| {
        let to = &mut to[start..start + width];
        match (a_stride, b_stride) {
            (1, 1) => {
                let pairs = a[a_offset..a_offset + width].iter().zip(&b[b_offset..b_offset + width]);
                to.iter_mut().zip(pairs).for_each(|(to, (&a, &b))| *to = f(a, b));
            }
            (1, 0) => {
                let b = b[b_offset];
                to.iter_mut().zip(&a[a_offset..a_offset + width]).for_each(|(to, &a)| *to = f(a, b));
            }
            _ => {
                for (i, to) in to.iter_mut().enumerate() {
                    *to = f(a[a_offset + i * a_stride], b[b_offset + i * b_stride]);
                }
            }
        }
    });
}

/// Sums over the dimensions that have size 1 in `shape`, the shape of the row-major `to`, which has the rank of `layout`. Adds
/// in f64 and in row-major order for every layout.
pub(crate) fn sum<T: Real>(from: &[T], layout: &Layout, shape: &[usize], to: &mut [T]) {
    // The strides of the result: 0 in the dimensions that are summed.
    let mut strides = [0; crate::layout::MAX_RANK];
    let mut stride = 1;
    for axis in (0..shape.len()).rev() {
        strides[axis] = if shape[axis] == 1 { 0 } else { stride };
        stride *= shape[axis];
    }
    let mut sums = vec![0.0f64; to.len()];
    let (width, from_stride) = run(layout);
    let to_stride = shape.len().checked_sub(1).map_or(0, |last| strides[last]);
    for_runs(layout, |start, offset| {
        let mut place = 0;
        let mut rest = start / width.max(1);
        for axis in (0..shape.len().saturating_sub(1)).rev() {
            place += rest % layout.shape[axis] * strides[axis];
            rest /= layout.shape[axis];
        }
        for i in 0..width {
            sums[place + i * to_stride] += from[offset + i * from_stride].to_f64();
        }
    });
    to.iter_mut().zip(sums).for_each(|(to, sum)| *to = T::from_f64(sum));
}

/// Combines each element of the strided `to` with the corresponding element of the row-major `from`. `to` starts at the offset
/// of `layout`.
pub(crate) fn assign<T: Copy>(to: &mut [T], layout: &Layout, from: &[T], combine: impl Fn(&mut T, T)) {
    if layout.is_contiguous() && !is_dry() {
        return to.iter_mut().zip(from).for_each(|(to, &from)| combine(to, from));
    }
    let (width, stride) = run(layout);
    for_runs(layout, |start, offset| {
        for (i, &from) in from[start..start + width].iter().enumerate() {
            combine(&mut to[offset + i * stride], from);
        }
    });
}
