//! The attention of one packed batch: its sizes, where its sequences are, and how its heads are shared out.

use crate::cpu::gemm::{Gemm, View};
use crate::cpu::lanes::LANES;
use crate::cpu::parallel::for_tasks;
use crate::cpu::real::Real;
use crate::dropout::Dropout;
use crate::precision::Precision;

/// Query rows in a block; a multiple of 16, the rows of a dropout block.
pub(super) const BLOCK: usize = 128;

/// Everything that attention depends on besides its operands.
#[derive(Clone, Copy)]
pub(crate) struct AttentionProblem<'a> {
    pub(crate) heads: usize,
    pub(crate) head_size: usize,
    /// The factor of the scores; positive.
    pub(crate) scale: f64,
    /// The first token of each sequence, then the end of the last one.
    pub(crate) cu_seqlens: &'a [u32],
    /// The global number of each sequence in the optimizer step, which dropout depends on. May be empty without dropout.
    pub(crate) sequences: &'a [u32],
    /// The dropout of the probabilities.
    pub(crate) dropout: Dropout,
    /// The precision of the products.
    pub(crate) precision: Precision,
}

impl AttentionProblem<'_> {
    pub(super) fn hidden(&self) -> usize {
        self.heads * self.head_size
    }

    pub(super) fn tokens(&self) -> usize {
        self.cu_seqlens.last().map_or(0, |&end| end as usize)
    }

    pub(super) fn start(&self, sequence: usize) -> usize {
        self.cu_seqlens[sequence] as usize
    }

    pub(super) fn len(&self, sequence: usize) -> usize {
        (self.cu_seqlens[sequence + 1] - self.cu_seqlens[sequence]) as usize
    }

    pub(super) fn longest(&self) -> usize {
        (0..self.cu_seqlens.len().saturating_sub(1)).map(|s| self.len(s)).max().unwrap_or(0)
    }

    /// The number under which dropout counts a sequence.
    pub(super) fn number(&self, sequence: usize) -> u32 {
        if self.dropout.is_none() { 0 } else { self.sequences[sequence] }
    }

    #[inline(always)]
    pub(super) fn product<'a, T: Real>(&self, a: View<'a, T>, b: View<'a, T>) -> Gemm<'a, T> {
        Gemm::new(a, b).precision(self.precision)
    }

    pub(super) fn check(&self) {
        assert!(self.scale > 0.0);
        assert!(self.cu_seqlens.windows(2).all(|w| w[0] <= w[1]) && self.cu_seqlens.first().is_none_or(|&s| s == 0));
        assert!(self.dropout.is_none() || self.sequences.len() + 1 == self.cu_seqlens.len());
    }

    /// Calls `f` with the scratch space of a thread, a sequence and a head, for every head of every sequence. The longest
    /// sequences come first, because a thread that starts one last would keep the others waiting. `weight` is the relative
    /// cost of the pass.
    pub(super) fn for_heads<S>(
        &self,
        weight: usize,
        scratch: impl Fn() -> S + Sync,
        f: impl Fn(&mut S, usize, usize) + Sync,
    ) {
        let mut order: Vec<usize> = (0..self.cu_seqlens.len().saturating_sub(1)).collect();
        order.sort_by_key(|&s| std::cmp::Reverse(self.len(s)));
        let cost: usize = order.iter().map(|&s| self.len(s) * (self.len(s) + 8) * self.hidden() / 8).sum();
        for_tasks(order.len() * self.heads, weight * cost, scratch, |scratch, task| {
            f(scratch, order[task / self.heads], task % self.heads);
        });
    }
}

/// The width of a row of scores in memory: a multiple of [`LANES`], and of the 32 columns of a dropout block.
#[inline(always)]
pub(super) fn padded(len: usize) -> usize {
    len.next_multiple_of(LANES)
}
