//! Finding spans from the scores of each token as the first and as the last one.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// A span of tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// The first token.
    pub start: usize,
    /// The last token.
    pub end: usize,
    /// The sum of the two logits.
    pub score: f32,
}

/// Orders spans by descending score, then by start and end.
fn order(a: &Span, b: &Span) -> Ordering {
    b.score.total_cmp(&a.score).then(a.start.cmp(&b.start)).then(a.end.cmp(&b.end))
}

struct Ranked(Span);

impl PartialEq for Ranked {
    fn eq(&self, other: &Ranked) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Ranked) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Ranked) -> Ordering {
        order(&other.0, &self.0)
    }
}

/// Returns all spans of at most `longest` tokens whose first and last tokens are `allowed`, in order of their starts.
/// The slices have an element per token; tokens that one of them lacks are not allowed.
pub fn all<'a>(
    start_logits: &'a [f32],
    end_logits: &'a [f32],
    allowed: &'a [bool],
    longest: usize,
) -> impl Iterator<Item = Span> + 'a {
    let tokens = start_logits.len().min(end_logits.len()).min(allowed.len());
    let from = move |start: usize| {
        let ends = start..tokens.min(start.saturating_add(longest));
        let span = move |end: usize| Span { start, end, score: start_logits[start] + end_logits[end] };
        ends.filter(|&end| allowed[end]).map(span)
    };
    (0..tokens).filter(|&start| allowed[start]).flat_map(from)
}

/// Returns the `k` spans with the largest sums of logits, largest first, among [`all`] spans.
///
/// ```
/// use cloze_bert::spans;
/// // [CLS] Pedro Álvares Cabral descobriu
/// let (start, end) = ([-5.3, 7.2, 5.8, 0.8, -0.4], [-5.0, 0.5, 6.1, 7.5, -2.1]);
/// let best = spans::best(&start, &end, &[true; 5], 30, 1);
/// assert_eq!((best[0].start, best[0].end), (1, 3)); // Pedro to Cabral
/// ```
pub fn best(start_logits: &[f32], end_logits: &[f32], allowed: &[bool], longest: usize, k: usize) -> Vec<Span> {
    let mut kept = BinaryHeap::new();
    for span in all(start_logits, end_logits, allowed, longest) {
        kept.push(Reverse(Ranked(span)));
        if kept.len() > k {
            kept.pop();
        }
    }
    let mut spans: Vec<Span> = kept.into_iter().map(|Reverse(Ranked(span))| span).collect();
    spans.sort_unstable_by(order);
    spans
}

/// Returns the span from the best start to the best end, found independently of each other. If the end is before the
/// start, the span is only the start. Returns `None` if no token is allowed. Unlike [`best`], this can miss the span
/// with the largest sum.
pub fn independent(start_logits: &[f32], end_logits: &[f32], allowed: &[bool]) -> Option<Span> {
    let largest = |logits: &[f32]| {
        let candidates = logits.iter().zip(allowed).enumerate().filter(|(_, (_, allowed))| **allowed);
        candidates.rev().max_by(|(_, (a, _)), (_, (b, _))| a.total_cmp(b)).map(|(at, _)| at)
    };
    let start = largest(start_logits)?;
    let end = largest(end_logits)?.max(start);
    Some(Span { start, end, score: start_logits.get(start)? + end_logits.get(end)? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_best_start_and_the_best_end_need_not_make_the_best_span() {
        let (start, end) = ([0.0, 1.0, 5.0], [4.0, 2.0, 1.0]);
        let span = independent(&start, &end, &[true; 3]);
        assert_eq!(span, Some(Span { start: 2, end: 2, score: 6.0 }));
        let best = best(&start, &end, &[true; 3], 30, 9);
        assert_eq!((best.len(), best[0]), (6, Span { start: 2, end: 2, score: 6.0 }));
        assert_eq!(independent(&[1.0, 9.0], &[2.0, 3.0], &[true, false]), Some(Span { start: 0, end: 0, score: 3.0 }));
        assert_eq!(independent(&[1.0], &[2.0], &[false]), None);
        // The first of equal values wins, as in NumPy's `argmax`.
        assert_eq!(independent(&[1.0, 1.0], &[2.0, 2.0], &[true; 2]).map(|span| (span.start, span.end)), Some((0, 0)));
    }

    proptest! {
        #[test]
        fn best_is_all_sorted(
            tokens in prop::collection::vec((-9i8..9, -9i8..9, any::<bool>()), 0..20), longest in 0usize..8, k in 0usize..12,
        ) {
            let start: Vec<f32> = tokens.iter().map(|token| token.0.into()).collect();
            let end: Vec<f32> = tokens.iter().map(|token| token.1.into()).collect();
            let allowed: Vec<bool> = tokens.iter().map(|token| token.2).collect();
            let mut spans = Vec::new();
            for i in 0..tokens.len() {
                for j in i..tokens.len() {
                    if allowed[i] && allowed[j] && j - i < longest {
                        spans.push(Span { start: i, end: j, score: start[i] + end[j] });
                    }
                }
            }
            prop_assert_eq!(all(&start, &end, &allowed, longest).count(), spans.len());
            spans.sort_by(|a, b| b.score.total_cmp(&a.score));
            spans.truncate(k);
            prop_assert_eq!(best(&start, &end, &allowed, longest, k), spans);
        }
    }
}
