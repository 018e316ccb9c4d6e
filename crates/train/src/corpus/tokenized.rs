//! A corpus as token ids.

use std::hash::Hasher;
use std::ops::Range;
use std::sync::Arc;

use cloze_bert::Tokenizer;
use cloze_tensor::random::{Purpose, Stream};
use rayon::prelude::*;
use twox_hash::XxHash3_64;

use super::Corpus;
use super::assemble::{InMemory, TokenPart};
use super::store::{Counts, Store};
use crate::{Error, Result};

/// The number of sentences that a task tokenizes, enough to outweigh the cost of the task.
const CHUNK: usize = 1024;

/// The site of `Purpose::Shuffle` that selects the held-out documents.
const HOLDOUT_SITE: u32 = 1;

/// The token ids of a corpus, without special tokens: one list of ids, in which consecutive sentences of a document are
/// consecutive ranges. There is at least one document, every document has a sentence, and every sentence a token.
///
/// The ids are in memory or, for text of any size, in memory-mapped [shards](crate::Shards). Clones share them,
/// and so do the parts of a [split](TokenizedCorpus::split). A part keeps the sentence and token numbers of the whole, but
/// numbers its documents from 0.
#[derive(Clone)]
pub struct TokenizedCorpus {
    store: Arc<Store>,
    /// The documents of this part of a split corpus, ascending; `None` for the whole corpus.
    selected: Option<Selected>,
}

#[derive(Clone)]
struct Selected {
    documents: Arc<[u32]>,
    counts: Counts,
}

impl TokenizedCorpus {
    /// Tokenizes a corpus on all threads of the rayon pool; the result does not depend on their number. Sentences without a
    /// token, and documents without such a sentence, are dropped.
    ///
    /// # Errors
    /// Returns an error if the tokenizer fails or no sentence has a token.
    pub fn new(corpus: &Corpus, tokenizer: &Tokenizer) -> Result<TokenizedCorpus> {
        let parts: Vec<Result<TokenPart>> = (0..corpus.sentence_count().div_ceil(CHUNK))
            .into_par_iter()
            .map(|chunk| {
                let sentences = chunk * CHUNK..((chunk + 1) * CHUNK).min(corpus.sentence_count());
                let first = corpus.document_ends.partition_point(|&end| end <= sentences.start);
                let ends = corpus.document_ends[first..].iter().take_while(|&&end| end <= sentences.end);
                let document_ends = ends.map(|end| end - sentences.start).collect();
                TokenPart::new(sentences.map(|index| corpus.sentence(index)), document_ends, tokenizer)
            })
            .collect();
        let mut whole = InMemory::new();
        for part in parts {
            whole.push(&part?);
        }
        Ok(TokenizedCorpus::of_store(whole.finish()?))
    }

    /// Makes a corpus of documents of sentences of ids.
    ///
    /// # Errors
    /// Returns an error if no sentence has a token.
    pub fn from_ids(documents: &[Vec<Vec<u32>>]) -> Result<TokenizedCorpus> {
        let mut part = TokenPart::default();
        for sentences in documents {
            for sentence in sentences {
                part.ids.extend_from_slice(sentence);
                part.sentence_ends.push(part.ids.len());
            }
            part.document_ends.push(part.sentence_ends.len());
        }
        let mut whole = InMemory::new();
        whole.push(&part);
        Ok(TokenizedCorpus::of_store(whole.finish()?))
    }

    pub(super) fn of_store(store: Store) -> TokenizedCorpus {
        TokenizedCorpus { store: Arc::new(store), selected: None }
    }

    fn counts(&self) -> Counts {
        self.selected.as_ref().map_or(self.store.counts(), |selected| selected.counts)
    }

    /// Returns the number of documents.
    pub fn document_count(&self) -> usize {
        self.counts().documents
    }

    /// Returns the number of sentences in all documents.
    pub fn sentence_count(&self) -> usize {
        self.counts().sentences
    }

