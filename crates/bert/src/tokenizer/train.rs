//! Training a WordPiece vocabulary.
//!
//! Words start as sequences of characters. The most frequent pair of adjacent pieces is merged into a new piece until
//! the vocabulary is full (R. Sennrich, B. Haddow, A. Birch, "Neural machine translation of rare words with subword
//! units", 2016). Hugging Face trains BERT vocabularies in the same way, but the trainer of the `tokenizers` crate
//! breaks ties by the order of a randomly seeded hash map, so the same corpus produces a different vocabulary each
//! time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};

use super::normalizer::BertNormalizer;
use super::options::{MAX_CHARS, TrainOptions};
use super::words::Words;
use crate::{Error, Result};

/// The number of words below which the minimum frequency is 1 by default.
const SMALL_CORPUS: u64 = 10_000;

type Pair = (u32, u32);

/// Returns the vocabulary ordered by id: special tokens, characters that begin words, characters that continue words,
/// then pieces in the order in which they were merged.
pub(super) fn vocabulary<S: AsRef<str>>(
    lines: impl Iterator<Item = S>,
    vocab_size: usize,
    normalizer: BertNormalizer,
    special: &[&str],
    options: &TrainOptions,
) -> Result<Vec<String>> {
    let counts = count_words(lines, normalizer);
    let total: u64 = counts.iter().map(|(_, count)| count).sum();
    if total == 0 {
        return Err(Error::tokenizer("the corpus has no words"));
    }
    let min_frequency = options.min_frequency.unwrap_or(if total < SMALL_CORPUS { 1 } else { 2 }).max(1);
    let alphabet = alphabet(&counts, options.alphabet_limit);
    let mut table = Table::new(special, &counts, &alphabet);
    if table.tokens.len() > vocab_size {
        return Err(Error::tokenizer(format!(
            "vocab_size is {vocab_size}: must be at least {} for {} special tokens and {} characters, at the start of \
             words and within them",
            table.tokens.len(),
            special.len(),
            alphabet.len()
        )));
    }
    let words =
        counts.iter().filter_map(|(word, count)| Some(Word { pieces: table.spell(word)?, count: *count })).collect();
    Merger::new(words).run(&mut table, vocab_size, min_frequency);
    Ok(table.tokens)
}

