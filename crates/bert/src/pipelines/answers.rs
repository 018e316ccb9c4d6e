//! The best answers in the windows over a context.
//!
//! An answer is made of whole words: all spans of tokens that begin in one word and end in another are one answer. Its
//! score is that of the best of these spans, its probability that of all of them.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

use super::question_answering::Answer;
use super::spans::{self, Span};
use crate::Encoding;
use crate::characters::Characters;

/// A window over a context, and the logits of its tokens.
pub(super) struct Scored<'w> {
    pub(super) encoding: &'w Encoding,
    pub(super) starts: Vec<f32>,
    pub(super) ends: Vec<f32>,
    /// Whether each token belongs to the context.
    pub(super) allowed: Vec<bool>,
}

/// A word of the context in a window.
#[derive(Clone)]
struct Word {
    /// Its index in the context.
    id: u32,
    /// Its tokens.
    tokens: RangeInclusive<usize>,
    /// Its start and end in the context, in characters.
    place: (usize, usize),
}

/// An answer in a window.
#[derive(Clone, Copy)]
struct Found {
    /// The first and the last word.
    words: (u32, u32),
    /// The start and end in the context, in characters.
    place: (usize, usize),
    /// The first and the last token.
    tokens: (usize, usize),
    score: f32,
    weight: Power,
}

/// The best answers in the windows over a context.
pub(super) struct Best<'c> {
    context: Characters<'c>,
    k: usize,
    /// The largest number of tokens from the first to the last.
    longest: usize,
    /// Whether answers are made of whole words, instead of tokens.
    by_words: bool,
    found: Vec<Found>,
    cut: CutWords,
    possible: Sum,
    /// The lowest score of `[CLS]`.
    at_cls: Option<f32>,
}

