//! The course's pairs: two sentences each.

use std::ops::Range;

use cloze_tensor::random::Stream;

use super::{IS_NEXT, NOT_NEXT, PairExample, other_document};
use crate::TokenizedCorpus;

/// Draws a pair of at most `room` tokens, or a single sentence if `next_sentence` is off.
pub(super) fn draw(corpus: &TokenizedCorpus, room: usize, next_sentence: bool, stream: &mut Stream) -> PairExample {
    let documents = corpus.document_count();
    let document = stream.below(documents);
    if !next_sentence {
        let first = sentence(corpus, document, stream);
        return PairExample { first: head(first, room), second: None, label: None };
    }
    let sentences = corpus.sentences_of(document);
    let (first, second, label) = if sentences.len() >= 2 && stream.uniform() < 0.5 {
        let index = sentences.start + stream.below(sentences.len() - 1);
        (corpus.tokens_of(index), corpus.tokens_of(index + 1), IS_NEXT)
    } else {
        // As in the course, the document is drawn again, so documents of one sentence are not preferred.
        let document = stream.below(documents);
        let first = sentence(corpus, document, stream);
        let other = other_document(corpus, document, stream);
        (first, sentence(corpus, other, stream), NOT_NEXT)
    };
    let (first_len, second_len) = longest_first(first.len(), second.len(), room);
    PairExample { first: head(first, first_len), second: Some(head(second, second_len)), label: Some(label) }
}

fn sentence(corpus: &TokenizedCorpus, document: usize, stream: &mut Stream) -> Range<usize> {
    let sentences = corpus.sentences_of(document);
    corpus.tokens_of(sentences.start + stream.below(sentences.len()))
}

fn head(range: Range<usize>, length: usize) -> Range<usize> {
    range.start..range.end.min(range.start + length)
}

/// Returns the lengths of two segments after the longer one has lost tokens until both together have `room`. The second
/// segment counts as the longer one if they are equal, and the longer one keeps the odd token, as in the truncation of
/// Hugging Face's fast tokenizers that the course uses.
fn longest_first(first: usize, second: usize, room: usize) -> (usize, usize) {
    if first + second <= room {
        return (first, second);
    }
    let shorter = first.min(second).min(room / 2);
    let longer = room - shorter;
    if first > second { (longer, shorter) } else { (shorter, longer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncation_takes_from_the_longer() {
        assert_eq!(longest_first(3, 4, 7), (3, 4));
        assert_eq!(longest_first(3, 9, 8), (3, 5));
        assert_eq!(longest_first(9, 3, 8), (5, 3));
        assert_eq!(longest_first(9, 8, 8), (4, 4));
        assert_eq!(longest_first(9, 8, 7), (4, 3));
        assert_eq!(longest_first(8, 9, 7), (3, 4));
        assert_eq!(longest_first(5, 5, 7), (3, 4));
        assert_eq!(longest_first(1, 50, 2), (1, 1));
    }
}
