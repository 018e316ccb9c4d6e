//! Properties of both pairing rules, on corpora whose ids encode document and sentence.

use super::*;
use crate::corpus::numbered;

/// Returns the document and the sentence of an id.
fn place(id: u32) -> (u32, u32) {
    (id / 1000 - 1, id % 1000 / 10)
}

fn ends(corpus: &TokenizedCorpus, segment: &Range<usize>) -> ((u32, u32), (u32, u32)) {
    let ids = corpus.ids_of(segment.clone());
    (place(ids[0]), place(ids[ids.len() - 1]))
}

/// Checks an example of whole sentences: they are consecutive for `IS_NEXT`, of two documents for `NOT_NEXT`.
#[track_caller]
fn check_pair(corpus: &TokenizedCorpus, example: &PairExample) {
    let (first, second) = (example.first(), example.second().unwrap());
    let ((document, _), first_end) = ends(corpus, &first);
    let (second_start, (second_document, _)) = ends(corpus, &second);
    assert_eq!((document, second_start.0), (first_end.0, second_document), "a segment spans documents");
    match example.label() {
        Some(IS_NEXT) => assert_eq!(second_start, (document, first_end.1 + 1)),
        Some(NOT_NEXT) => assert_ne!(document, second_document),
        label => panic!("label {label:?}"),
    }
}

#[track_caller]
fn binomial(successes: usize, draws: usize, p: f64) {
    let (mean, sigma) = (draws as f64 * p, (draws as f64 * p * (1.0 - p)).sqrt());
    assert!((successes as f64 - mean).abs() <= 4.0 * sigma, "{successes} of {draws}, expected {mean} +- {sigma}");
}

fn count(examples: &[PairExample], what: impl Fn(&PairExample) -> bool) -> usize {
    examples.iter().filter(|example| what(example)).count()
}

#[test]
fn materialised_with_special_tokens() {
    let corpus = TokenizedCorpus::from_ids(&[vec![vec![10, 11], vec![12]], vec![vec![13]]]).unwrap();
    let vocabulary = VocabularyTable::small(20);
    let pair = PairExample { first: 0..2, second: Some(2..4), label: Some(IS_NEXT) };
    assert_eq!(pair.ids(&corpus, &vocabulary), [2, 10, 11, 3, 12, 13, 3]);
    assert_eq!(pair.token_types(), [0, 0, 0, 0, 1, 1, 1]);
    assert_eq!(pair.token_count(), 7);
    let single = PairExample { first: 1..4, second: None, label: None };
    assert_eq!(single.ids(&corpus, &vocabulary), [2, 11, 12, 13, 3]);
    assert_eq!(single.token_types(), [0; 5]);
}

#[test]
fn course_pairs_follow_the_notebook() {
    let corpus = numbered(&[4, 4, 4]);
    let examples = PairSampler::course(4_000).seq_len(64).sample(&corpus, 7, 0).unwrap();
    assert_eq!(examples.len(), 4_000);
    for example in &examples {
        check_pair(&corpus, example);
        assert_eq!((example.first().len(), example.token_count()), (4, 11), "whole sentences");
    }
    binomial(count(&examples, |example| example.label() == Some(IS_NEXT)), 4_000, 0.5);
    // The 12 x 8 possible NOT_NEXT pairs have the same probability, and so have the 9 IS_NEXT pairs.
    let pair = |example: &PairExample, a, b| {
        (ends(&corpus, &example.first()).0, ends(&corpus, &example.second().unwrap()).0) == (a, b)
    };
    binomial(count(&examples, |example| pair(example, (2, 2), (2, 3))), 4_000, 0.5 / 9.0);
    binomial(count(&examples, |example| pair(example, (2, 3), (0, 0))), 4_000, 0.5 / 96.0);
}

#[test]
fn course_documents_of_one_sentence_are_never_followed() {
    // One of the two documents has a next sentence, so IS_NEXT has probability 1/2 x 1/2.
    let corpus = numbered(&[1, 3]);
    let examples = PairSampler::course(4_000).sample(&corpus, 1, 0).unwrap();
    examples.iter().for_each(|example| check_pair(&corpus, example));
    binomial(count(&examples, |example| example.label() == Some(IS_NEXT)), 4_000, 0.25);
    // The document of a NOT_NEXT pair is drawn again, so half of them begin in the first document.
    let from_first =
        count(&examples, |example| example.label() == Some(NOT_NEXT) && ends(&corpus, &example.first()).0.0 == 0);
    binomial(from_first, 4_000, 0.75 / 2.0);
}

