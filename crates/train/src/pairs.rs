//! Sentence pairs for next-sentence prediction, and single segments for training without it.
//!
//! Source: J. Devlin, M.-W. Chang, K. Lee, K. Toutanova, "BERT: Pre-training of deep bidirectional
//! transformers for language understanding", NAACL 2019, section 3.1 and appendix A.2.

use std::ops::Range;

use cloze_tensor::random::{Purpose, Stream};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, TokenizedCorpus, VocabularyTable};

mod bert;
mod blocks;
mod course;
mod stream;

use blocks::CorpusBlock;
pub use stream::ExampleStream;

/// The label of a pair whose second segment follows the first.
pub const IS_NEXT: u32 = 0;
/// The label of a pair whose second segment comes from another document.
pub const NOT_NEXT: u32 = 1;

/// The sites of `Purpose::Pairing`: the course's pairs, BERT's pairs, and BERT's pairs of a document that continues from
/// the previous block.
const COURSE_SITE: u32 = 0;
const BERT_SITE: u32 = 1;
const CONTINUED_SITE: u32 = 2;

/// The largest number of positions that dropout can address, as 16-bit blocks of 16 and of 32 positions.
const LONGEST: usize = 1 << 16;

/// One or two segments of a corpus, as ranges of its ids. A segment is a sentence or several consecutive sentences, and may
/// be truncated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PairExample {
    first: Range<usize>,
    second: Option<Range<usize>>,
    label: Option<u32>,
}

impl PairExample {
    /// Returns the tokens of the first segment in the corpus; see [`TokenizedCorpus::ids_of`].
    pub fn first(&self) -> Range<usize> {
        self.first.clone()
    }

    /// Returns the tokens of the second segment, if there is one.
    pub fn second(&self) -> Option<Range<usize>> {
        self.second.clone()
    }

    /// Returns [`IS_NEXT`] or [`NOT_NEXT`] for a pair, `None` for a single segment.
    pub fn label(&self) -> Option<u32> {
        self.label
    }

    /// Returns the number of tokens, special tokens included.
    pub fn token_count(&self) -> usize {
        2 + self.first.len() + self.second.as_ref().map_or(0, |second| second.len() + 1)
    }

    /// Returns the ids of `[CLS] first [SEP]`, or of `[CLS] first [SEP] second [SEP]`.
    ///
    /// # Panics
    /// Panics if the example was drawn from a larger corpus.
    pub fn ids(&self, corpus: &TokenizedCorpus, vocabulary: &VocabularyTable) -> Vec<u32> {
        let mut ids = Vec::with_capacity(self.token_count());
        ids.push(vocabulary.cls_id());
        for segment in std::iter::once(&self.first).chain(&self.second) {
            corpus.append_ids(segment.clone(), &mut ids);
            ids.push(vocabulary.sep_id());
        }
        ids
    }

    /// Checks that the segments lie in `corpus`.
    pub(crate) fn check(&self, corpus: &TokenizedCorpus) -> Result<()> {
        let tokens = corpus.token_limit();
        match std::iter::once(&self.first).chain(&self.second).find(|segment| segment.end > tokens) {
            None => Ok(()),
            Some(Range { start, end }) => {
                let why = format!(
                    "an example has the tokens {start}..{end}, the corpus has {tokens}: use the corpus that the examples \
                     were drawn from"
                );
                Err(Error::data("examples", why))
            }
        }
    }

