//! BERT's pairs, two segments of consecutive sentences, and RoBERTa's single segments.

use std::ops::Range;

use cloze_tensor::random::Stream;

use super::{IS_NEXT, NOT_NEXT, PairExample, other_document};
use crate::TokenizedCorpus;

#[derive(Clone, Copy)]
pub(super) struct Settings {
    /// The largest number of tokens of both segments together.
    pub room: usize,
    /// The probability of a random target length below `room`.
    pub short: f64,
    pub next_sentence: bool,
}

/// Returns the examples of some sentences of a document, in order.
pub(super) fn examples(
    corpus: &TokenizedCorpus,
    document: usize,
    mut sentences: Range<usize>,
    settings: Settings,
    mut stream: Stream,
) -> impl Iterator<Item = PairExample> {
    // The number of tokens of the first sentence that the last single segment has used.
    let mut used = 0;
    std::iter::from_fn(move || {
        if sentences.start >= sentences.end {
            return None;
        }
        let target = target_length(settings, &mut stream);
        if settings.next_sentence {
            let end = collect(corpus, sentences.clone(), target);
            let (example, used) = pair(corpus, document, sentences.start..end, target, settings.room, &mut stream);
            sentences.start = used;
            return Some(example);
        }
        let first;
        (first, sentences.start, used) = segment(corpus, sentences.clone(), used, target);
        Some(PairExample { first, second: None, label: None })
    })
}

/// Returns the next single segment of at most `target` tokens: as many whole sentences as fit or, if the first is longer,
/// a part of it. `used` is the number of its tokens that belong to earlier segments. Also returns the first sentence of the
/// next segment, and how many of its tokens are used.
fn segment(
    corpus: &TokenizedCorpus,
    sentences: Range<usize>,
    used: usize,
    target: usize,
) -> (Range<usize>, usize, usize) {
    let start = corpus.tokens_of(sentences.start).start + used;
    let ends_within = |&sentence: &usize| corpus.tokens_of(sentence).end - start <= target;
    let next = sentences.start + sentences.clone().take_while(ends_within).count();
    if next > sentences.start {
        return (start..corpus.tokens_of(next - 1).end, next, 0);
    }
    (start..start + target, next, used + target)
}

/// Draws a pair whose first segment is of `sentences`. Also returns the first sentence of the next example.
fn pair(
    corpus: &TokenizedCorpus,
    document: usize,
    sentences: Range<usize>,
    target: usize,
    room: usize,
    stream: &mut Stream,
) -> (PairExample, usize) {
    let split = match sentences.len() {
        1 => sentences.end,
        count => sentences.start + 1 + stream.below(count - 1),
    };
    let mut first = tokens(corpus, sentences.start..split);
    let (mut second, label, used) = if split == sentences.end || stream.uniform() < 0.5 {
        let other = corpus.sentences_of(other_document(corpus, document, stream));
        let start = other.start + stream.below(other.len());
        let end = collect(corpus, start..other.end, target.saturating_sub(first.len()));
        // The sentences after the split are unused, so the next example begins with them.
        (tokens(corpus, start..end), NOT_NEXT, split)
    } else {
        (tokens(corpus, split..sentences.end), IS_NEXT, sentences.end)
    };
    while first.len() + second.len() > room {
        shorten(if first.len() > second.len() { &mut first } else { &mut second }, stream);
    }
    (PairExample { first, second: Some(second), label: Some(label) }, used)
}

fn target_length(settings: Settings, stream: &mut Stream) -> usize {
    match stream.uniform() < settings.short {
        true => 2 + stream.below(settings.room - 1),
        false => settings.room,
    }
}

/// Returns the end of the shortest run of leading sentences, at least one, with `target` tokens in total.
fn collect(corpus: &TokenizedCorpus, sentences: Range<usize>, target: usize) -> usize {
    let begin = corpus.tokens_of(sentences.start).start;
    let enough = |&sentence: &usize| corpus.tokens_of(sentence).end - begin >= target;
    sentences.clone().find(enough).map_or(sentences.end, |last| last + 1)
}

fn tokens(corpus: &TokenizedCorpus, sentences: Range<usize>) -> Range<usize> {
    corpus.tokens_of(sentences.start).start..corpus.tokens_of(sentences.end - 1).end
}

/// Removes a token at a random end, so that neither end is favoured.
fn shorten(segment: &mut Range<usize>, stream: &mut Stream) {
    match stream.uniform() < 0.5 {
        true => segment.start += 1,
        false => segment.end -= 1,
    }
}
