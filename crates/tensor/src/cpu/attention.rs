//! Multi-head self-attention over packed sequences: `softmax(Q K^T scale) V` within each sequence.
//!
//! ```text
//! T tokens, B sequences, N heads, D head size, H = N D
//! qkv [T, 3H]: a row holds the token's queries (N times D), its keys, its values
//! out [T, H], lse [T, N], cu_seqlens [B + 1], sequences [B]
//! ```
//!
//! A task is one head of one sequence. It goes by blocks of query rows, each against all keys, so a block's scores stay
//! in the second-level cache and no `L x L` matrix exists. Forward keeps the log-sum-exp of each row; backward
//! recomputes the probabilities from it, with `dS = P (dP - rowsum(dO O))` (Dao et al., "FlashAttention", 2022). Nothing
//! crosses a sequence's boundary and there is no mask. Scores have padded rows whose padding is minus infinity, so that
//! loops over them have no remainder.
//!
//! Dropout masks are made by blocks of 16 x 32 scores in the layout of [`Dropout::attention_counter`].

use crate::{Dropout, Precision, memory};

use super::dropout::philox_lanes;
use super::gemm::{Gemm, View, Workspace};
use super::parallel::{Disjoint, RowsMut, for_blocks, for_tasks};
use super::real::{LANES, max, sum, sum2};
use super::simd::simd;
use super::{Real, Target};

/// Query rows of a block; a multiple of 16.
const BLOCK: usize = 128;

/// What attention goes by.
#[derive(Clone, Copy)]
pub(crate) struct Attention<'a> {
    pub(crate) heads: usize,
    pub(crate) head_size: usize,
    /// Multiplies scores; positive.
    pub(crate) scale: f64,
    /// Where sequences begin, and last where the last ends.
    pub(crate) cu_seqlens: &'a [u32],
    /// The global number of each sequence in the step: for dropout. May be empty when there is none.
    pub(crate) sequences: &'a [u32],
    /// Of probabilities.
    pub(crate) dropout: Dropout,
    /// Of the products.
    pub(crate) precision: Precision,
}

impl Attention<'_> {
    fn hidden(&self) -> usize {
        self.heads * self.head_size
    }

    fn tokens(&self) -> usize {
        self.cu_seqlens.last().map_or(0, |&end| end as usize)
    }

    fn start(&self, sequence: usize) -> usize {
        self.cu_seqlens[sequence] as usize
    }

    fn len(&self, sequence: usize) -> usize {
        (self.cu_seqlens[sequence + 1] - self.cu_seqlens[sequence]) as usize
    }

    fn longest(&self) -> usize {
        (0..self.cu_seqlens.len().saturating_sub(1)).map(|s| self.len(s)).max().unwrap_or(0)
    }

    /// The dropout's number of a sequence.
    fn number(&self, sequence: usize) -> u32 {
        if self.dropout.is_none() { 0 } else { self.sequences[sequence] }
    }

    #[inline(always)]
    fn product<'a, T: Real>(&self, a: View<'a, T>, b: View<'a, T>) -> Gemm<'a, T> {
        Gemm::new(a, b).precision(self.precision)
    }

    fn check(&self) {
        assert!(self.scale > 0.0);
        assert!(self.cu_seqlens.windows(2).all(|w| w[0] <= w[1]) && self.cu_seqlens.first().is_none_or(|&s| s == 0));
        assert!(self.dropout.is_none() || self.sequences.len() + 1 == self.cu_seqlens.len());
    }

    /// Calls `f` with scratch space, sequence and head, the longest sequences first. `weight` is how heavy a pass is.
    fn for_heads<S>(&self, weight: usize, scratch: impl Fn() -> S + Sync, f: impl Fn(&mut S, usize, usize) + Sync) {
        let mut order: Vec<usize> = (0..self.cu_seqlens.len().saturating_sub(1)).collect();
        order.sort_by_key(|&s| std::cmp::Reverse(self.len(s)));
        let cost: usize = order.iter().map(|&s| self.len(s) * (self.len(s) + 8) * self.hidden() / 8).sum();
        for_tasks(order.len() * self.heads, weight * cost, scratch, |scratch, task| {
            f(scratch, order[task / self.heads], task % self.heads);
        });
    }
}