    /// Returns the token types: 0 up to and including the first `[SEP]`, 1 after it.
    pub fn token_types(&self) -> Vec<u32> {
        let mut types = vec![0; self.token_count()];
        types[self.first.len() + 2..].fill(1);
        types
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum PairKind {
    Course { pairs: usize },
    Bert { short: f64 },
}

/// The rule by which examples are drawn from a corpus. The default is BERT's, at 128 tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairSampler {
    kind: PairKind,
    seq_len: usize,
    next_sentence: bool,
}

impl Default for PairSampler {
    fn default() -> PairSampler {
        PairSampler::bert()
    }
}

impl PairSampler {
    /// Returns the course's rule: `pairs` pairs of single sentences per epoch.
    ///
    /// For each pair, a document is drawn. If it has at least two sentences then, with probability 1/2, two consecutive
    /// sentences make the pair. Otherwise a document is drawn again, a sentence of it, and a sentence of another
    /// document; with documents of one sentence, more than half of the pairs are therefore [`NOT_NEXT`]. A pair that is
    /// too long loses tokens at the end of its longer sentence.
    pub fn course(pairs: usize) -> PairSampler {
        PairSampler { kind: PairKind::Course { pairs }, seq_len: 128, next_sentence: true }
    }

    /// Returns BERT's rule: an epoch is one pass over each document.
    ///
    /// Consecutive sentences are collected up to the target length, which is random for one example in ten. A random number
    /// of them, from the start, is the first segment. With probability 1/2, and always for a single sentence, the second
    /// segment comes from a random place of another document, and the unused sentences are collected again; otherwise it
    /// is the rest of the sentences. A pair that is too long loses tokens one by one, at a random end of its longer segment.
    ///
    /// The authors' program draws the target length once per document. Here it is drawn per example, since a document may
    /// be a book.
    pub fn bert() -> PairSampler {
        PairSampler { kind: PairKind::Bert { short: 0.1 }, seq_len: 128, next_sentence: true }
    }

    /// Sets the largest number of tokens of an example, special tokens included.
    pub fn seq_len(self, seq_len: usize) -> PairSampler {
        PairSampler { seq_len, ..self }
    }

    /// Divides the length of the examples by `divisor`, down to the shortest possible length.
    pub(crate) fn shortened(self, divisor: usize) -> PairSampler {
        let seq_len = (self.seq_len / divisor).max(self.shortest());
        self.seq_len(seq_len)
    }

    /// Returns the smallest valid `seq_len`: BERT draws short lengths from 2 tokens on.
    fn shortest(&self) -> usize {
        self.special_count() + 2
    }

    /// Selects pairs (the default), or single segments without a label.
    ///
    /// By BERT's rule, a single segment has as many consecutive sentences of a document as fit into the target length; a
    /// longer sentence is continued in the next segment. This is DOC-SENTENCES of Y. Liu et al., "RoBERTa: A robustly
    /// optimized BERT pretraining approach", 2019, section 4.2. By the course's rule, it is one sentence.
    pub fn next_sentence(self, next_sentence: bool) -> PairSampler {
        PairSampler { next_sentence, ..self }
    }

    /// Sets the fraction of examples with a random length, for BERT's rule only.
    pub fn short_probability(self, short: f64) -> PairSampler {
        match self.kind {
            PairKind::Bert { .. } => PairSampler { kind: PairKind::Bert { short }, ..self },
            PairKind::Course { .. } => self,
        }
    }

    /// Checks the settings, as [`sample`](PairSampler::sample) does.
    ///
    /// # Errors
    /// Returns an error if the length is too short for two tokens besides the special ones or above 65,536, if the number
    /// of pairs is 0, or if a probability is out of range.
    pub fn check(&self) -> Result<()> {
        let least = self.shortest();
        if !(least..=LONGEST).contains(&self.seq_len) {
            return Err(Error::invalid("seq_len", self.seq_len, format!("from {least} to {LONGEST}")));
        }
        match self.kind {
            PairKind::Course { pairs: 0 } => Err(Error::invalid("number of pairs", 0, "at least 1")),
            PairKind::Course { pairs } if u32::try_from(pairs).is_err() => {
                Err(Error::invalid("number of pairs", pairs, "below 2^32"))
            }
            PairKind::Bert { short } if !(0.0..=1.0).contains(&short) => {
                Err(Error::invalid("short_probability", short, "from 0 to 1"))
            }
            _ => Ok(()),
        }
    }

