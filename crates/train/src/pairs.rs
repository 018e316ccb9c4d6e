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

use blocks::Block;
pub use stream::ExampleStream;

/// The label of a pair whose second segment follows the first.
pub const IS_NEXT: u32 = 0;
/// The label of a pair whose second segment comes from another document.
pub const NOT_NEXT: u32 = 1;

/// `Purpose::Pairing` at these sites is for the course's pairs, for BERT's, and for BERT's of the document that goes on
/// from one block to the next.
const COURSE_SITE: u32 = 0;
const BERT_SITE: u32 = 1;
const CONTINUED_SITE: u32 = 2;

/// Dropout has room for this many positions, as 16-bit blocks of 16 and of 32 positions.
const LONGEST: usize = 1 << 16;

/// One or two segments of a corpus, as ranges of its ids. A segment is one run of tokens: a sentence, or
/// several that follow each other, perhaps truncated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PairExample {
    first: Range<usize>,
    second: Option<Range<usize>>,
    label: Option<u32>,
}

impl PairExample {
    /// Where the first segment stands in the corpus: see [`TokenizedCorpus::ids_of`].
    pub fn first(&self) -> Range<usize> {
        self.first.clone()
    }

    /// Where the second segment stands, if there are two.
    pub fn second(&self) -> Option<Range<usize>> {
        self.second.clone()
    }

    /// [`IS_NEXT`] or [`NOT_NEXT`] for a pair, nothing for a single segment.
    pub fn label(&self) -> Option<u32> {
        self.label
    }

    /// The number of tokens, special ones included.
    pub fn token_count(&self) -> usize {
        2 + self.first.len() + self.second.as_ref().map_or(0, |second| second.len() + 1)
    }

    /// `[CLS] first [SEP]`, or `[CLS] first [SEP] second [SEP]`.
    ///
    /// # Panics
    /// When `corpus` is a smaller one than that of the example.
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
                    "one has the tokens {start}..{end}, the corpus has {tokens}: examples belong to the corpus that \
                     they were drawn from"
                );
                Err(Error::data("examples", why))
            }
        }
    }

    /// 0 up to and with the first `[SEP]`, 1 after it.
    pub fn token_types(&self) -> Vec<u32> {
        let mut types = vec![0; self.token_count()];
        types[self.first.len() + 2..].fill(1);
        types
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    Course { pairs: usize },
    Bert { short: f64 },
}

/// How pairs are drawn from a corpus. The default is BERT's way at 128 tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairSampler {
    kind: Kind,
    seq_len: usize,
    next_sentence: bool,
}

impl Default for PairSampler {
    fn default() -> PairSampler {
        PairSampler::bert()
    }
}

impl PairSampler {
    /// The course's way: `pairs` pairs of single sentences an epoch.
    ///
    /// For each, a document is drawn; if it has two sentences or more then, with probability 1/2, two that
    /// follow each other make a pair. Otherwise a document is drawn again, a sentence of it, and a sentence
    /// of one of the other documents. So documents of one sentence make for more than half `NotNext`. What
    /// is too long loses tokens at the end of its longer sentence.
    pub fn course(pairs: usize) -> PairSampler {
        PairSampler { kind: Kind::Course { pairs }, seq_len: 128, next_sentence: true }
    }

    /// BERT's way: an epoch goes once through each document.
    ///
    /// Sentences that follow each other are collected up to the length, which for one example in ten is
    /// drawn at random; their first few, at random, are the first segment. With probability 1/2, and always
    /// when there is only one sentence, the second comes from a random place of another document, and the
    /// sentences that were not used are collected again. Otherwise it is the rest. What is too long loses
    /// tokens at a random end of its longer segment, one by one.
    ///
    /// The authors' program draws the length once a document; here it is drawn for each example, since a
    /// document may be a book.
    pub fn bert() -> PairSampler {
        PairSampler { kind: Kind::Bert { short: 0.1 }, seq_len: 128, next_sentence: true }
    }

    /// The largest number of tokens of an example, special ones included.
    pub fn seq_len(self, seq_len: usize) -> PairSampler {
        PairSampler { seq_len, ..self }
    }

    /// With examples so many times shorter, but no shorter than can be.
    pub(crate) fn shortened(self, times: usize) -> PairSampler {
        let seq_len = (self.seq_len / times).max(self.shortest());
        self.seq_len(seq_len)
    }

    /// The least that `seq_len` can be: BERT draws short lengths from 2 tokens on.
    fn shortest(&self) -> usize {
        self.special_count() + 2
    }

