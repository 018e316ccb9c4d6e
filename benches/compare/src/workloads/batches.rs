//! Batches of real texts if they are available, and of random tokens of the same lengths otherwise.

use std::ops::Range;
use std::path::{Path, PathBuf};

use cloze::prelude::*;
use cloze::tensor::random::{Purpose, Stream};
use cloze::train::{MaskedExample, PairExample, Sanitized, Selection};

use super::{SEED, Workload};
use crate::Result;
use crate::protocol::PaddedBatch;

/// Number of different batches in a workload.
const BATCHES: usize = 8;
/// The special tokens of BERT's vocabulary.
const PAD: u32 = 0;
const CLS: u32 = 101;
const SEP: u32 = 102;
const MASK: u32 = 103;
/// The first id of ordinary tokens.
const ORDINARY: u32 = 1000;
/// The ignored label, for tokens that are not to be predicted.
const IGNORED: i64 = -100;

/// Lengths of the sentences to embed. Each occurs twice in a batch.
const SENTENCES: [usize; 16] = [6, 9, 12, 15, 18, 22, 26, 30, 35, 40, 50, 60, 75, 90, 110, 128];

/// Files of the course and of SST-2.
const PAIRS: &str = "course/corpus.txt";
const ROWS: &str = "course/sentiment_train.tsv";
const SST2: &str = "sst2/train.tsv";
const NO_SST2: &str = "needs sst2/train.tsv and BERT's vocabulary in the folder of CLOZE_DATA";

/// The source of tokens: texts, if data and a vocabulary are available, or random numbers.
#[derive(Default)]
pub struct Tokens {
    /// The folder that contains `course/` and `sst2/`.
    data: Option<PathBuf>,
    tokenizer: Option<Tokenizer>,
}

/// A sequence before padding: ids, token types and labels of its tokens.
#[derive(Clone, Default)]
struct TokenRow {
    ids: Vec<u32>,
    token_types: Vec<u32>,
    labels: Vec<i64>,
}

impl Tokens {
    /// Uses the texts in the folder `data`, tokenized with the vocabulary in the folder `vocab`.
    ///
    /// # Errors
    /// Returns an error if the vocabulary cannot be read.
    pub fn new(data: Option<PathBuf>, vocab: Option<&Path>) -> Result<Tokens> {
        let own = data.as_ref().map(|data| data.join("vocab")).filter(|folder| folder.is_dir());
        let Some(folder) = vocab.map(Path::to_path_buf).or(own) else { return Ok(Tokens { data, tokenizer: None }) };
        let names = ["vocab.txt", "bert-base-uncased-vocab.txt"];
        let file = names.map(|name| folder.join(name)).into_iter().find(|path| path.is_file());
        let file =
            file.ok_or_else(|| format!("{}: contains neither {} nor {}", folder.display(), names[0], names[1]))?;
        let tokenizer = Tokenizer::from_vocab_file(file, &TokenizerOptions::default())?;
        Ok(Tokens { data, tokenizer: Some(tokenizer) })
    }

    /// Returns the data file `name` and the tokenizer, if both exist.
    fn file(&self, name: &str) -> Option<(PathBuf, &Tokenizer)> {
        let path = self.data.as_ref()?.join(name);
        path.is_file().then_some(path).zip(self.tokenizer.as_ref())
    }

    /// Describes the tokens of a workload.
    pub fn source(&self, workload: Workload) -> &'static str {
        let there = |name| self.file(name).is_some();
        match workload {
            Workload::Pretrain if there(PAIRS) => "the course's pairs",
            Workload::Pretrain => "random tokens, as many as the course's pairs have",
            Workload::Finetune if there(ROWS) => "the course's sentences",
            Workload::Finetune => "random tokens, as many as the course's sentences have",
            Workload::FinetuneDynamic => "sentences of SST-2",
            Workload::Embed if there(SST2) => "words of SST-2",
            _ => "random tokens",
        }
    }

    /// Returns why a workload cannot be run, if its texts are missing.
    pub fn lacks(&self, workload: Workload) -> Option<&'static str> {
        (workload == Workload::FinetuneDynamic && self.file(SST2).is_none()).then_some(NO_SST2)
    }

    /// Returns the batches of a workload for a model with `vocab_size` tokens.
    pub(super) fn batches(&self, workload: Workload, vocab_size: usize) -> Result<Vec<PaddedBatch>> {
        let mut drawn = Drawn::new(workload, vocab_size);
        match workload {
            Workload::Pretrain => match self.file(PAIRS) {
                Some((path, tokenizer)) => course_pairs(&path, tokenizer),
                None => Ok(repeat(|| drawn.pairs(8, 13..19, 64))),
            },
            Workload::Dense => Ok(dense(8, vocab_size)),
            Workload::Finetune => match self.file(ROWS) {
                Some((path, tokenizer)) => labelled(&path, tokenizer, 16, Some(128)),
                None => Ok(repeat(|| drawn.labelled(16, 7..14, 128))),
            },
            Workload::FinetuneDynamic => match self.file(SST2) {
                Some((path, tokenizer)) => labelled(&path, tokenizer, 32, None),
                None => Err(NO_SST2.into()),
            },
            Workload::Embed => {
                if let Some((path, tokenizer)) = self.file(SST2) {
                    drawn.words = words(&path, tokenizer)?;
                }
                let lengths = [SENTENCES, SENTENCES].concat();
                Ok(repeat(|| drawn.sentences(&lengths, 128)))
            }
            Workload::Qa384 => Ok(repeat(|| drawn.sentences(&[384], 384))),
            Workload::Qa55 => Ok(repeat(|| drawn.sentences(&[55], 55))),
        }
    }
}

