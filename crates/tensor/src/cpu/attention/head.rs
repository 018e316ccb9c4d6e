//! One head of one sequence: its forward, its backward and its weights.

use super::masks::{mask_bytes, mask_len};
use super::problem::{AttentionProblem, BLOCK, padded};
use crate::cpu::gemm::{Gemm, PackingSpace, View};
use crate::cpu::lanes::{LANES, max, sum, sum2};
use crate::cpu::parallel::Disjoint;
use crate::cpu::real::Real;
use crate::cpu::simd::simd;
use crate::dropout::Dropout;
use crate::memory::Scratch;

/// Working memory of a thread, for the longest sequence of a batch.
pub(super) struct HeadBuffers {
    /// A block of scores, then of probabilities.
    scores: Scratch,
    /// The gradients of a block of scores.
    gradients: Scratch,
    /// The random bytes of a block.
    bytes: Scratch,
    space: PackingSpace,
}

impl HeadBuffers {
    pub(super) fn new<T: Real>(attention: &AttentionProblem<'_>, backward: bool) -> Self {
        let len = attention.longest();
        let square = BLOCK.min(len) * padded(len);
        let block = |wanted: bool, bytes: usize| Scratch::new(if wanted { bytes } else { 0 });
        HeadBuffers {
            scores: block(true, square * size_of::<T>()),
            gradients: block(backward, square * size_of::<T>()),
            bytes: block(!attention.dropout.is_none(), mask_len(len)),
            space: PackingSpace::default(),
        }
    }
}

/// The position of one head of one sequence in the operands of a batch.
#[derive(Clone, Copy)]
struct HeadLayout {
    /// The first token of the sequence and its number of tokens.
    start: usize,
    len: usize,
    /// The width of a row of scores in memory.
    wide: usize,
    /// The size of the head, and of all heads together.
    size: usize,
    hidden: usize,
    /// Elements from one row of `qkv` to the next.
    stride: usize,
    /// The first columns of the head's queries, keys and values.
    q: usize,
    k: usize,
    v: usize,
}

impl HeadLayout {
    #[inline(always)]
    fn new(attention: &AttentionProblem<'_>, sequence: usize, head: usize) -> Self {
        let (hidden, size, len) = (attention.hidden(), attention.head_size, attention.len(sequence));
        let q = head * size;
        let start = attention.start(sequence);
        HeadLayout {
            start,
            len,
            wide: padded(len),
            size,
            hidden,
            stride: 3 * hidden,
            q,
            k: hidden + q,
            v: 2 * hidden + q,
        }
    }

    /// The head's part of some rows of `qkv`, which starts at the first row of the sequence, from a column on.
    #[inline(always)]
    fn rows<'a, T>(&self, qkv: &'a [T], column: usize, first: usize, rows: usize) -> View<'a, T> {
        View::new(&qkv[first * self.stride + column..], rows, self.size, self.stride, 1)
    }
}

/// Turns a padded row of scores into unnormalised probabilities. Returns the reciprocal of their sum and the log-sum-exp.
#[inline(always)]
fn exponentials<T: Real>(row: &mut [T], len: usize, scale: T) -> (T, T) {
    row[len..].fill(T::NEG_INFINITY);
    let largest = max(row);
    for chunk in row.as_chunks_mut::<LANES>().0 {
        for x in chunk {
            *x = ((*x - largest) * scale).exp();
        }
    }
    let total = sum(row, |x| x);
    (T::ONE / total, largest.mul_add(scale, total.ln()))
}

/// Multiplies a padded row by `factor`, and by 0 where dropout drops: where `bytes`, if there are any, are below the
/// threshold.
#[inline(always)]
fn normalise<T: Real>(row: &mut [T], factor: T, bytes: Option<&[u8]>, dropout: &Dropout) {
    let Some(bytes) = bytes else {
        for chunk in row.as_chunks_mut::<LANES>().0 {
            for x in chunk {
                *x *= factor;
            }
        }
        return;
    };
    let (threshold, factor) = (dropout.threshold(), factor * T::from_f64(dropout.scale()));
    for (x, bytes) in row.as_chunks_mut::<LANES>().0.iter_mut().zip(bytes.as_chunks::<LANES>().0) {
        for (x, &byte) in x.iter_mut().zip(bytes) {
            *x *= if (byte as u32) < threshold { T::ZERO } else { factor };
        }
    }
}