    /// Whether there are pairs, or single segments without a label.
    pub fn next_sentence(self, next_sentence: bool) -> PairSampler {
        PairSampler { next_sentence, ..self }
    }

    /// The share of examples with a length drawn at random. The course's way has none.
    pub fn short_probability(self, short: f64) -> PairSampler {
        match self.kind {
            Kind::Bert { .. } => PairSampler { kind: Kind::Bert { short }, ..self },
            Kind::Course { .. } => self,
        }
    }

    /// Checks the settings; [`sample`](PairSampler::sample) does so too.
    ///
    /// # Errors
    /// When the length leaves no room for a token of each segment or two, or exceeds 65,536; when no pair is
    /// asked for; or when a probability is not one.
    pub fn check(&self) -> Result<()> {
        let least = self.shortest();
        if !(least..=LONGEST).contains(&self.seq_len) {
            return Err(Error::invalid("seq_len", self.seq_len, format!("from {least} to {LONGEST}")));
        }
        match self.kind {
            Kind::Course { pairs: 0 } => Err(Error::invalid("number of pairs", 0, "at least 1")),
            Kind::Course { pairs } if u32::try_from(pairs).is_err() => {
                Err(Error::invalid("number of pairs", pairs, "below 2^32"))
            }
            Kind::Bert { short } if !(0.0..=1.0).contains(&short) => {
                Err(Error::invalid("short_probability", short, "from 0 to 1"))
            }
            _ => Ok(()),
        }
    }

    /// The examples of epoch `epoch`, in the order of the corpus (BERT's) or of drawing (the course's). They
    /// are a function of the arguments alone, whatever the number of threads.
    ///
    /// # Errors
    /// When a setting makes no sense, or pairs are asked of a corpus of one document.
    pub fn sample(&self, corpus: &TokenizedCorpus, seed: u64, epoch: u32) -> Result<Vec<PairExample>> {
        self.check_with(corpus)?;
        Ok(match self.kind {
            Kind::Course { pairs } => self.course_pairs(corpus, 0..pairs, seed, epoch),
            Kind::Bert { .. } => self.in_block(corpus, &Block::whole(corpus), seed, epoch),
        })
    }

    /// Checks the settings, and that the corpus has what they need.
    fn check_with(&self, corpus: &TokenizedCorpus) -> Result<()> {
        self.check()?;
        if self.next_sentence && corpus.document_count() < 2 {
            let why = "next-sentence prediction needs at least two documents, there is one \
                       (blank lines separate the documents of a file); or turn next_sentence off";
            return Err(Error::data("corpus", why));
        }
        Ok(())
    }

    /// Some of the course's pairs, by their numbers.
    fn course_pairs(&self, corpus: &TokenizedCorpus, pairs: Range<usize>, seed: u64, epoch: u32) -> Vec<PairExample> {
        let draw = |pair| {
            let mut stream = Stream::new(seed, Purpose::Pairing, COURSE_SITE, epoch, pair as u32);
            course::draw(corpus, self.room(), self.next_sentence, &mut stream)
        };
        pairs.into_par_iter().map(draw).collect()
    }

    /// BERT's examples of a block, in the order of the corpus.
    fn in_block(&self, corpus: &TokenizedCorpus, block: &Block, seed: u64, epoch: u32) -> Vec<PairExample> {
        let of_document = |document| self.in_document(corpus, block, document, seed, epoch).collect();
        let documents: Vec<Vec<PairExample>> = block.documents.clone().into_par_iter().map(of_document).collect();
        documents.into_iter().flatten().collect()
    }

    /// The number of [these](Self::in_block).
    fn count_in_block(&self, corpus: &TokenizedCorpus, block: &Block, seed: u64, epoch: u32) -> usize {
        let count = |document| self.in_document(corpus, block, document, seed, epoch).count();
        block.documents.clone().into_par_iter().map(count).sum()
    }

    /// BERT's examples of what a block has of a document.
    fn in_document(
        &self,
        corpus: &TokenizedCorpus,
        block: &Block,
        document: usize,
        seed: u64,
        epoch: u32,
    ) -> impl Iterator<Item = PairExample> {
        let short = if let Kind::Bert { short } = self.kind { short } else { 0.0 };
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

    /// The tokens of an example that are not special.
    fn room(&self) -> usize {
        self.seq_len - self.special_count()
    }
}

/// A document other than `document`, each with the same probability.
fn other_document(corpus: &TokenizedCorpus, document: usize, stream: &mut Stream) -> usize {
    corpus.visit();
    let drawn = stream.below(corpus.document_count() - 1);
    drawn + (drawn >= document) as usize
}

#[cfg(test)]
mod tests;