impl<'c> Best<'c> {
    pub(super) fn new(context: &'c str, k: usize, longest: usize, by_words: bool) -> Best<'c> {
        Best {
            context: Characters::new(context),
            k,
            longest,
            by_words,
            found: Vec::new(),
            cut: CutWords::default(),
            possible: Sum::default(),
            at_cls: None,
        }
    }

    /// Takes the best answers of a window.
    pub(super) fn add(&mut self, window: Scored) {
        let words = self.words(&window);
        let mut found = self.of_words(&window, &words);
        found.iter().for_each(|found| self.possible.add(found.weight));
        if found.len() > self.k {
            found.select_nth_unstable_by(self.k, order);
            found.truncate(self.k);
        }
        self.found.append(&mut found);
        let at_cls = window.starts[0] + window.ends[0];
        if self.at_cls.is_none_or(|lowest| at_cls.total_cmp(&lowest).is_lt()) {
            self.at_cls = Some(at_cls);
        }
    }

    /// Takes the span from the best first to the best last token, and its probability.
    pub(super) fn add_independent(&mut self, window: Scored, probability: impl FnOnce(&Scored, Span) -> f64) {
        let words = self.words(&window);
        let Some(span) = spans::independent(&window.starts, &window.ends, &window.allowed) else { return };
        let word_of = |token| words.iter().find(|word| word.tokens.contains(&token));
        if let (Some(first), Some(last)) = (word_of(span.start), word_of(span.end)) {
            let weight = Power { exponent: 0.0, factor: probability(&window, span) };
            self.found.push(Found { weight, ..Found::new(first, last, span.score) });
        }
    }

    /// Returns the words of the context in a window, or its tokens if answers are not made of words.
    fn words(&mut self, window: &Scored) -> Vec<Word> {
        let Encoding { word_ids, offsets, .. } = window.encoding;
        let mut words: Vec<Word> = Vec::new();
        for token in (0..window.allowed.len()).filter(|&token| window.allowed[token]) {
            let (id, (start, end)) = (word_ids[token].unwrap_or_default(), offsets[token]);
            match words.last_mut() {
                Some(word) if self.by_words && word.id == id => {
                    (word.tokens, word.place.1) = (*word.tokens.start()..=token, end);
                }
                _ => words.push(Word { id, tokens: token..=token, place: (start, end) }),
            }
        }
        if self.by_words {
            self.cut.add(&mut words);
        }
        words
    }

    /// Returns all answers in a window.
    fn of_words(&self, window: &Scored, words: &[Word]) -> Vec<Found> {
        let mut found = Vec::new();
        for (at, first) in words.iter().enumerate() {
            let last_start = first.tokens.end().saturating_add(self.longest);
            for last in words[at..].iter().take_while(|last| *last.tokens.start() < last_start) {
                let spans = first.tokens.clone().flat_map(|start| {
                    let ends = last
                        .tokens
                        .clone()
                        .filter(move |end| (start..start.saturating_add(self.longest)).contains(end));
                    ends.map(move |end| window.starts[start] + window.ends[end])
                });
                let best = spans.clone().fold(f32::NEG_INFINITY, f32::max);
                let factor = spans.map(|score| f64::from(score - best).exp()).sum();
                if factor > 0.0 {
                    let weight = Power { exponent: best.into(), factor };
                    found.push(Found { weight, ..Found::new(first, last, best) });
                }
            }
        }
        found
    }

    /// Returns the answer with the largest score, with the probability that came with it.
    pub(super) fn independent(mut self) -> Option<Answer> {
        self.k = 1;
        let found = self.best().first().copied()?;
        Some(self.answer(found, found.weight.factor))
    }

    /// Returns the best answers, best first, among them "no answer" if that is possible.
    pub(super) fn answers(mut self, no_answer: bool) -> Vec<Answer> {
        let mut found = self.best();
        if let Some(score) = self.at_cls.filter(|_| no_answer) {
            let weight = Power { exponent: score.into(), factor: 1.0 };
            self.possible.add(weight);
            found.push(Found { words: (0, 0), place: (0, 0), tokens: (0, 0), score, weight });
            found.sort_by(order);
        }
        found.truncate(self.k);
        found.into_iter().map(|found| self.answer(found, self.possible.share(found.weight))).collect()
    }

    /// Returns what was found, best first, an answer in several windows once.
    fn best(&mut self) -> Vec<Found> {
        let mut found = std::mem::take(&mut self.found);
        found.iter_mut().for_each(|found| found.place = self.cut.whole(found));
        found.sort_by(order);
        let mut places = HashSet::new();
        found.retain(|found| places.insert(found.place));
        found
    }

    fn answer(&self, found: Found, probability: f64) -> Answer {
        let (start, end) = found.place;
        Answer {
            text: self.context.part(start, end).to_string(),
            start,
            end,
            bytes: self.context.bytes(start, end),
            tokens: found.tokens,
            score: found.score.into(),
            probability,
        }
    }
}

/// Orders answers by descending score, then by their place.
fn order(a: &Found, b: &Found) -> std::cmp::Ordering {
    b.score.total_cmp(&a.score).then(a.place.cmp(&b.place))
}

impl Found {
    /// An answer without a weight.
    fn new(first: &Word, last: &Word, score: f32) -> Found {
        Found {
            words: (first.id, last.id),
            place: (first.place.0, last.place.1),
            tokens: (*first.tokens.start(), *last.tokens.end()),
            score,
            weight: Power { exponent: 0.0, factor: 0.0 },
        }
    }
}

/// The whole words of which a window may have only some tokens: its first and its last one.
#[derive(Default)]
struct CutWords {
    places: HashMap<u32, (usize, usize)>,
    /// The words of the last window.
    last: Vec<Word>,
}

impl CutWords {
    /// Takes the words of the next window, and completes them with what the windows before have of them.
    fn add(&mut self, words: &mut Vec<Word>) {
        let join = |a: (usize, usize), b: (usize, usize)| (a.0.min(b.0), a.1.max(b.1));
        if let Some(first) = words.first_mut()
            && let Some(before) = self.last.iter().find(|word| word.id == first.id)
        {
            first.place = join(first.place, before.place);
        }
        for word in words.iter_mut() {
            if let Some(place) = self.places.get_mut(&word.id) {
                *place = join(*place, word.place);
                word.place = *place;
            }
        }
        for edge in [words.first(), words.last()].into_iter().flatten() {
            self.places.insert(edge.id, edge.place);
        }
        self.last.clone_from(words);
    }

    /// Returns the place of an answer with its words whole.
    fn whole(&self, found: &Found) -> (usize, usize) {
        let place = |word| self.places.get(word).copied().unwrap_or(found.place);
        (place(&found.words.0).0.min(found.place.0), place(&found.words.1).1.max(found.place.1))
    }
}

/// A multiple of a power of e.
#[derive(Clone, Copy)]
struct Power {
    exponent: f64,
    factor: f64,
}

/// A sum of powers of e, stored relative to the largest so that it neither overflows nor vanishes.
struct Sum(Power);

impl Default for Sum {
    fn default() -> Sum {
        Sum(Power { exponent: f64::NEG_INFINITY, factor: 0.0 })
    }
}

impl Sum {
    fn add(&mut self, power: Power) {
        let Sum(sum) = self;
        if power.exponent > sum.exponent {
            sum.factor *= (sum.exponent - power.exponent).exp();
            sum.exponent = power.exponent;
        }
        sum.factor += power.factor * (power.exponent - sum.exponent).exp();
    }

    /// Returns the fraction of the sum that one power accounts for.
    fn share(&self, power: Power) -> f64 {
        power.factor * (power.exponent - self.0.exponent).exp() / self.0.factor
    }
}