/// Turns a padded row of scores `p` into probabilities (after dropout) and the gradients `ds` of those probabilities into
/// the gradients of the scores. `log` is the log-sum-exp of the row, `delta` the dot product of its output and the
/// output's gradient.
#[inline(always)]
fn row_gradients<T: Real>(
    (p, ds): (&mut [T], &mut [T]),
    len: usize,
    (scale, log, delta): (T, T, T),
    bytes: Option<&[u8]>,
    dropout: &Dropout,
) {
    p[len..].fill(T::NEG_INFINITY);
    let (p, ds) = (p.as_chunks_mut::<LANES>().0, ds.as_chunks_mut::<LANES>().0);
    let Some(bytes) = bytes else {
        for (p, ds) in p.iter_mut().zip(ds) {
            for (p, ds) in p.iter_mut().zip(ds) {
                *p = (*p).mul_add(scale, -log).exp();
                *ds = *p * scale * (*ds - delta);
            }
        }
        return;
    };
    let (threshold, kept) = (dropout.threshold(), T::from_f64(dropout.scale()));
    for ((p, ds), bytes) in p.iter_mut().zip(ds).zip(bytes.as_chunks::<LANES>().0) {
        for ((p, ds), &byte) in p.iter_mut().zip(ds).zip(bytes) {
            let mask = if (byte as u32) < threshold { T::ZERO } else { kept };
            let probability = (*p).mul_add(scale, -log).exp();
            *ds = probability * scale * (*ds).mul_add(mask, -delta);
            *p = probability * mask;
        }
    }
}