/// Returns batches of this many pairs of 128 random tokens.
pub(super) fn dense(sequences: usize, vocab_size: usize) -> Vec<PaddedBatch> {
    let mut drawn = Drawn::new(Workload::Dense, vocab_size);
    repeat(|| drawn.pairs(sequences, 128..129, 128))
}

fn repeat(batch: impl FnMut() -> PaddedBatch) -> Vec<PaddedBatch> {
    std::iter::repeat_with(batch).take(BATCHES).collect()
}

/// Returns the course's sentence pairs, masked by its rule.
fn course_pairs(path: &Path, tokenizer: &Tokenizer) -> Result<Vec<PaddedBatch>> {
    const SIZE: usize = 8;
    let data = PreTraining::new(&Corpus::open(path)?, tokenizer)?
        .pairs(PairSampler::course(SIZE * BATCHES).seq_len(64))
        .masking(Masking::bert().selection(Selection::Bernoulli))
        .seed(SEED);
    let pairs = data.epoch(0)?;
    let batch = |(step, pairs): (usize, &[PairExample])| {
        let example = |(number, pair)| data.example(pair, step as u32, number as u32);
        let examples = pairs.iter().enumerate().map(example).collect::<Result<Vec<_>, _>>()?;
        let rows: Vec<TokenRow> = examples.iter().map(masked_row).collect();
        let next = examples.iter().map(|example| i64::from(example.next_sentence_label.unwrap_or(0)));
        Ok(PaddedBatch { next_sentence: next.collect(), ..padded(&rows, 64, true) })
    };
    pairs.chunks(SIZE).enumerate().map(batch).collect()
}

fn masked_row(example: &MaskedExample) -> TokenRow {
    let mut labels = vec![IGNORED; example.ids.len()];
    for target in &example.targets {
        labels[target.position as usize] = i64::from(target.original);
    }
    TokenRow { ids: example.ids.clone(), token_types: example.token_types.clone(), labels }
}

/// Returns labelled sentences in random order, padded to `length` or to the longest sentence in each batch.
fn labelled(path: &Path, tokenizer: &Tokenizer, size: usize, length: Option<usize>) -> Result<Vec<PaddedBatch>> {
    let clean = rows(path)?;
    let mut stream = Stream::new(SEED, Purpose::Shuffle, 0, 0, 0);
    let mut order: Vec<usize> = Vec::new();
    while order.len() < size * BATCHES {
        let mut epoch: Vec<usize> = (0..clean.texts.len()).collect();
        stream.shuffle(&mut epoch);
        order.extend(epoch);
    }
    let options = EncodeOptions::new().max_length(128).truncation(Truncation::OnlyFirst);
    let batch = |picked: &[usize]| {
        let row = |&index: &usize| {
            let encoding = tokenizer.encode_with(&clean.texts[index], None, &options)?;
            Ok(TokenRow { ids: encoding.ids, token_types: encoding.token_types, labels: Vec::new() })
        };
        let rows = picked.iter().map(row).collect::<Result<Vec<_>>>()?;
        let longest = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
        let labels = picked.iter().map(|&index| clean.labels[index]).collect();
        Ok(PaddedBatch { labels, ..padded(&rows, length.unwrap_or(longest), false) })
    };
    order.chunks_exact(size).take(BATCHES).map(batch).collect()
}

/// Returns the token ids of all texts in a file, concatenated.
fn words(path: &Path, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let mut words = Vec::new();
    for text in rows(path)?.texts {
        tokenizer.ids_into(&text, &mut words)?;
    }
    Ok(words)
}

/// Reads the labelled texts of a file.
fn rows(path: &Path) -> Result<Sanitized> {
    let rows = read_rows(path, &Columns::new())?;
    let names = label_names(&rows)?;
    Ok(sanitize("rows", rows, Some(&names)))
}

/// Draws random tokens, or pieces of a text.
struct Drawn {
    stream: Stream,
    vocab_size: usize,
    /// The token ids of the text. If it is empty, tokens are random.
    words: Vec<u32>,
}

impl Drawn {
    fn new(workload: Workload, vocab_size: usize) -> Drawn {
        Drawn { stream: Stream::new(SEED, Purpose::User, workload as u32, 0, 0), vocab_size, words: Vec::new() }
    }