/// Columns that a row of scores takes in scratch; also a multiple of the 32 columns of a dropout block.
fn padded(len: usize) -> usize {
    len.next_multiple_of(LANES)
}

/// Space for the bytes of one block's dropout masks.
fn mask_len(len: usize) -> usize {
    BLOCK * padded(len)
}

/// The random bytes of score rows `first_row..first_row + rows` (`first_row` a multiple of 16), all columns: rows of
/// `len` rounded up to 32.
#[inline(always)]
fn mask_bytes(
    dropout: &Dropout,
    (sequence, head): (u32, u32),
    first_row: usize,
    rows: usize,
    len: usize,
    bytes: &mut [u8],
) {
    let stride = padded(len);
    for block_row in 0..rows.div_ceil(16) {
        for block_column in 0..stride / 32 {
            let (row, column) = ((first_row / 16 + block_row) as u32, block_column as u32);
            let (counter, key) = dropout.attention_counter(sequence, head, row, column, 0);
            let words = philox_lanes::<32>(counter, key);
            // Row i has the lower (i < 8) or upper half of each word. In word w, its columns 8 w .. 8 w + 8 are the two
            // bytes each of lanes 4 (i % 8) .. + 4.
            let mut halves = [[[0u16; 32]; 4]; 2];
            for (w, words) in words.iter().enumerate() {
                for (lane, word) in words.iter().enumerate() {
                    halves[0][w][lane] = (*word as u16).to_le();
                    halves[1][w][lane] = ((word >> 16) as u16).to_le();
                }
            }
            for i in 0..16.min(rows - block_row * 16) {
                let to = &mut bytes[(block_row * 16 + i) * stride + block_column * 32..][..32];
                for (to, half) in to.as_chunks_mut::<8>().0.iter_mut().zip(&halves[i / 8]) {
                    to.copy_from_slice(bytemuck::cast_slice(&half[4 * (i % 8)..][..4]));
                }
            }
        }
    }
}

/// Scratch space of a thread.
struct Scratch<T> {
    scores: memory::Scratch,
    gradients: memory::Scratch,
    bytes: memory::Scratch,
    space: Workspace<T>,
}

impl<T: Real> Scratch<T> {
    fn new(attention: &Attention<'_>, backward: bool) -> Self {
        let len = attention.longest();
        let square = BLOCK.min(len) * padded(len);
        let block = |wanted: bool, bytes: usize| memory::Scratch::new(if wanted { bytes } else { 0 });
        Scratch {
            scores: block(true, square * size_of::<T>()),
            gradients: block(backward, square * size_of::<T>()),
            bytes: block(!attention.dropout.is_none(), mask_len(len)),
            space: Workspace::default(),
        }
    }
}

/// A row of scores (padded) to unnormalised probabilities; returns their sum's reciprocal and the log-sum-exp.
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