#[test]
fn bert_goes_through_each_document_once() {
    // Sentences have four tokens. There is no truncation, because 40 is a multiple of four and no length is short.
    let corpus = numbered(&[57, 1, 98, 30]);
    let sampler = PairSampler::bert().seq_len(43).short_probability(0.0);
    let mut used = vec![0u32; corpus.sentence_count()];
    let examples = sampler.sample(&corpus, 3, 0).unwrap();
    for example in &examples {
        check_pair(&corpus, example);
        let own = match example.label() {
            Some(IS_NEXT) => vec![example.first(), example.second().unwrap()],
            _ => vec![example.first()],
        };
        for token in own.into_iter().flatten().step_by(4) {
            used[token / 4] += 1;
        }
    }
    assert!(used.iter().all(|&times| times == 1), "{used:?}");
    assert!(examples.iter().all(|example| example.token_count() <= 43));
    // An example is only short at the end of a document, its own or that of the second segment.
    let full = count(&examples, |example| example.token_count() == 43);
    assert!(full * 2 > examples.len(), "{full} of {}", examples.len());
}

#[test]
fn bert_rates() {
    let corpus = numbered(&[99; 200]);
    let examples = PairSampler::bert().seq_len(43).sample(&corpus, 5, 1).unwrap();
    let n = examples.len();
    // For 35 of the 39 short lengths, the target is below 37 tokens, which fewer than ten sentences reach.
    let short = count(&examples, |example| {
        example.token_count() < 40
            && example.label() == Some(IS_NEXT)
            && ends(&corpus, &example.second().unwrap()).1.1 != 98
    });
    let next = count(&examples, |example| example.label() == Some(IS_NEXT));
    assert!(n > 2_500, "{n}");
    // Short lengths up to 4 (3 of 39, in a tenth of the examples) give one sentence, which is always NOT_NEXT.
    binomial(next, n, 0.5 * (1.0 - 0.1 * 3.0 / 39.0));
    let expected = 0.1 * 32.0 / 39.0 / (1.0 - 0.1 * 3.0 / 39.0);
    binomial(short, next, expected);
    let first_of_ten = |k: usize| {
        count(&examples, |e| e.label() == Some(IS_NEXT) && e.token_count() == 43 && e.first().len() == 4 * k)
    };
    for k in 1..10 {
        let all: usize = (1..10).map(first_of_ten).sum();
        binomial(first_of_ten(k), all, 1.0 / 9.0);
    }
}

#[test]
fn short_lengths_are_uniform() {
    // With sentences of one token, an example has exactly its target length.
    let corpus = TokenizedCorpus::from_ids(&[vec![vec![9]; 30_000]]).unwrap();
    let sampler = PairSampler::bert().seq_len(12).short_probability(1.0).next_sentence(false);
    let examples = sampler.sample(&corpus, 2, 0).unwrap();
    let whole = &examples[..examples.len() - 1];
    for length in 2..=10 {
        binomial(count(whole, |example| example.first().len() == length), whole.len(), 1.0 / 9.0);
    }
    let usual = sampler.short_probability(0.1).sample(&corpus, 2, 0).unwrap();
    binomial(count(&usual, |example| example.first().len() < 10), usual.len(), 0.1 * 8.0 / 9.0);
}

#[test]
fn bert_truncates_both_ends_of_the_longer() {
    let long: Vec<Vec<u32>> = (0..40).map(|s| (0..50).map(|token| s * 50 + token).collect()).collect();
    let corpus = TokenizedCorpus::from_ids(&[long.clone(), long]).unwrap();
    let examples = PairSampler::bert().seq_len(35).short_probability(0.0).sample(&corpus, 3, 0).unwrap();
    assert_eq!(examples.len(), 80, "each sentence exceeds the target, so it is alone");
    let (mut front, mut back) = (0, 0);
    for example in &examples {
        assert_eq!((example.first().len(), example.second().unwrap().len()), (16, 16));
        assert_eq!(example.label(), Some(NOT_NEXT));
        front += example.first().start % 50;
        back += 50 - (example.first().start % 50 + 16);
    }
    binomial(front, front + back, 0.5);
}