    /// Returns the number of tokens in all documents.
    pub fn token_count(&self) -> usize {
        self.counts().tokens
    }

    /// Returns the ids of all documents, in order.
    pub fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.document_count()).flat_map(|document| self.store.ids_in_document(self.tokens_of_document(document)))
    }

    /// Returns the ids of some tokens, such as those of a sentence.
    ///
    /// # Panics
    /// Panics if the range is out of bounds.
    pub fn ids_of(&self, tokens: Range<usize>) -> Vec<u32> {
        let mut ids = Vec::with_capacity(tokens.len());
        self.store.append_ids(tokens, &mut ids);
        ids
    }

    /// Appends the ids of some tokens.
    pub(crate) fn append_ids(&self, tokens: Range<usize>, to: &mut Vec<u32>) {
        self.store.append_ids(tokens, to);
    }

    /// Returns the largest id of the whole corpus, which a part of it may lack.
    pub(crate) fn largest_id(&self) -> u32 {
        self.store.largest_id
    }

    /// Returns the number of tokens of the whole corpus, which is the limit of token numbers.
    pub(crate) fn token_limit(&self) -> usize {
        self.store.counts().tokens
    }

    /// Returns a number that differs for other documents, wherever their ids are.
    pub(crate) fn fingerprint(&self) -> u64 {
        match &self.selected {
            None => self.store.fingerprint,
            Some(selected) => {
                let mut hash = XxHash3_64::with_seed(self.store.fingerprint);
                hash.write(bytemuck::cast_slice(&selected.documents));
                hash.finish()
            }
        }
    }

    /// Returns the numbers of the sentences of a document.
    ///
    /// # Panics
    /// Panics if `document` is out of range.
    pub fn sentences_of(&self, document: usize) -> Range<usize> {
        let document = self.selected.as_ref().map_or(document, |selected| selected.documents[document] as usize);
        self.store.sentences_of(document)
    }

    /// Returns the numbers of the tokens of a sentence; see [`ids_of`](Self::ids_of).
    ///
    /// # Panics
    /// Panics if `sentence` is out of range.
    pub fn tokens_of(&self, sentence: usize) -> Range<usize> {
        self.store.tokens_of(sentence)
    }

    fn tokens_of_document(&self, document: usize) -> Range<usize> {
        let sentences = self.sentences_of(document);
        self.tokens_of(sentences.start).start..self.tokens_of(sentences.end - 1).end
    }

    /// Returns the first sentence that starts at or after `token`, or else the number of sentences.
    pub(crate) fn first_sentence_from(&self, token: usize) -> usize {
        self.store.first_sentence_from(token)
    }

    /// Counts a random access to the corpus, so that the mapped pages of a file do not pile up.
    pub(crate) fn visit(&self) {
        self.store.visit();
    }

    /// Splits the documents at random into a training part and a held-out part. The held-out part has the fraction `holdout`
    /// of the documents, rounded; both parts have at least one. They keep the order of the corpus and take four bytes per
    /// document.
    ///
    /// # Errors
    /// Returns an error if `holdout` is not between 0 and 1 (exclusive), or if there is only one document.
    pub fn split(&self, holdout: f64, seed: u64) -> Result<(TokenizedCorpus, TokenizedCorpus)> {
        if !(holdout > 0.0 && holdout < 1.0) {
            return Err(Error::invalid("holdout", holdout, "above 0 and below 1"));
        }
        let count = self.document_count();
        if count < 2 {
            return Err(Error::data("corpus", "has one document, holding documents out needs at least two documents"));
        }
        let held_out = ((holdout * count as f64).round() as usize).clamp(1, count - 1);
        // A store has fewer than 2^32 documents.
        let mut order: Vec<u32> = (0..count as u32).collect();
        Stream::new(seed, Purpose::Shuffle, HOLDOUT_SITE, 0, 0).shuffle(&mut order);
        let (held_out, training) = order.split_at_mut(held_out);
        Ok((self.select(training), self.select(held_out)))
    }

    /// Returns the part with these documents.
    pub(super) fn select(&self, documents: &mut [u32]) -> TokenizedCorpus {
        documents.sort_unstable();
        let mut counts = Counts { documents: documents.len(), ..Counts::default() };
        for &document in &*documents {
            counts.sentences += self.sentences_of(document as usize).len();
            counts.tokens += self.tokens_of_document(document as usize).len();
        }
        self.store.release();
        let own = |&document: &u32| self.selected.as_ref().map_or(document, |all| all.documents[document as usize]);
        let documents = documents.iter().map(own).collect();
        TokenizedCorpus { store: self.store.clone(), selected: Some(Selected { documents, counts }) }
    }
}