/// Returns each word with its number of occurrences, in lexicographic order.
fn count_words<S: AsRef<str>>(lines: impl Iterator<Item = S>, normalizer: BertNormalizer) -> Vec<(String, u64)> {
    let words = Words::new(normalizer);
    let (mut counts, mut room) = (HashMap::<String, u64>::new(), String::new());
    for line in lines {
        words.for_each(line.as_ref(), &mut room, |word| match counts.get_mut(word) {
            Some(count) => *count += 1,
            None => {
                counts.insert(word.to_string(), 1);
            }
        });
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_unstable();
    counts
}

/// Returns the `limit` most frequent characters. Of equally frequent characters, the lower code points win.
fn alphabet(counts: &[(String, u64)], limit: usize) -> HashSet<char> {
    let mut by_char = BTreeMap::<char, u64>::new();
    for (word, count) in counts {
        for c in word.chars() {
            *by_char.entry(c).or_default() += count;
        }
    }
    let mut chars: Vec<_> = by_char.into_iter().map(|(c, count)| (Reverse(count), c)).collect();
    chars.sort_unstable();
    chars.into_iter().take(limit).map(|(_, c)| c).collect()
}

/// The vocabulary during training.
struct Table {
    tokens: Vec<String>,
    ids: HashMap<String, u32>,
}

impl Table {
    /// Creates the initial vocabulary: special tokens, then characters that begin words, then characters within words.
    fn new(special: &[&str], counts: &[(String, u64)], alphabet: &HashSet<char>) -> Table {
        let (mut first, mut rest) = (HashSet::new(), HashSet::new());
        for (word, _) in counts {
            for (position, c) in word.chars().enumerate().filter(|(_, c)| alphabet.contains(c)) {
                if position == 0 {
                    first.insert(c)
                } else {
                    rest.insert(c)
                };
            }
        }
        let sorted = |chars: HashSet<char>| {
            let mut chars: Vec<_> = chars.into_iter().collect();
            chars.sort_unstable();
            chars
        };
        let mut table = Table { tokens: Vec::new(), ids: HashMap::new() };
        special.iter().for_each(|token| _ = table.id(token.to_string()));
        sorted(first).into_iter().for_each(|c| _ = table.id(c.to_string()));
        sorted(rest).into_iter().for_each(|c| _ = table.id(format!("##{c}")));
        table
    }

    /// Returns the id of a token, adding the token if it is new.
    fn id(&mut self, token: String) -> u32 {
        let next = self.tokens.len() as u32;
        let id = *self.ids.entry(token.clone()).or_insert(next);
        if id == next {
            self.tokens.push(token);
        }
        id
    }

    /// Returns the characters of a word as pieces. Returns `None` for a word that will be unknown, because a character
    /// is not in the alphabet or the word is too long.
    fn spell(&self, word: &str) -> Option<Vec<u32>> {
        let mut pieces = Vec::new();
        for (position, c) in word.chars().enumerate() {
            let token = if position == 0 { c.to_string() } else { format!("##{c}") };
            pieces.push(*self.ids.get(&token)?);
        }
        (pieces.len() <= MAX_CHARS).then_some(pieces)
    }

    fn merged(&mut self, (left, right): Pair) -> u32 {
        let right = &self.tokens[right as usize];
        let token = format!("{}{}", self.tokens[left as usize], right.strip_prefix("##").unwrap_or(right));
        self.id(token)
    }
}

struct Word {
    pieces: Vec<u32>,
    count: u64,
}

/// The words as pieces, with the number of occurrences and the words of each pair of adjacent pieces.
struct Merger {
    words: Vec<Word>,
    counts: HashMap<Pair, u64>,
    /// The words that have the pair, or had it before a merge.
    places: HashMap<Pair, Vec<u32>>,
}

impl Merger {
    fn new(words: Vec<Word>) -> Merger {
        let (mut counts, mut places) = (HashMap::<Pair, u64>::new(), HashMap::<Pair, Vec<u32>>::new());
        for (number, word) in words.iter().enumerate() {
            for pair in word.pieces.windows(2) {
                let pair = (pair[0], pair[1]);
                *counts.entry(pair).or_default() += word.count;
                note(&mut places, pair, number as u32);
            }
        }
        Merger { words, counts, places }
    }

    /// Merges the most frequent pair until the vocabulary is full. Of equally frequent pairs, the one with the older
    /// pieces is merged first.
    fn run(mut self, table: &mut Table, vocab_size: usize, min_frequency: u64) {
        let mut heap: BinaryHeap<(u64, Reverse<Pair>)> =
            self.counts.iter().map(|(&pair, &count)| (count, Reverse(pair))).collect();
        while table.tokens.len() < vocab_size
            && let Some((count, Reverse(pair))) = heap.pop()
        {
            // Counts in the heap may be out of date. A pair whose count has fallen is pushed again with its new count.
            let current = self.counts.get(&pair).copied().unwrap_or(0);
            if current != count {
                if current > 0 && current < count {
                    heap.push((current, Reverse(pair)));
                }
                continue;
            }
            if count < min_frequency {
                break;
            }
            let merged = table.merged(pair);
            for grown in self.merge(pair, merged) {
                heap.push((self.counts[&grown], Reverse(grown)));
            }
        }
    }

    /// Replaces `pair` by `merged` in all words. Returns the pairs that became more frequent.
    fn merge(&mut self, pair: Pair, merged: u32) -> Vec<Pair> {
        let mut grown = HashSet::new();
        for number in self.places.remove(&pair).unwrap_or_default() {
            let word = &mut self.words[number as usize];
            if !word.pieces.windows(2).any(|two| (two[0], two[1]) == pair) {
                continue;
            }
            let old = std::mem::take(&mut word.pieces);
            for two in old.windows(2) {
                if let Some(count) = self.counts.get_mut(&(two[0], two[1])) {
                    *count -= word.count;
                }
            }
            let mut at = 0;
            while at < old.len() {
                let here = old.get(at + 1).is_some_and(|&next| (old[at], next) == pair);
                word.pieces.push(if here { merged } else { old[at] });
                at += if here { 2 } else { 1 };
            }
            for two in word.pieces.windows(2) {
                let two = (two[0], two[1]);
                *self.counts.entry(two).or_default() += word.count;
                if two.0 == merged || two.1 == merged {
                    note(&mut self.places, two, number);
                    grown.insert(two);
                }
            }
        }
        self.counts.remove(&pair);
        let mut grown: Vec<_> = grown.into_iter().filter(|pair| self.counts.contains_key(pair)).collect();
        grown.sort_unstable();
        grown
    }
}

/// Records once that a word has a pair.
fn note(places: &mut HashMap<Pair, Vec<u32>>, pair: Pair, word: u32) {
    let words = places.entry(pair).or_default();
    if words.last() != Some(&word) {
        words.push(word);
    }
}
