//! A corpus as token ids.

use std::ops::Range;

use cloze_bert::Tokenizer;
use cloze_tensor::random::{Purpose, Stream};
use rayon::prelude::*;

use super::{Corpus, span};
use crate::{Error, Result};

/// Sentences that one task tokenizes: enough to outweigh the cost of the task.
const CHUNK: usize = 1024;

/// `Purpose::Shuffle` at this site decides which documents are held out.
const HOLDOUT_SITE: u32 = 1;

/// The token ids of a [`Corpus`], without special tokens: one list of ids, in which consecutive sentences are
/// consecutive ranges. There is at least one document, no document without a sentence, and no sentence
/// without a token.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TokenizedCorpus {
    ids: Vec<u32>,
    /// Where each sentence ends in `ids`; it begins where the one before ends.
    sentence_ends: Vec<usize>,
    /// Where each document ends, counted in sentences.
    document_ends: Vec<usize>,
}

impl TokenizedCorpus {
    /// Tokenizes a corpus on all threads of the rayon pool; the result does not depend on their number.
    /// Sentences without a token, and documents without a sentence that has one, are left out.
    ///
    /// # Errors
    /// When the tokenizer fails, or no sentence has a token.
    pub fn new(corpus: &Corpus, tokenizer: &Tokenizer) -> Result<TokenizedCorpus> {
        let chunks: Vec<Result<(Vec<u32>, Vec<usize>)>> = (0..corpus.sentence_count().div_ceil(CHUNK))
            .into_par_iter()
            .map(|chunk| {
                let sentences = chunk * CHUNK..((chunk + 1) * CHUNK).min(corpus.sentence_count());
                let (mut ids, mut ends) = (Vec::new(), Vec::with_capacity(sentences.len()));
                for index in sentences {
                    ids.extend(tokenizer.ids(corpus.sentence(index))?);
                    ends.push(ids.len());
                }
                Ok((ids, ends))
            })
            .collect();

        let mut tokenized = TokenizedCorpus::default();
        let mut index = 0;
        let mut documents = corpus.document_ends.iter().copied().peekable();
        for chunk in chunks {
            let (ids, ends) = chunk?;
            let mut start = 0;
            for end in ends {
                tokenized.push_sentence(&ids[start..end]);
                start = end;
                index += 1;
                if documents.next_if_eq(&index).is_some() {
                    tokenized.end_document();
                }
            }
        }
        tokenized.not_empty()
    }

    /// A corpus given as documents of sentences of ids.
    ///
    /// # Errors
    /// When no sentence has a token.
    pub fn from_ids(documents: &[Vec<Vec<u32>>]) -> Result<TokenizedCorpus> {
        let mut tokenized = TokenizedCorpus::default();
        for document in documents {
            document.iter().for_each(|sentence| tokenized.push_sentence(sentence));
            tokenized.end_document();
        }
        tokenized.not_empty()
    }

    /// The number of documents.
    pub fn document_count(&self) -> usize {
        self.document_ends.len()
    }

    /// The number of sentences in all documents.
    pub fn sentence_count(&self) -> usize {
        self.sentence_ends.len()
    }

    /// The number of tokens in all documents.
    pub fn token_count(&self) -> usize {
        self.ids.len()
    }

    /// The ids of all documents, in order.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The numbers of the sentences of document `document`.
    ///
    /// # Panics
    /// When there is no such document.
    pub fn sentences_of(&self, document: usize) -> Range<usize> {
        span(&self.document_ends, document)
    }

    /// Where the tokens of sentence `sentence` stand in [`ids`](Self::ids).
    ///
    /// # Panics
    /// When there is no such sentence.
    pub fn tokens_of(&self, sentence: usize) -> Range<usize> {
        span(&self.sentence_ends, sentence)
    }

    /// Splits the documents, at random, into those to train on and those held out: the fraction `holdout` of
    /// their number, rounded, but at least one and not all. Both keep the order of the corpus.
    ///
    /// # Errors
    /// When `holdout` is not in (0, 1), or there is only one document.
    pub fn split(&self, holdout: f64, seed: u64) -> Result<(TokenizedCorpus, TokenizedCorpus)> {
        if !(holdout > 0.0 && holdout < 1.0) {
            return Err(Error::invalid("holdout", holdout, "above 0 and below 1"));
        }
        let count = self.document_count();
        if count < 2 {
            return Err(Error::data("corpus", "holding documents out needs at least two documents, there is one"));
        }
        let held_out = ((holdout * count as f64).round() as usize).clamp(1, count - 1);
        let mut order: Vec<usize> = (0..count).collect();
        Stream::new(seed, Purpose::Shuffle, HOLDOUT_SITE, 0, 0).shuffle(&mut order);
        let mut is_held_out = vec![false; count];
        order[..held_out].iter().for_each(|&document| is_held_out[document] = true);

        let mut parts = [TokenizedCorpus::default(), TokenizedCorpus::default()];
        for (document, &part) in is_held_out.iter().enumerate() {
            let part = &mut parts[part as usize];
            for sentence in self.sentences_of(document) {
                part.push_sentence(&self.ids[self.tokens_of(sentence)]);
            }
            part.end_document();
        }
        let [training, held_out] = parts;
        Ok((training, held_out))
    }