    /// Draws the examples of an epoch, in the order of the corpus (BERT's rule) or of drawing (the course's). The result
    /// does not depend on the number of threads.
    ///
    /// # Errors
    /// Returns an error if a setting is invalid, or if pairs are drawn from a corpus of one document.
    pub fn sample(&self, corpus: &TokenizedCorpus, seed: u64, epoch: u32) -> Result<Vec<PairExample>> {
        self.check_with(corpus)?;
        Ok(match self.kind {
            PairKind::Course { pairs } => self.course_pairs(corpus, 0..pairs, seed, epoch),
            PairKind::Bert { .. } => self.in_block(corpus, &CorpusBlock::whole(corpus), seed, epoch),
        })
    }

    /// Checks the settings, and that the corpus has enough documents for them.
    fn check_with(&self, corpus: &TokenizedCorpus) -> Result<()> {
        self.check()?;
        if self.next_sentence && corpus.document_count() < 2 {
            let why = "has one document, next-sentence prediction needs at least two documents: separate them by blank \
                       lines or turn next_sentence off";
            return Err(Error::data("corpus", why));
        }
        Ok(())
    }

    /// Draws some of the course's pairs, by number.
    fn course_pairs(&self, corpus: &TokenizedCorpus, pairs: Range<usize>, seed: u64, epoch: u32) -> Vec<PairExample> {
        let draw = |pair| {
            let mut stream = Stream::new(seed, Purpose::Pairing, COURSE_SITE, epoch, pair as u32);
            course::draw(corpus, self.room(), self.next_sentence, &mut stream)
        };
        pairs.into_par_iter().map(draw).collect()
    }

    /// Draws BERT's examples of a block, in the order of the corpus.
    fn in_block(&self, corpus: &TokenizedCorpus, block: &CorpusBlock, seed: u64, epoch: u32) -> Vec<PairExample> {
        let of_document = |document| self.in_document(corpus, block, document, seed, epoch).collect();
        let documents: Vec<Vec<PairExample>> = block.documents.clone().into_par_iter().map(of_document).collect();
        documents.into_iter().flatten().collect()
    }

    /// Counts the examples that [`in_block`](Self::in_block) draws.
    fn count_in_block(&self, corpus: &TokenizedCorpus, block: &CorpusBlock, seed: u64, epoch: u32) -> usize {
        let count = |document| self.in_document(corpus, block, document, seed, epoch).count();
        block.documents.clone().into_par_iter().map(count).sum()
    }

    /// Draws BERT's examples of the part of a document that lies in a block.
    fn in_document(
        &self,
        corpus: &TokenizedCorpus,
        block: &CorpusBlock,
        document: usize,
        seed: u64,
        epoch: u32,
    ) -> impl Iterator<Item = PairExample> {
        let short = if let PairKind::Bert { short } = self.kind { short } else { 0.0 };
        let settings = bert::Settings { room: self.room(), short, next_sentence: self.next_sentence };
        let all = corpus.sentences_of(document);
        let own = all.start.max(block.sentences.start)..all.end.min(block.sentences.end);
        // A block has at most one document that began before it.
        let (site, number) =
            if own.start == all.start { (BERT_SITE, document) } else { (CONTINUED_SITE, block.number) };
        let stream = Stream::new(seed, Purpose::Pairing, site, epoch, number as u32);
        bert::examples(corpus, document, own, settings, stream)
    }

    fn special_count(&self) -> usize {
        if self.next_sentence { 3 } else { 2 }
    }

    /// Returns the number of tokens of an example besides the special ones.
    fn room(&self) -> usize {
        self.seq_len - self.special_count()
    }
}

/// Draws a document other than `document`, each with the same probability.
fn other_document(corpus: &TokenizedCorpus, document: usize, stream: &mut Stream) -> usize {
    corpus.visit();
    let drawn = stream.below(corpus.document_count() - 1);
    drawn + (drawn >= document) as usize
}

#[cfg(test)]
mod tests;