    /// Draws a pair `[CLS] a [SEP] b [SEP]`, or `[CLS] a [SEP]`, of `length` tokens.
    fn row(&mut self, length: usize, pair: bool) -> TokenRow {
        let middle = if pair { length / 2 } else { length - 1 };
        let mut row = TokenRow { labels: vec![IGNORED; length], ..TokenRow::default() };
        let first_word = self.stream.below(self.words.len().saturating_sub(length));
        for at in 0..length {
            row.token_types.push(u32::from(at > middle));
            row.ids.push(match at {
                0 => CLS,
                _ if at == middle || at + 1 == length => SEP,
                _ => match self.words.get(first_word + at) {
                    Some(&word) => word,
                    None => ORDINARY + self.stream.below(self.vocab_size - ORDINARY as usize) as u32,
                },
            });
        }
        row
    }

    fn length(&mut self, lengths: &Range<usize>) -> usize {
        lengths.start + self.stream.below(lengths.len())
    }

    /// Draws a batch of sentences of these lengths in random order.
    fn sentences(&mut self, lengths: &[usize], length: usize) -> PaddedBatch {
        let mut lengths = lengths.to_vec();
        self.stream.shuffle(&mut lengths);
        padded(&lengths.into_iter().map(|tokens| self.row(tokens, false)).collect::<Vec<_>>(), length, false)
    }

    /// Draws a batch of pairs with 15 % of their tokens masked, at least one in each pair.
    fn pairs(&mut self, size: usize, lengths: Range<usize>, length: usize) -> PaddedBatch {
        let mut rows = Vec::new();
        for _ in 0..size {
            let tokens = self.length(&lengths);
            let mut row = self.row(tokens, true);
            for at in 1..tokens {
                if row.ids[at] != SEP && (at == 1 || self.stream.uniform() < 0.15) {
                    row.labels[at] = i64::from(std::mem::replace(&mut row.ids[at], MASK));
                }
            }
            rows.push(row);
        }
        PaddedBatch { next_sentence: self.classes(size), ..padded(&rows, length, true) }
    }

    /// Draws a batch of sentences, each with a class.
    fn labelled(&mut self, size: usize, lengths: Range<usize>, length: usize) -> PaddedBatch {
        let drawn: Vec<usize> = (0..size).map(|_| self.length(&lengths)).collect();
        PaddedBatch { labels: self.classes(size), ..self.sentences(&drawn, length) }
    }

    fn classes(&mut self, size: usize) -> Vec<i64> {
        (0..size).map(|_| self.stream.below(2) as i64).collect()
    }
}

/// Pads rows to `length`. If `labelled` is true, the labels of tokens are included.
fn padded(rows: &[TokenRow], length: usize, labelled: bool) -> PaddedBatch {
    let mut batch = PaddedBatch { length, ..PaddedBatch::default() };
    for row in rows {
        let padding = length - row.ids.len();
        let fill = |to: &mut Vec<u32>, values: &[u32], pad: u32| {
            to.extend_from_slice(values);
            to.extend(std::iter::repeat_n(pad, padding));
        };
        fill(&mut batch.ids, &row.ids, PAD);
        fill(&mut batch.token_types, &row.token_types, 0);
        fill(&mut batch.attention_mask, &vec![1; row.ids.len()], 0);
        if labelled {
            batch.labels.extend_from_slice(&row.labels);
            batch.labels.extend(std::iter::repeat_n(IGNORED, padding));
        }
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(workload: Workload) -> Vec<PaddedBatch> {
        Tokens::default().batches(workload, 30_522).unwrap()
    }

    #[test]
    fn random_batches_have_the_promised_shapes() {
        for (workload, rows, length, lengths) in [
            (Workload::Pretrain, 8, 64, 13..=18),
            (Workload::Dense, 8, 128, 128..=128),
            (Workload::Finetune, 16, 128, 7..=13),
            (Workload::Qa384, 1, 384, 384..=384),
            (Workload::Qa55, 1, 55, 55..=55),
            (Workload::Embed, 32, 128, 6..=128),
        ] {
            let drawn = batches(workload);
            assert_eq!((drawn.len(), &drawn), (BATCHES, &batches(workload)));
            assert_ne!(drawn[0], drawn[1]);
            for batch in drawn {
                assert_eq!(
                    (batch.length, batch.ids.len(), batch.token_types.len()),
                    (length, rows * length, rows * length)
                );
                assert_eq!(batch.lengths().len(), rows);
                assert!(batch.lengths().iter().all(|tokens| lengths.contains(tokens)), "{:?}", batch.lengths());
                assert!(batch.ids.iter().all(|&id| id < 30_522));
                let padding = batch.ids.iter().zip(&batch.attention_mask).filter(|(_, mask)| **mask == 0);
                assert!(padding.into_iter().all(|(&id, _)| id == PAD));
            }
        }
        assert!(Tokens::default().lacks(Workload::FinetuneDynamic).is_some());
    }

    #[test]
    fn masked_tokens_are_labelled() {
        for batch in batches(Workload::Dense) {
            let share = batch.targets() as f64 / batch.ids.len() as f64;
            assert!((0.1..0.2).contains(&share), "{share}");
            for (&id, &label) in batch.ids.iter().zip(&batch.labels) {
                assert_eq!(id == MASK, label != IGNORED);
                assert!(label == IGNORED || label >= i64::from(ORDINARY));
            }
        }
    }
}