#[test]
fn single_segments() {
    let corpus = numbered(&[33]);
    let sampler = PairSampler::bert().seq_len(22).short_probability(0.0).next_sentence(false);
    let examples = sampler.sample(&corpus, 0, 0).unwrap();
    let segments: Vec<Range<usize>> = examples.iter().map(|example| example.first()).collect();
    assert_eq!(segments, [0..20, 20..40, 40..60, 60..80, 80..100, 100..120, 120..132]);
    assert!(examples.iter().all(|example| example.label().is_none() && example.second().is_none()));

    let course = PairSampler::course(50).seq_len(5).next_sentence(false).sample(&corpus, 0, 0).unwrap();
    assert!(course.iter().all(|example| example.first().len() == 3 && example.first().start % 4 == 0));
    assert!(course.iter().all(|example| example.label().is_none() && example.second().is_none()));
}

/// Segments of sentences of four tokens, of which every token is used once.
#[test]
fn single_segments_keep_sentences_whole_and_continue_long_ones() {
    let corpus = numbered(&[5, 2]);
    let segments = |room: usize| -> Vec<Range<usize>> {
        let sampler = PairSampler::bert().seq_len(room + 2).short_probability(0.0).next_sentence(false);
        sampler.sample(&corpus, 0, 0).unwrap().iter().map(PairExample::first).collect()
    };
    // Two sentences fit into ten or eleven tokens, and no segment crosses the end of the document at 20.
    assert_eq!(segments(10), [0..8, 8..16, 16..20, 20..28]);
    assert_eq!(segments(11), segments(8));
    // A sentence is longer than three tokens: its rest is followed by no sentence that does not fit.
    assert_eq!(segments(3)[..4], [0..3, 3..4, 4..7, 7..8]);

    let long: Vec<Vec<u32>> = [7, 1, 30, 2, 2, 12].map(|length| (0..length).collect()).to_vec();
    let corpus = TokenizedCorpus::from_ids(&[long.clone(), long]).unwrap();
    for seed in 0..20 {
        let sampler = PairSampler::bert().seq_len(12).short_probability(0.5).next_sentence(false);
        let segments: Vec<Range<usize>> =
            sampler.sample(&corpus, seed, 0).unwrap().iter().map(PairExample::first).collect();
        assert_eq!((segments[0].start, segments[segments.len() - 1].end), (0, 108));
        assert!(segments.iter().all(|segment| !segment.is_empty() && segment.len() <= 10));
        assert!(segments.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert!(segments.iter().any(|segment| segment.end == 54), "no segment crosses the end of a document");
    }
}

#[test]
fn one_document_has_no_other() {
    for sampler in [PairSampler::bert(), PairSampler::course(3)] {
        let error = sampler.sample(&numbered(&[9]), 0, 0).unwrap_err().to_string();
        assert!(error.contains("at least two documents") && error.contains("next_sentence"), "{error}");
    }
}

#[test]
fn settings_are_checked() {
    let (pair, single) = (PairSampler::bert(), PairSampler::bert().next_sentence(false));
    for (sampler, says) in [
        (pair.clone().seq_len(4), "seq_len is 4, must be from 5 to 65536"),
        (single.clone().seq_len(3), "seq_len is 3, must be from 4 to 65536"),
        (pair.clone().seq_len(65_537), "seq_len is 65537"),
        (PairSampler::course(0), "number of pairs is 0"),
        (pair.clone().short_probability(1.1), "short_probability is 1.1"),
    ] {
        let error = sampler.sample(&numbered(&[2, 2]), 0, 0).unwrap_err().to_string();
        assert!(error.starts_with(says), "{error}");
    }
    for (sampler, length) in [(pair.seq_len(5), 5), (single.seq_len(4), 4)] {
        let examples = sampler.short_probability(1.0).sample(&numbered(&[20, 20]), 0, 0).unwrap();
        assert!(examples.iter().all(|example| example.token_count() <= length));
    }
}

#[test]
fn examples_are_a_function_of_seed_and_epoch() {
    let corpus = numbered(&[30, 7, 1, 64]);
    for sampler in [PairSampler::bert().seq_len(32), PairSampler::course(100)] {
        let sample = |threads, seed, epoch| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| sampler.sample(&corpus, seed, epoch)).unwrap()
        };
        assert_eq!(sample(1, 4, 2), sample(3, 4, 2));
        assert_ne!(sample(1, 4, 2), sample(1, 4, 3));
        assert_ne!(sample(1, 4, 2), sample(1, 5, 2));
    }
}