/// Two corpora are equal if they have the same documents.
impl PartialEq for TokenizedCorpus {
    fn eq(&self, other: &TokenizedCorpus) -> bool {
        fn lengths(corpus: &TokenizedCorpus) -> impl Iterator<Item = Vec<usize>> {
            let of =
                |document| corpus.sentences_of(document).map(|sentence| corpus.tokens_of(sentence).len()).collect();
            (0..corpus.document_count()).map(of)
        }
        lengths(self).eq(lengths(other)) && self.ids().eq(other.ids())
    }
}

impl Eq for TokenizedCorpus {}

impl std::fmt::Debug for TokenizedCorpus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (documents, sentences) = (self.document_count(), self.sentence_count());
        write!(f, "TokenizedCorpus({documents} documents, {sentences} sentences, {} tokens)", self.token_count())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Makes documents with the given numbers of sentences. Sentence `s` of document `d` has the four tokens
    /// `1000 * (d + 1) + 10 * s + 0..4`, so that a token identifies its place.
    pub(crate) fn numbered(sentences: &[usize]) -> TokenizedCorpus {
        let sentence = |d: usize, s: usize| (0..4).map(|token| (1000 * (d + 1) + 10 * s + token) as u32).collect();
        let documents: Vec<Vec<Vec<u32>>> =
            sentences.iter().enumerate().map(|(d, &n)| (0..n).map(|s| sentence(d, s)).collect()).collect();
        TokenizedCorpus::from_ids(&documents).unwrap()
    }

    pub(crate) fn lists(corpus: &TokenizedCorpus) -> Vec<Vec<Vec<u32>>> {
        let sentence = |index| corpus.ids_of(corpus.tokens_of(index));
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
    fn sentences_without_a_token_are_dropped() {
        let given = [vec![vec![1], vec![], vec![2, 3]], vec![vec![]], vec![], vec![vec![4]]];
        let corpus = TokenizedCorpus::from_ids(&given).unwrap();
        assert_eq!(lists(&corpus), [vec![vec![1], vec![2, 3]], vec![vec![4]]]);
        assert_eq!(corpus.ids().collect::<Vec<_>>(), [1, 2, 3, 4]);
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
        let counts = |part: &TokenizedCorpus| (part.sentence_count(), part.token_count(), part.ids().count());
        let sentences: usize = lists(&training).iter().map(Vec::len).sum();
        assert_eq!(counts(&training), (sentences, 4 * sentences, 4 * sentences));
        let (inner, rest) = training.split(0.5, 1).unwrap();
        let mut documents = [lists(&inner), lists(&rest)].concat();
        documents.sort();
        assert_eq!(documents, lists(&training));
        assert!(training != held_out && training == corpus.split(0.3, 7).unwrap().0);

        assert!((0..20).any(|seed| corpus.split(0.3, seed).unwrap().1 != held_out), "the seed has no effect");
    }

    #[test]
    fn sentences_are_found_by_token() {
        let corpus = TokenizedCorpus::from_ids(&[vec![vec![1, 2, 3], vec![4]], vec![vec![5, 6]]]).unwrap();
        let found: Vec<usize> = (0..8).map(|token| corpus.first_sentence_from(token)).collect();
        assert_eq!(found, [0, 1, 1, 1, 2, 3, 3, 3]);
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
