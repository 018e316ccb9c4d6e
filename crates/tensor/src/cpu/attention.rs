//! Multi-head self-attention over packed sequences: `softmax(Q K^T scale) V` within each sequence.
//!
//! ```text
//! T tokens, B sequences, N heads, D head size, H = N D
//! qkv [T, 3H]: each row holds the token's queries (N times D), its keys, its values
//! out [T, H], lse [T, N], cu_seqlens [B + 1], sequences [B]
//! ```
//!
//! A task is one head of one sequence, so attention never crosses the boundary of a sequence and needs no mask. A task
//! takes blocks of [`BLOCK`](problem::BLOCK) query rows, each against all keys of the sequence: the scores of a block stay
//! in the second-level cache and no `L x L` matrix exists. Because a block sees all keys, its softmax takes two plain
//! passes over a row (maximum, then exponentials and their sum); nothing has to be rescaled as in an online softmax.
//! Scores are padded with minus infinity to whole vectors, so that the loops over a row have no remainder.
//!
//! Forward keeps only the log-sum-exp of each row. Backward recomputes the scores of a block from Q and K, and the
//! probabilities `P = exp(S scale - lse)` from them without a second softmax. With `dP = dO V^T` the gradient of the
//! scores is `dS = P (dP - rowsum(dO O))` (T. Dao et al., "FlashAttention", 2022), and the rest is three products:
//! `dQ = dS K`, `dK += dS^T Q`, `dV += P^T dO`. A block writes its own rows of dQ and adds to dK and dV of the whole
//! sequence; only one task has the columns of a head, so blocks are added in order.
//!
//! Dropout masks come in blocks of 16 x 32 scores in the layout of
//! [`Dropout::attention_counter`](crate::Dropout::attention_counter) and are recomputed in backward, too.

mod head;
mod masks;
mod problem;
#[cfg(test)]
mod tests;

use self::head::{HeadBuffers, backward_head, forward_head, weights_head};
pub(crate) use self::problem::AttentionProblem;
use super::parallel::{Disjoint, RowsMut, for_blocks};
use super::real::Real;
use super::target::Target;

/// Computes `out [T, H]` and `lse [T, N]` from `qkv [T, 3H]`.
pub(crate) fn forward<T: Real>(attention: &AttentionProblem<'_>, qkv: &[T], out: &mut [T], lse: &mut [T]) {
    attention.check();
    let (tokens, hidden) = (attention.tokens(), attention.hidden());
    assert!(qkv.len() == tokens * 3 * hidden && out.len() == tokens * hidden && lse.len() == tokens * attention.heads);
    if hidden == 0 {
        return;
    }
    let (out, lse) = (Disjoint::new(out), Disjoint::new(lse));
    let buffers = || HeadBuffers::new::<T>(attention, false);
    attention.for_heads(1, buffers, |buffers, sequence, head| {
        if attention.len(sequence) > 0 {
            let qkv = &qkv[attention.start(sequence) * 3 * hidden..];
            forward_head(attention, sequence, head, qkv, &out, &lse, buffers);
        }
    });
}

/// Computes `dqkv [T, 3H]` from `dout [T, H]` and from the input and output of [`forward`].
pub(crate) fn backward<T: Real>(
    attention: &AttentionProblem<'_>,
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
    let buffers = || HeadBuffers::new::<T>(attention, true);
    attention.for_heads(3, buffers, |buffers, sequence, head| {
        if attention.len(sequence) > 0 {
            let start = attention.start(sequence);
            let (qkv, out, dout) = (&qkv[start * 3 * hidden..], &out[start * hidden..], &dout[start * hidden..]);
            backward_head(attention, sequence, head, qkv, out, lse, dout, &dqkv, accumulate, buffers);
        }
    });
}

/// Computes the probabilities `[N, L, L]` of one sequence without dropout, for inspection. `qkv [L, 3H]` are its rows.
pub(crate) fn weights<T: Real>(qkv: &[T], heads: usize, head_size: usize, scale: f64, out: &mut [T]) {
    let stride = 3 * heads * head_size;
    assert!(scale > 0.0 && stride > 0 && qkv.len().is_multiple_of(stride));
    let len = qkv.len() / stride;
    assert_eq!(out.len(), heads * len * len);
    for_blocks(heads, 1, len * len * head_size / 4, RowsMut::new(out, len * len), |range, out| {
        weights_head(qkv, heads, head_size, range.start, T::from_f64(scale), out.data);
    });
}