    fn push_sentence(&mut self, ids: &[u32]) {
        if !ids.is_empty() {
            self.ids.extend_from_slice(ids);
            self.sentence_ends.push(self.ids.len());
        }
    }

    fn end_document(&mut self) {
        if self.document_ends.last().copied().unwrap_or(0) < self.sentence_ends.len() {
            self.document_ends.push(self.sentence_ends.len());
        }
    }

    fn not_empty(self) -> Result<TokenizedCorpus> {
        match self.ids.is_empty() {
            true => Err(Error::data("corpus", "no sentence has a token")),
            false => Ok(self),
        }
    }
}

impl std::fmt::Debug for TokenizedCorpus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (documents, sentences) = (self.document_count(), self.sentence_count());
        write!(f, "TokenizedCorpus({documents} documents, {sentences} sentences, {} tokens)", self.token_count())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Documents of the given numbers of sentences; sentence `s` of document `d` is four tokens, all of which
    /// say `d` and `s`: `1000 * (d + 1) + 10 * s + 0..4`.
    pub(crate) fn numbered(sentences: &[usize]) -> TokenizedCorpus {
        let sentence = |d: usize, s: usize| (0..4).map(|token| (1000 * (d + 1) + 10 * s + token) as u32).collect();
        let documents: Vec<Vec<Vec<u32>>> =
            sentences.iter().enumerate().map(|(d, &n)| (0..n).map(|s| sentence(d, s)).collect()).collect();
        TokenizedCorpus::from_ids(&documents).unwrap()
    }

    fn lists(corpus: &TokenizedCorpus) -> Vec<Vec<&[u32]>> {
        let sentence = |index| &corpus.ids()[corpus.tokens_of(index)];
        (0..corpus.document_count()).map(|document| corpus.sentences_of(document).map(sentence).collect()).collect()
    }

    #[test]
    fn ids_are_those_of_each_sentence_for_any_number_of_threads() {
        let sentence = |d: usize, s: usize| format!("sentence {s} of document-{d} and word {}", s * d);
        let documents: Vec<Vec<String>> =
            [3, 1, 2_500, 7].iter().enumerate().map(|(d, &n)| (0..n).map(|s| sentence(d, s)).collect()).collect();
        let tokenizer = Tokenizer::train(documents.concat(), 100, &cloze_bert::TrainOptions::new()).unwrap();
        let expected: Vec<Vec<Vec<u32>>> = documents
            .iter()
            .map(|document| document.iter().map(|sentence| tokenizer.ids(sentence).unwrap()).collect())
            .collect();
        let corpus = Corpus::from_documents(documents).unwrap();
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let tokenized = pool.install(|| TokenizedCorpus::new(&corpus, &tokenizer)).unwrap();
            assert_eq!(lists(&tokenized), expected);
            assert_eq!((tokenized.document_count(), tokenized.sentence_count()), (4, 2_511));
        }
    }

    #[test]
    fn what_has_no_token_is_left_out() {
        let given = [vec![vec![1], vec![], vec![2, 3]], vec![vec![]], vec![], vec![vec![4]]];
        let corpus = TokenizedCorpus::from_ids(&given).unwrap();
        assert_eq!(lists(&corpus), [vec![&[1][..], &[2, 3]], vec![&[4]]]);
        assert_eq!(corpus.token_count(), 4);
        assert!(TokenizedCorpus::from_ids(&[vec![vec![]]]).is_err());
    }

    #[test]
    fn split_is_by_documents_and_keeps_all() {
        let corpus = numbered(&[2, 1, 3, 1, 2, 1, 1, 4, 1, 2]);
        let (training, held_out) = corpus.split(0.3, 7).unwrap();
        assert_eq!((training.document_count(), held_out.document_count()), (7, 3));
        let mut documents = lists(&training);
        documents.extend(lists(&held_out));
        documents.sort();
        assert_eq!(documents, lists(&corpus));
        assert!(lists(&training).is_sorted() && lists(&held_out).is_sorted());

        assert!(corpus.split(0.3, 7).unwrap().1 == held_out);
        assert!((0..20).any(|seed| corpus.split(0.3, seed).unwrap().1 != held_out), "the seed changes nothing");
    }

    #[test]
    fn split_leaves_neither_part_empty() {
        let corpus = numbered(&[1, 1]);
        for holdout in [0.001, 0.5, 0.999] {
            let (training, held_out) = corpus.split(holdout, 0).unwrap();
            assert_eq!((training.document_count(), held_out.document_count()), (1, 1));
        }
        for holdout in [0.0, 1.0, -0.1, f64::NAN] {
            assert!(corpus.split(holdout, 0).unwrap_err().to_string().starts_with("holdout is "));
        }
        assert!(numbered(&[5]).split(0.5, 0).unwrap_err().to_string().contains("at least two documents"));
    }
}
