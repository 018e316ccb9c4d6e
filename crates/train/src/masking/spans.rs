//! Spans of whole words.

use std::ops::Range;

use cloze_tensor::random::Stream;

/// The parameter of the geometric distribution of span lengths, and the largest length, in words.
const P: f64 = 0.2;
const LONGEST: usize = 10;

/// Selects spans of consecutive words with at most `budget` tokens together, or the shortest word if all are longer.
///
/// Every word is tried as the first of a span, in random order, until the budget is used up. The words left are therefore
/// all longer than the rest of the budget.
pub(super) fn select(words: &[Range<usize>], mut budget: usize, stream: &mut Stream) -> Vec<Range<usize>> {
    let mut firsts: Vec<usize> = (0..words.len()).collect();
    stream.shuffle(&mut firsts);
    let mut is_free = vec![true; words.len()];
    let mut spans = Vec::new();
    for &first in &firsts {
        if budget == 0 {
            break;
        }
        if !is_free[first] {
            continue;
        }
        let mut span = words[first].start..words[first].start;
        for word in first..words.len().min(first + length(stream)) {
            let is_next = words[word].start == span.end;
            if !is_next || !is_free[word] || words[word].len() > budget {
                break;
            }
            is_free[word] = false;
            budget -= words[word].len();
            span.end = words[word].end;
        }
        spans.extend((!span.is_empty()).then_some(span));
    }
    if spans.is_empty() {
        spans.extend(firsts.iter().map(|&word| words[word].clone()).min_by_key(|word| word.len()));
    }
    spans
}

/// Draws the number of words of a span, from 1 to [`LONGEST`].
fn length(stream: &mut Stream) -> usize {
    let (mut length, mut p) = (1, P);
    let mut draw = stream.uniform() * (1.0 - (1.0 - P).powi(LONGEST as i32));
    while draw >= p && length < LONGEST {
        draw -= p;
        p *= 1.0 - P;
        length += 1;
    }
    length
}

#[cfg(test)]
mod tests {
    use cloze_tensor::random::Purpose;

    use super::*;

    const DRAWS: usize = 100_000;

    /// Returns the probability of a length: the geometric one, over the sum of those up to the longest.
    fn expected(length: usize) -> f64 {
        let geometric = |length: usize| P * (1.0 - P).powi(length as i32 - 1);
        geometric(length) / (1..=LONGEST).map(geometric).sum::<f64>()
    }

    #[track_caller]
    fn assert_distributed(lengths: &[usize]) {
        let draws = lengths.len() as f64;
        for length in 1..=LONGEST {
            let (p, found) = (expected(length), lengths.iter().filter(|&&other| other == length).count() as f64);
            let sigma = (draws * p * (1.0 - p)).sqrt();
            assert!((found - draws * p).abs() < 4.0 * sigma, "{length} words: {found} of {draws}, expected {p}");
        }
        let mean = lengths.iter().sum::<usize>() as f64 / draws;
        assert!((mean - 3.8).abs() < 0.03, "{mean}");
    }

    #[test]
    fn lengths_are_geometric_up_to_ten() {
        let mut stream = Stream::new(1, Purpose::Masking, 0, 0, 0);
        assert_distributed(&(0..DRAWS).map(|_| length(&mut stream)).collect::<Vec<_>>());
    }

    /// The first span of a sequence meets no other. Its first word is uniform.
    #[test]
    fn first_spans_have_the_lengths_drawn_and_begin_anywhere() {
        let words: Vec<Range<usize>> = (0..40).map(|word| 2 * word..2 * word + 2).collect();
        let firsts: Vec<Range<usize>> = (0..DRAWS as u32)
            .map(|sequence| select(&words, 20, &mut Stream::new(2, Purpose::Masking, 0, 0, sequence))[0].clone())
            .collect();
        let inside = |span: &&Range<usize>| span.start <= 60;
        assert_distributed(&firsts.iter().filter(inside).map(|span| span.len() / 2).collect::<Vec<_>>());
        let (p, draws) = (1.0 / 40.0, DRAWS as f64);
        for word in 0..40 {
            let found = firsts.iter().filter(|span| span.start == 2 * word).count() as f64;
            assert!((found - draws * p).abs() < 4.5 * (draws * p * (1.0 - p)).sqrt(), "word {word}: {found}");
        }
    }

    #[test]
    fn spans_end_at_gaps_and_keep_to_the_budget() {
        // A gap, such as a [SEP], after the first three words; the words have 1, 2, 3, 1, 2, ... tokens.
        let mut words: Vec<Range<usize>> = Vec::new();
        for word in 0..30 {
            let start = words.last().map_or(1, |last| last.end) + usize::from(word == 3);
            words.push(start..start + 1 + word % 3);
        }
        let gap = words[2].end;
        for sequence in 0..500 {
            for budget in [1, 2, 7, 15, 59, 60, 1_000] {
                let mut spans = select(&words, budget, &mut Stream::new(3, Purpose::Masking, 0, 0, sequence));
                spans.sort_by_key(|span| span.start);
                let tokens: usize = spans.iter().map(|span| span.len()).sum();
                assert!(tokens <= budget);
                let is_left = |word: &&Range<usize>| !spans.iter().any(|span| span.contains(&word.start));
                assert!(words.iter().filter(is_left).all(|word| tokens + word.len() > budget));
                assert!(spans.windows(2).all(|pair| pair[0].end <= pair[1].start));
                for span in &spans {
                    assert!(words.iter().any(|word| word.start == span.start));
                    assert!(words.iter().any(|word| word.end == span.end));
                    assert!(!span.contains(&gap));
                }
            }
        }
    }
}