simd! {
    /// Computes one head of one sequence. `qkv` starts at the first row of the sequence; `out` and `lse` are those of the
    /// whole batch.
    pub(super) fn forward_head<T: Real>(
        attention: &AttentionProblem<'_>,
        sequence: usize,
        head: usize,
        qkv: &[T],
        out: &Disjoint<'_, T>,
        lse: &Disjoint<'_, T>,
        buffers: &mut HeadBuffers,
    ) {
        let at = HeadLayout::new(attention, sequence, head);
        let HeadLayout { start, len, wide, size, hidden, q, k, v, .. } = at;
        let scale = T::from_f64(attention.scale);
        let (keys, values) = (at.rows(qkv, k, 0, len), at.rows(qkv, v, 0, len));
        let dropout = &attention.dropout;
        for first in (0..len).step_by(BLOCK) {
            let rows = BLOCK.min(len - first);
            let scores = &mut buffers.scores.slice_mut::<T>()[..rows * wide];
            let query = at.rows(qkv, q, first, rows);
            // SAFETY: `scores` is a mutable slice of `rows` rows of `wide` elements, at least the `len` of the product.
            unsafe { attention.product(query, keys.transposed()).serial(scores.as_mut_ptr(), wide, &mut buffers.space) };
            let bytes = buffers.bytes.slice_mut::<u8>();
            if !dropout.is_none() {
                let identity = (attention.number(sequence), head as u32);
                mask_bytes(dropout, identity, first, rows, len, bytes);
            }
            for (i, row) in scores.chunks_exact_mut(wide).enumerate() {
                let (reciprocal, log) = exponentials(row, len, scale);
                normalise(row, reciprocal, (!dropout.is_none()).then(|| &bytes[i * wide..]), dropout);
                let row = (start + first + i) * attention.heads + head;
                // SAFETY: no other task has this head of this sequence, so no other slice of this element exists.
                unsafe { lse.slice(row..row + 1)[0] = log };
            }
            let to = out.strided((start + first) * hidden + q, rows, size, hidden);
            let probabilities = View::new(scores, rows, len, wide, 1);
            // SAFETY: `strided` checked that the head's columns of these rows are in bounds, and no other task has them.
            unsafe { attention.product(probabilities, values).serial(to, hidden, &mut buffers.space) };
        }
    }

    /// Computes the gradients of one head of one sequence. `qkv`, `out` and `dout` start at the first row of the sequence;
    /// `lse` and `dqkv` are those of the whole batch.
    pub(super) fn backward_head<T: Real>(
        attention: &AttentionProblem<'_>,
        sequence: usize,
        head: usize,
        qkv: &[T],
        out: &[T],
        lse: &[T],
        dout: &[T],
        dqkv: &Disjoint<'_, T>,
        accumulate: bool,
        buffers: &mut HeadBuffers,
    ) {
        let at = HeadLayout::new(attention, sequence, head);
        let HeadLayout { start, len, wide, size, hidden, stride, q, k, v } = at;
        let scale = T::from_f64(attention.scale);
        let (keys, values) = (at.rows(qkv, k, 0, len), at.rows(qkv, v, 0, len));
        let HeadBuffers { scores, gradients, bytes, space } = buffers;
        let dropout = &attention.dropout;
        for first in (0..len).step_by(BLOCK) {
            let rows = BLOCK.min(len - first);
            let (p, ds) = (&mut scores.slice_mut::<T>()[..rows * wide], &mut gradients.slice_mut::<T>()[..rows * wide]);
            let query = at.rows(qkv, q, first, rows);
            let dhead = View::new(&dout[first * hidden + q..], rows, size, hidden, 1);
            // SAFETY: `p` is a mutable slice of `rows` rows of `wide` elements, at least the `len` of the product.
            unsafe { attention.product(query, keys.transposed()).serial(p.as_mut_ptr(), wide, space) };
            // SAFETY: so is `ds`.
            unsafe { attention.product(dhead, values.transposed()).serial(ds.as_mut_ptr(), wide, space) };
            let bytes = bytes.slice_mut::<u8>();
            if !dropout.is_none() {
                let identity = (attention.number(sequence), head as u32);
                mask_bytes(dropout, identity, first, rows, len, bytes);
            }
            for (i, (p, ds)) in p.chunks_exact_mut(wide).zip(ds.chunks_exact_mut(wide)).enumerate() {
                let row = (first + i) * hidden + q;
                let delta = sum2(&dout[row..row + size], &out[row..row + size], |x, y| x * y);
                let log = lse[(start + first + i) * attention.heads + head];
                let bytes = (!dropout.is_none()).then(|| &bytes[i * wide..]);
                row_gradients((p, ds), len, (scale, log, delta), bytes, dropout);
            }
            let later = accumulate || first > 0;
            let [to_q, to_k, to_v] = [(first, rows, q), (0, len, k), (0, len, v)]
                .map(|(row, rows, column)| dqkv.strided((start + row) * stride + column, rows, size, stride));
            let (p, ds) = (View::new(p, rows, len, wide, 1), View::new(ds, rows, len, wide, 1));
            // SAFETY: `strided` checked that the head's columns of these rows are in bounds, and no other task has them.
            unsafe { attention.product(ds, keys).accumulate(accumulate).serial(to_q, stride, space) };
            // SAFETY: as above.
            unsafe { attention.product(ds.transposed(), query).accumulate(later).serial(to_k, stride, space) };
            // SAFETY: as above.
            unsafe { attention.product(p.transposed(), dhead).accumulate(later).serial(to_v, stride, space) };
        }
    }

    /// Computes the probabilities `[L, L]` of one head of the sequence whose rows are `qkv`.
    pub(super) fn weights_head<T: Real>(qkv: &[T], heads: usize, size: usize, head: usize, scale: T, out: &mut [T]) {
        let (hidden, stride) = (heads * size, 3 * heads * size);
        let len = qkv.len() / stride;
        let wide = padded(len);
        let (mut space, mut scores) = (PackingSpace::default(), vec![T::ZERO; BLOCK * wide]);
        let part = |start: usize, rows: usize| View::new(&qkv[start..], rows, size, stride, 1);
        let keys = part(hidden + head * size, len).transposed();
        for first in (0..len).step_by(BLOCK) {
            let rows = BLOCK.min(len - first);
            let query = part(first * stride + head * size, rows);
            // SAFETY: `scores` is a mutable slice of `BLOCK` rows of `wide` elements, at least `rows` rows of `len`.
            unsafe { Gemm::new(query, keys).serial(scores.as_mut_ptr(), wide, &mut space) };
            for (row, out) in scores.chunks_exact_mut(wide).zip(out[first * len..].chunks_exact_mut(len)).take(rows) {
                let (reciprocal, _) = exponentials(row, len, scale);
                for (out, &x) in out.iter_mut().zip(&*row) {
                    *out = x * reciprocal;
                }
            }
        }
    }
}