simd! {
    /// One head of one sequence. `qkv` begins at the sequence's first row; `out` and `lse` belong to the whole batch.
    fn forward_head<T: Real>(
        attention: &Attention<'_>,
        sequence: usize,
        head: usize,
        qkv: &[T],
        out: &Disjoint<'_, T>,
        lse: &Disjoint<'_, T>,
        scratch: &mut Scratch<T>,
    ) {
        let (hidden, heads, size) = (attention.hidden(), attention.heads, attention.head_size);
        let (start, len, stride) = (attention.start(sequence), attention.len(sequence), 3 * hidden);
        let (scale, wide) = (T::from_f64(attention.scale), padded(len));
        let (q, k, v) = (head * size, hidden + head * size, 2 * hidden + head * size);
        let part = |start: usize, rows: usize| View::new(&qkv[start..], rows, size, stride, 1);
        let (keys, values) = (part(k, len), part(v, len));
        let dropout = &attention.dropout;
        let (threshold, kept) = (dropout.threshold(), T::from_f64(dropout.scale()));
        for first in (0..len).step_by(BLOCK) {
            let rows = BLOCK.min(len - first);
            let scores = &mut scratch.scores.slice_mut::<T>()[..rows * wide];
            let query = part(first * stride + q, rows);
            // SAFETY: `scores` has as many rows, which are as wide.
            unsafe { attention.product(query, keys.transposed()).serial(scores.as_mut_ptr(), wide, &mut scratch.space) };
            let bytes = scratch.bytes.slice_mut::<u8>();
            if !dropout.is_none() {
                let at = (attention.number(sequence), head as u32);
                mask_bytes(dropout, at, first, rows, len, bytes);
            }
            for (i, row) in scores.chunks_exact_mut(wide).enumerate() {
                let (reciprocal, log) = exponentials(row, len, scale);
                if dropout.is_none() {
                    for chunk in row.as_chunks_mut::<LANES>().0 {
                        for x in chunk {
                            *x *= reciprocal;
                        }
                    }
                } else {
                    let (reciprocal, bytes) = (reciprocal * kept, &bytes[i * wide..]);
                    for (x, bytes) in row.as_chunks_mut::<LANES>().0.iter_mut().zip(bytes.as_chunks::<LANES>().0) {
                        for (x, &byte) in x.iter_mut().zip(bytes) {
                            *x *= if (byte as u32) < threshold { T::ZERO } else { reciprocal };
                        }
                    }
                }
                let at = (start + first + i) * heads + head;
                // SAFETY: this row and head belong to this task.
                unsafe { lse.slice(at..at + 1)[0] = log };
            }
            let to = out.strided((start + first) * hidden + q, rows, size, hidden);
            // SAFETY: these columns of these rows are in bounds, and belong to this task alone.
            unsafe { attention.product(View::new(scores, rows, len, wide, 1), values).serial(to, hidden, &mut scratch.space) };
        }
    }

    /// One head of one sequence. `qkv`, `out` and `dout` begin at the sequence's first row; `lse` and `dqkv` belong to
    /// the whole batch.
    fn backward_head<T: Real>(
        attention: &Attention<'_>,
        sequence: usize,
        head: usize,
        qkv: &[T],
        out: &[T],
        lse: &[T],
        dout: &[T],
        dqkv: &Disjoint<'_, T>,
        accumulate: bool,
        scratch: &mut Scratch<T>,
    ) {
        let (hidden, heads, size) = (attention.hidden(), attention.heads, attention.head_size);
        let (start, len, stride) = (attention.start(sequence), attention.len(sequence), 3 * hidden);
        let (scale, wide) = (T::from_f64(attention.scale), padded(len));
        let (q, k, v) = (head * size, hidden + head * size, 2 * hidden + head * size);
        let part = |start: usize, rows: usize| View::new(&qkv[start..], rows, size, stride, 1);
        let (keys, values) = (part(k, len), part(v, len));
        let space = &mut scratch.space;
        let dropout = &attention.dropout;
        let (threshold, kept) = (dropout.threshold(), T::from_f64(dropout.scale()));
        for first in (0..len).step_by(BLOCK) {
            let rows = BLOCK.min(len - first);
            let (p, ds) = (&mut scratch.scores.slice_mut::<T>()[..rows * wide], &mut scratch.gradients.slice_mut::<T>()[..rows * wide]);
            let query = part(first * stride + q, rows);
            let dhead = View::new(&dout[first * hidden + q..], rows, size, hidden, 1);
            // SAFETY: both have as many rows, which are as wide.
            unsafe {
                attention.product(query, keys.transposed()).serial(p.as_mut_ptr(), wide, space);
                attention.product(dhead, values.transposed()).serial(ds.as_mut_ptr(), wide, space);
            }
            let bytes = scratch.bytes.slice_mut::<u8>();
            if !dropout.is_none() {
                let at = (attention.number(sequence), head as u32);
                mask_bytes(dropout, at, first, rows, len, bytes);
            }
            for (i, (p, ds)) in p.chunks_exact_mut(wide).zip(ds.chunks_exact_mut(wide)).enumerate() {
                let at = (first + i) * hidden + q;
                let delta = sum2(&dout[at..at + size], &out[at..at + size], |x, y| x * y);
                let log = lse[(start + first + i) * heads + head];
                p[len..].fill(T::NEG_INFINITY);
                let (p, ds) = (p.as_chunks_mut::<LANES>().0, ds.as_chunks_mut::<LANES>().0);
                if dropout.is_none() {
                    for (p, ds) in p.iter_mut().zip(ds) {
                        for (p, ds) in p.iter_mut().zip(ds) {
                            *p = (*p).mul_add(scale, -log).exp();
                            *ds = *p * scale * (*ds - delta);
                        }
                    }
                } else {
                    let bytes = bytes[i * wide..].as_chunks::<LANES>().0;
                    for ((p, ds), bytes) in p.iter_mut().zip(ds).zip(bytes) {
                        for ((p, ds), &byte) in p.iter_mut().zip(ds).zip(bytes) {
                            let mask = if (byte as u32) < threshold { T::ZERO } else { kept };
                            let probability = (*p).mul_add(scale, -log).exp();
                            *ds = probability * scale * (*ds).mul_add(mask, -delta);
                            *p = probability * mask;
                        }
                    }
                }
            }
            let later = accumulate || first > 0;
            let [to_q, to_k, to_v] = [(first, rows, q), (0, len, k), (0, len, v)]
                .map(|(row, rows, column)| dqkv.strided((start + row) * stride + column, rows, size, stride));
            // SAFETY: these columns of the sequence's rows are in bounds, and belong to this task alone.
            unsafe {
                let (p, ds) = (View::new(p, rows, len, wide, 1), View::new(ds, rows, len, wide, 1));
                attention.product(ds, keys).accumulate(accumulate).serial(to_q, stride, space);
                attention.product(ds.transposed(), query).accumulate(later).serial(to_k, stride, space);
                attention.product(p.transposed(), dhead).accumulate(later).serial(to_v, stride, space);
            }
        }
    }

    /// Probabilities `[L, L]` of one head of one sequence, whose rows of `qkv` these are.
    fn weights_head<T: Real>(qkv: &[T], heads: usize, size: usize, head: usize, scale: T, out: &mut [T]) {
        let (hidden, stride) = (heads * size, 3 * heads * size);
        let len = qkv.len() / stride;
        let wide = padded(len);
        let (mut space, mut scores) = (Workspace::default(), vec![T::ZERO; BLOCK * wide]);
        let part = |start: usize, rows: usize| View::new(&qkv[start..], rows, size, stride, 1);
        let keys = part(hidden + head * size, len).transposed();
        for first in (0..len).step_by(BLOCK) {
            let rows = BLOCK.min(len - first);
            let query = part(first * stride + head * size, rows);
            // SAFETY: `scores` has as many rows, which are as wide.
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

/// `out [T, H]` and `lse [T, N]` from `qkv [T, 3H]`.
pub(crate) fn forward<T: Real>(attention: &Attention<'_>, qkv: &[T], out: &mut [T], lse: &mut [T]) {
    attention.check();
    let (tokens, hidden) = (attention.tokens(), attention.hidden());
    assert!(qkv.len() == tokens * 3 * hidden && out.len() == tokens * hidden && lse.len() == tokens * attention.heads);
    if hidden == 0 {
        return;
    }
    let (out, lse) = (Disjoint::new(out), Disjoint::new(lse));
    let scratch = || Scratch::new(attention, false);
    attention.for_heads(1, scratch, |scratch, sequence, head| {
        if attention.len(sequence) > 0 {
            let qkv = &qkv[attention.start(sequence) * 3 * hidden..];
            forward_head(attention, sequence, head, qkv, &out, &lse, scratch);
        }
    });
}

/// `dqkv [T, 3H]` from `dout [T, H]`, with what [`forward`] was given and gave.
pub(crate) fn backward<T: Real>(
    attention: &Attention<'_>,
    qkv: &[T],
    out: &[T],
    lse: &[T],
    dout: &[T],
    dqkv: Target<'_, T>,
) {
    attention.check();
    let (tokens, hidden) = (attention.tokens(), attention.hidden());
    assert!(qkv.len() == tokens * 3 * hidden && out.len() == tokens * hidden && lse.len() == tokens * attention.heads);
    assert!(dout.len() == out.len() && dqkv.data.len() == qkv.len());
    if hidden == 0 {
        return;
    }
    let (dqkv, accumulate) = (Disjoint::new(dqkv.data), dqkv.accumulate);
    let scratch = || Scratch::new(attention, true);
    attention.for_heads(3, scratch, |scratch, sequence, head| {
        if attention.len(sequence) > 0 {
            let start = attention.start(sequence);
            let (qkv, out, dout) = (&qkv[start * 3 * hidden..], &out[start * hidden..], &dout[start * hidden..]);
            backward_head(attention, sequence, head, qkv, out, lse, dout, &dqkv, accumulate, scratch);
        }
    });
}

/// The probabilities `[N, L, L]` of one sequence, without dropout, to be looked at: `qkv [L, 3H]` are its rows.
pub(crate) fn weights<T: Real>(qkv: &[T], heads: usize, head_size: usize, scale: f64, out: &mut [T]) {
    let stride = 3 * heads * head_size;
    assert!(scale > 0.0 && stride > 0 && qkv.len().is_multiple_of(stride));
    let len = qkv.len() / stride;
    assert_eq!(out.len(), heads * len * len);
    for_blocks(heads, 1, len * len * head_size / 4, RowsMut::new(out, len * len), |range, out| {
        weights_head(qkv, heads, head_size, range.start, T::from_f64(scale), out.data);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::parallel::testing::with_threads;
    use crate::cpu::simd::testing::{at_each_level, steady_level};
    use crate::cpu::testing::{close, dot, numeric_gradient, random, random_in, wide};

    /// The multiplier of a probability, by the words of dropout.rs.
    fn multiplier(dropout: &Dropout, sequence: u32, head: usize, row: usize, column: usize) -> f64 {
        if dropout.is_none() {
            return 1.0;
        }
        let (i, j) = (row % 16, column % 32);
        let lane = 4 * (i % 8) + (j % 8) / 2;
        let counter =
            dropout.attention_counter(sequence, head as u32, row as u32 / 16, column as u32 / 32, lane as u32);
        let byte = Dropout::bytes(counter)[4 * (j / 8) + 2 * (i / 8) + j % 2];
        if (byte as u32) < dropout.threshold() { 0.0 } else { dropout.scale() }
    }

    /// Output and log-sum-exp, one element at a time.
    fn reference(attention: &Attention<'_>, qkv: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (hidden, size, heads) = (attention.hidden(), attention.head_size, attention.heads);
        let at = |token: usize, part: usize, head: usize, c: usize| {
            qkv[token * 3 * hidden + part * hidden + head * size + c]
        };
        let mut out = vec![0.0; attention.tokens() * hidden];
        let mut lse = vec![0.0; attention.tokens() * heads];
        for s in 0..attention.cu_seqlens.len() - 1 {
            let (start, len) = (attention.start(s), attention.len(s));
            for head in 0..heads {
                for i in 0..len {
                    let score = |j: usize| {
                        let product = |c| at(start + i, 0, head, c) * at(start + j, 1, head, c);
                        (0..size).map(product).sum::<f64>() * attention.scale
                    };
                    let scores: Vec<f64> = (0..len).map(score).collect();
                    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let total: f64 = scores.iter().map(|x| (x - largest).exp()).sum();
                    lse[(start + i) * heads + head] = largest + total.ln();
                    for (j, score) in scores.iter().enumerate() {
                        let m = multiplier(&attention.dropout, attention.number(s), head, i, j);
                        let p = (score - largest).exp() / total * m;
                        for c in 0..size {
                            out[(start + i) * hidden + head * size + c] += p * at(start + j, 2, head, c);
                        }
                    }
                }
            }
        }
        (out, lse)
    }

    fn run<T: Real>(attention: &Attention<'_>, qkv: &[T], dout: &[T]) -> [Vec<T>; 3] {
        let nan = T::from_f64(f64::NAN);
        let tokens = attention.tokens();
        let (mut out, mut lse) = (vec![nan; tokens * attention.hidden()], vec![nan; tokens * attention.heads]);
        forward(attention, qkv, &mut out, &mut lse);
        let mut dqkv = vec![nan; qkv.len()];
        backward(attention, qkv, &out, &lse, dout, Target::new(&mut dqkv, false));
        let once = dqkv.clone();
        backward(attention, qkv, &out, &lse, dout, Target::new(&mut dqkv, true));
        let twice: Vec<f64> = once.iter().map(|x| 2.0 * x.to_f64()).collect();
        close(&dqkv, &twice, 1e-6, "accumulated");
        [out, lse, once]
    }

    fn cases() -> Vec<(usize, usize, Vec<u32>, Dropout)> {
        let dropout = Dropout::new(0.3, 11, 12, 13).unwrap();
        vec![
            (1, 1, vec![0, 1], Dropout::NONE),
            (2, 3, vec![0, 1, 1, 6], dropout),
            (3, 8, vec![0, 17, 18, 34], Dropout::NONE),
            (2, 17, vec![0, 15, 31, 64], dropout),
            (2, 32, vec![0, 64, 65, 198], dropout),
            (1, 64, vec![0, 40, 170], Dropout::NONE),
            (1, 80, vec![0, 33], dropout),
        ]
    }

    fn sequences(cu: &[u32]) -> Vec<u32> {
        (0..cu.len() as u32 - 1).map(|s| 1000 - 3 * s).collect()
    }

    #[test]
    fn forward_equals_the_formula_and_f32_backward_is_near_f64() {
        at_each_level(|_| {
            for (heads, head_size, cu, dropout) in cases() {
                let numbers = sequences(&cu);
                let scale = 0.3;
                let attention = Attention {
                    heads,
                    head_size,
                    scale,
                    cu_seqlens: &cu,
                    sequences: &numbers,
                    dropout,
                    precision: Precision::F32,
                };
                let qkv = random_in::<f32>(attention.tokens() * 3 * attention.hidden(), 1);
                let dout = random_in::<f32>(attention.tokens() * attention.hidden(), 2);
                let (want, want_lse) = reference(&attention, &wide(&qkv));
                let exact = run(&attention, &wide(&qkv), &wide(&dout));
                close(&exact[0], &want, 1e-13, "out");
                close(&exact[1], &want_lse, 1e-13, "lse");
                let got = run(&attention, &qkv, &dout);
                for (got, want) in got.iter().zip(&exact) {
                    close(got, want, 3e-6, "in f32");
                }
            }
        });
    }

    #[test]
    fn backward_equals_finite_differences() {
        at_each_level(|_| {
            for (heads, head_size, cu) in [(2, 3, vec![0, 1, 6, 6, 23]), (1, 2, vec![0, 66])] {
                for dropout in [Dropout::NONE, Dropout::new(0.3, 1, 2, 3).unwrap()] {
                    let numbers = sequences(&cu);
                    let attention = Attention {
                        heads,
                        head_size,
                        scale: 0.7,
                        cu_seqlens: &cu,
                        sequences: &numbers,
                        dropout,
                        precision: Precision::F32,
                    };
                    let qkv = random(attention.tokens() * 3 * attention.hidden(), 1);
                    let dout = random(attention.tokens() * attention.hidden(), 2);
                    let got = run(&attention, &qkv, &dout);
                    // Of the reference, for the first test shows the forward to equal it.
                    let loss = |qkv: &[f64]| {
                        let (mut out, mut lse) = (dout.clone(), vec![0.0; attention.tokens() * heads]);
                        forward(&attention, qkv, &mut out, &mut lse);
                        dot(&out, &dout)
                    };
                    close(&got[2], &numeric_gradient(&qkv, loss), 1e-7, "dqkv");
                }
            }
        });
    }

    #[test]
    fn same_bits_for_any_number_of_threads() {
        let _steady = steady_level();
        let cu = [0, 128, 143, 150, 400, 401];
        let numbers = sequences(&cu);
        let dropout = Dropout::new(0.1, 1, 2, 3).unwrap();
        let attention = Attention {
            heads: 4,
            head_size: 64,
            scale: 0.125,
            cu_seqlens: &cu,
            sequences: &numbers,
            dropout,
            precision: Precision::F32,
        };
        let qkv = random_in::<f32>(401 * 3 * 256, 1);
        let dout = random_in::<f32>(401 * 256, 2);
        let [one, two, five, team] = with_threads(|| run(&attention, &qkv, &dout));
        assert!(one == two && one == five && one == team);
    }

    #[test]
    fn extremes_are_finite() {
        at_each_level(|_| {
            let cu = [0, 20, 21];
            let attention = Attention {
                heads: 1,
                head_size: 16,
                scale: 0.25,
                cu_seqlens: &cu,
                sequences: &[],
                dropout: Dropout::NONE,
                precision: Precision::F32,
            };
            let qkv: Vec<f32> = random(21 * 48, 1).iter().map(|x| 1e4 * x.signum() as f32).collect();
            let [out, lse, dqkv] = run(&attention, &qkv, &vec![1.0; 21 * 16]);
            assert!(out.iter().chain(&lse).chain(&dqkv).all(|x| x.is_finite()));
            // The one-token sequence attends to itself alone.
            assert_eq!(out[20 * 16..], qkv[20 * 48 + 32..]);
        });
    }

    #[test]
    fn weights_are_what_attention_multiplies_values_with() {
        let (len, heads, size) = (70, 2, 16);
        let mut qkv = random(len * 3 * heads * size, 1);
        let mut p = vec![f64::NAN; heads * len * len];
        weights(&qkv, heads, size, 0.25, &mut p);
        // With values that name their token in one column, the output holds one column of the weights.
        let cu = [0, len as u32];
        for token in [0, 33, 69] {
            for (i, row) in qkv.chunks_mut(3 * heads * size).enumerate() {
                row[2 * heads * size..].fill(if i == token { 1.0 } else { 0.0 });
            }
            let attention = Attention {
                heads,
                head_size: size,
                scale: 0.25,
                cu_seqlens: &cu,
                sequences: &[],
                dropout: Dropout::NONE,
                precision: Precision::F32,
            };
            let out = reference(&attention, &qkv).0;
            for head in 0..heads {
                let want: Vec<f64> = (0..len).map(|i| out[i * heads * size + head * size]).collect();
                let got: Vec<f64> = (0..len).map(|i| p[(head * len + i) * len + token]).collect();
                close(&got, &want, 1e-13, "weights");
            }
        }
    }

    #[test]
    fn no_tokens() {
        for cu in [&[][..], &[0], &[0, 0]] {
            let attention = Attention {
                heads: 2,
                head_size: 4,
                scale: 1.0,
                cu_seqlens: cu,
                sequences: &[],
                dropout: Dropout::NONE,
                precision: Precision::F32,
            };
            forward::<f32>(&attention, &[], &mut [], &mut []);
            backward::<f32>(&attention, &[], &[], &[], &[], Target::new(&mut [], false));
        }
    }
}
