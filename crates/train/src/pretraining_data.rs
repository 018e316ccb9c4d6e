//! The pre-training data set: from a corpus to batches of masked examples.
//!
//! There are three kinds of random draws, each with its own stream: the segments of the examples (per epoch), the order of
//! the examples (per epoch), and the masking (per step and sequence). A batch is therefore a function of seed, epoch and
//! step, and training can resume anywhere.

use cloze_bert::Tokenizer;
use cloze_tensor::random::{Purpose, Stream};

use crate::trainer::{DataSet, Fingerprint, Size};
use crate::{
    Corpus, Error, ExampleStream, MaskedExample, Masking, PairExample, PairSampler, PreTrainingBatch, Result,
    TokenizedCorpus, VocabularyTable,
};

/// The tokens whose examples are shuffled together: about 400,000 examples of 128 tokens, 20 MB.
const SHUFFLE_BUFFER: usize = 1 << 25;

/// The epoch and the step that evaluations draw for. Training never reaches them, and every evaluation sees the same
/// examples with the same targets.
const EVALUATION: u32 = u32::MAX;

/// The data set of masked language modelling and next-sentence prediction. The defaults are BERT's, at 128 tokens.
///
/// ```no_run
/// use cloze_train::{Corpus, Masking, MaskingUnit, PairSampler, PreTraining};
/// # fn train(tokenizer: cloze_bert::Tokenizer) -> cloze_train::Result<()> {
/// let corpus = Corpus::open("corpus.txt")?;
/// let data = PreTraining::new(&corpus, &tokenizer)?
///     .pairs(PairSampler::course(400).seq_len(64))
///     .masking(Masking::bert().unit(MaskingUnit::WholeWord))
///     .seed(7);
/// for (step, batch) in data.batches(&data.epoch(0)?, 8, 0)?.enumerate() {
///     println!("step {step}: {} tokens", batch?.batch().tokens());
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct PreTraining {
    corpus: TokenizedCorpus,
    vocabulary: VocabularyTable,
    pairs: PairSampler,
    masking: Masking,
    seed: u64,
    shuffle_buffer: usize,
    examples: Option<Vec<PairExample>>,
}

impl PreTraining {
    /// Tokenizes a corpus to train on.
    ///
    /// # Errors
    /// Returns an error if the tokenizer fails or no sentence has a token.
    pub fn new(corpus: &Corpus, tokenizer: &Tokenizer) -> Result<PreTraining> {
        let vocabulary = VocabularyTable::new(tokenizer)?;
        Ok(PreTraining::from_tokenized(TokenizedCorpus::new(corpus, tokenizer)?, vocabulary))
    }

    /// Makes the data set of a tokenized corpus, such as one part of [`TokenizedCorpus::split`].
    pub fn from_tokenized(corpus: TokenizedCorpus, vocabulary: VocabularyTable) -> PreTraining {
        PreTraining {
            corpus,
            vocabulary,
            pairs: PairSampler::default(),
            masking: Masking::default(),
            seed: 0,
            shuffle_buffer: SHUFFLE_BUFFER,
            examples: None,
        }
    }

    /// Sets how examples are drawn from the corpus: their kind, and how long they may be.
    pub fn pairs(self, pairs: PairSampler) -> PreTraining {
        PreTraining { pairs, ..self }
    }

    /// Sets the largest number of tokens of an example.
    pub fn seq_len(self, seq_len: usize) -> PreTraining {
        PreTraining { pairs: self.pairs.seq_len(seq_len), ..self }
    }

    /// Turns next-sentence prediction on or off. Without it, examples are [single segments](PairSampler::next_sentence).
    pub fn next_sentence(self, next_sentence: bool) -> PreTraining {
        PreTraining { pairs: self.pairs.next_sentence(next_sentence), ..self }
    }

    /// Sets which tokens are masked, and how.
    pub fn masking(self, masking: Masking) -> PreTraining {
        PreTraining { masking, ..self }
    }

    /// Sets the seed of all draws.
    pub fn seed(self, seed: u64) -> PreTraining {
        PreTraining { seed, ..self }
    }

    /// Sets the number of tokens whose examples are shuffled together, 2^25 by default. About that many tokens' examples
    /// are in memory at a time. A larger corpus is divided into blocks of a 32nd of this size, in an order drawn per
    /// epoch.
    pub fn shuffle_buffer(self, tokens: usize) -> PreTraining {
        PreTraining { shuffle_buffer: tokens, ..self }
    }

    /// Uses these examples in every epoch, in a new order each time, instead of sampling.
    pub fn examples(self, examples: Vec<PairExample>) -> PreTraining {
        PreTraining { examples: Some(examples), ..self }
    }

    /// Divides the length of the examples by `divisor`, down to the shortest possible length.
    pub(crate) fn shortened(self, divisor: usize) -> PreTraining {
        PreTraining { pairs: self.pairs.shortened(divisor), ..self }
    }

    /// Returns the corpus.
    pub fn corpus(&self) -> &TokenizedCorpus {
        &self.corpus
    }

    /// Returns the vocabulary table.
    pub fn vocabulary(&self) -> &VocabularyTable {
        &self.vocabulary
    }

    /// Returns all examples of an epoch in training order. For large corpora, use [`stream`](Self::stream).
    ///
    /// # Errors
    /// Returns an error if a setting is invalid, if pairs are drawn from a corpus of one document, or if the
    /// [given examples](Self::examples) come from a larger corpus.
    pub fn epoch(&self, epoch: u32) -> Result<Vec<PairExample>> {
        self.stream(epoch, 0)?.collect()
    }

    /// Streams the examples of an epoch in training order, without the first `skip`. Memory does not grow with the corpus,
    /// and skipping an example costs a small part of training on it.
    ///
    /// # Errors
    /// Returns the errors of [`epoch`](Self::epoch).
    pub fn stream(&self, epoch: u32, skip: usize) -> Result<ExampleStream> {
        self.check()?;
        let (corpus, seed) = (self.corpus.clone(), self.seed);
        let mut stream = match &self.examples {
            Some(examples) => ExampleStream::given(corpus, examples.clone(), seed, epoch),
            None => ExampleStream::sampled(corpus, self.pairs.clone(), self.shuffle_buffer, seed, epoch)?,
        };
        stream.advance(skip);
        Ok(stream)
    }

    /// Returns the number of examples of an epoch. The course's pairs and given examples have a fixed number; BERT's
    /// examples are drawn on all threads to count them, and their number differs a little between epochs.
    ///
    /// # Errors
    /// Returns the errors of [`epoch`](Self::epoch).
    pub fn example_count(&self, epoch: u32) -> Result<usize> {
        Ok(self.stream(epoch, 0)?.remaining())
    }

    /// Returns the examples to evaluate on, in the order of the sampler. Every call returns the same ones.
    ///
    /// # Errors
    /// Returns the errors of [`epoch`](Self::epoch).
    pub fn evaluation(&self) -> Result<Vec<PairExample>> {
        self.check()?;
        match &self.examples {
            Some(examples) => Ok(examples.clone()),
            None => self.pairs.sample(&self.corpus, self.seed, EVALUATION),
        }
    }

    fn check(&self) -> Result<()> {
        self.masking.check()?;
        self.vocabulary.check(&[self.corpus.largest_id()])?;
        self.examples.iter().flatten().try_for_each(|example| example.check(&self.corpus))
    }

    /// Masks an example as sequence `sequence` of optimizer step `step`.
    ///
    /// # Errors
    /// Returns an error if a masking setting is invalid or the example was drawn from a larger corpus.
    pub fn example(&self, pair: &PairExample, step: u32, sequence: u32) -> Result<MaskedExample> {
        pair.check(&self.corpus)?;
        let mut ids = pair.ids(&self.corpus, &self.vocabulary);
        let mut stream = Stream::new(self.seed, Purpose::Masking, 0, step, sequence);
        let targets = self.masking.mask(&mut ids, &self.vocabulary, step, &mut stream)?;
        Ok(MaskedExample { ids, token_types: pair.token_types(), targets, next_sentence_label: pair.label() })
    }

    /// Masks and packs examples of optimizer step `step`. `first_sequence` is the number of the first one within the
    /// step; it is not 0 for the later batches of a step that accumulates gradients.
    ///
    /// # Errors
    /// Returns the errors of [`example`](Self::example) and [`PreTrainingBatch::new`].
    pub fn batch(&self, pairs: &[PairExample], step: u32, first_sequence: u32) -> Result<PreTrainingBatch> {
        let numbers: Vec<u32> = (0..pairs.len() as u32).map(|number| first_sequence.wrapping_add(number)).collect();
        self.numbered_batch(pairs, step, &numbers)
    }

    /// Masks and packs examples with their `numbers` within optimizer step `step`.
    pub(crate) fn numbered_batch(&self, pairs: &[PairExample], step: u32, numbers: &[u32]) -> Result<PreTrainingBatch> {
        let mask = |(pair, &number)| self.example(pair, step, number);
        let examples: Vec<MaskedExample> = pairs.iter().zip(numbers).map(mask).collect::<Result<_>>()?;
        PreTrainingBatch::numbered(&examples, numbers)
    }

    /// Returns batches of `batch_size` examples, one per optimizer step from `first_step` on. The last batch may be
    /// smaller.
    ///
    /// # Errors
    /// Returns an error if `batch_size` is 0. Each batch can fail like [`batch`](Self::batch).
    pub fn batches<'a>(
        &'a self,
        pairs: &'a [PairExample],
        batch_size: usize,
        first_step: u32,
    ) -> Result<impl ExactSizeIterator<Item = Result<PreTrainingBatch>> + 'a> {
        check_batch_size(batch_size)?;
        let batch = move |(number, pairs)| self.batch(pairs, first_step.wrapping_add(number as u32), 0);
        Ok(pairs.chunks(batch_size).enumerate().map(batch))
    }

    /// Returns the batches of an evaluation. The targets of an example depend only on its number, not on the batch size or
    /// the time of the evaluation.
    ///
    /// # Errors
    /// Returns the errors of [`batches`](Self::batches).
    pub fn evaluation_batches<'a>(
        &'a self,
        pairs: &'a [PairExample],
        batch_size: usize,
    ) -> Result<impl ExactSizeIterator<Item = Result<PreTrainingBatch>> + 'a> {
        check_batch_size(batch_size)?;
        let batch = move |(number, pairs)| self.batch(pairs, EVALUATION, (number * batch_size) as u32);
        Ok(pairs.chunks(batch_size).enumerate().map(batch))
    }
}

fn check_batch_size(batch_size: usize) -> Result<()> {
    match batch_size {
        0 => Err(Error::invalid("batch size", 0, "at least 1")),
        _ => Ok(()),
    }
}

impl DataSet for PreTraining {
    type Example = PairExample;
    type Batch = PreTrainingBatch;

    fn epoch(&self, epoch: u32) -> Result<impl Iterator<Item = Result<PairExample>> + '_> {
        self.stream(epoch, 0)
    }

    fn batch(&self, examples: &[PairExample], step: u32, sequences: &[u32]) -> Result<PreTrainingBatch> {
        self.numbered_batch(examples, step, sequences)
    }

    fn size(&self, example: &PairExample) -> Size {
        Size { sequences: 1, tokens: example.token_count() }
    }

    fn fingerprint(&self) -> Option<u64> {
        let mut print = Fingerprint::new();
        print.add(&self.corpus.fingerprint().to_le_bytes());
        let settings = format!("{:?} {:?} {} {:?}", self.pairs, self.masking, self.seed, self.examples);
        print.add(settings.as_bytes());
        Some(print.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TargetKind;
    use crate::corpus::numbered;

    fn data() -> PreTraining {
        let data = PreTraining::from_tokenized(numbered(&[40, 25, 31]), VocabularyTable::small(5_000));
        data.seq_len(32).seed(3)
    }

    #[test]
    fn packing_keeps_every_example() {
        let data = data();
        let pairs = data.epoch(0).unwrap();
        let examples: Vec<MaskedExample> =
            pairs[..5].iter().zip(10..).map(|(pair, sequence)| data.example(pair, 4, sequence).unwrap()).collect();
        let packed = data.batch(&pairs[..5], 4, 10).unwrap();
        let (batch, targets, kinds) = (packed.batch(), packed.targets(), packed.target_kinds());
        let ends = batch.sequences().cu_seqlens();
        assert_eq!(batch.sequences().numbers(), [10, 11, 12, 13, 14]);
        assert_eq!((batch.len(), ends.len(), batch.tokens()), (5, 6, ends[5] as usize));

        let mut seen = 0;
        for (number, example) in examples.iter().enumerate() {
            let (start, end) = (ends[number], ends[number + 1]);
            let rows = start as usize..end as usize;
            assert_eq!(batch.ids()[rows.clone()], example.ids);
            assert_eq!(batch.token_types()[rows.clone()], example.token_types);
            assert!(batch.positions()[rows].iter().copied().eq(0..end - start));
            assert_eq!(Some(targets.next_sentence[number] as u32), example.next_sentence_label);
            assert!(!example.targets.is_empty());
            let original = pairs[number].ids(data.corpus(), data.vocabulary());
            for target in &example.targets {
                let row = targets.rows[seen];
                assert_eq!(row, start + target.position);
                assert_eq!(targets.labels[seen], original[target.position as usize] as i64);
                assert_eq!(kinds[seen], target.kind);
                if target.kind == TargetKind::Masked {
                    assert_eq!(batch.ids()[row as usize], 4);
                }
                seen += 1;
            }
        }
        assert_eq!((targets.rows.len(), targets.labels.len(), kinds.len()), (seen, seen, seen));
    }

    #[test]
    fn batches_cover_the_epoch_and_advance_the_step() {
        let data = data();
        let pairs = data.epoch(2).unwrap();
        assert_ne!(pairs.len() % 4, 0, "the test wants a partial batch");
        let batches: Vec<PreTrainingBatch> = data.batches(&pairs, 4, 100).unwrap().map(Result::unwrap).collect();
        assert_eq!(batches.len(), pairs.len().div_ceil(4));
        assert_eq!(batches.last().unwrap().batch().len(), pairs.len() % 4);
        for (number, found) in batches.iter().enumerate() {
            let pairs = &pairs[number * 4..pairs.len().min(number * 4 + 4)];
            let expected = data.batch(pairs, 100 + number as u32, 0).unwrap();
            assert_eq!((found.batch().ids(), found.targets()), (expected.batch().ids(), expected.targets()));
        }
        assert!(data.batches(&pairs, 0, 0).is_err() && data.evaluation_batches(&pairs, 0).is_err());
    }

    #[test]
    fn a_step_split_in_two_has_the_same_sequences() {
        let data = data();
        let pairs = data.epoch(0).unwrap();
        let (whole, first, second) = (
            data.batch(&pairs[..6], 9, 0).unwrap(),
            data.batch(&pairs[..2], 9, 0).unwrap(),
            data.batch(&pairs[2..6], 9, 2).unwrap(),
        );
        let numbers = |batch: &PreTrainingBatch| batch.batch().sequences().numbers().to_vec();
        assert_eq!(whole.batch().ids(), [first.batch().ids(), second.batch().ids()].concat());
        assert_eq!(whole.targets().labels, [&first.targets().labels[..], &second.targets().labels].concat());
        assert_eq!(numbers(&whole), [numbers(&first), numbers(&second)].concat());
    }

    #[test]
    fn epochs_are_shuffled_and_differ() {
        let data = data();
        let shuffled = data.epoch(1).unwrap();
        let sampled = data.pairs.sample(&data.corpus, 3, 1).unwrap();
        assert_ne!(shuffled, sampled);
        let sorted = |mut pairs: Vec<PairExample>| {
            pairs.sort_by_key(|pair| pair.first().start);
            pairs
        };
        assert_eq!(sorted(shuffled.clone()), sorted(sampled));
        assert_eq!(shuffled, data.epoch(1).unwrap());
        assert_ne!(sorted(shuffled.clone()), sorted(data.epoch(0).unwrap()));
        assert_ne!(shuffled, data.seed(4).epoch(1).unwrap());
    }

    #[test]
    fn streams_are_epochs() {
        for data in [data(), data().shuffle_buffer(64), data().pairs(PairSampler::course(50))] {
            let all = data.epoch(1).unwrap();
            assert_eq!(data.example_count(1).unwrap(), all.len());
            for skip in [0, 1, all.len() / 2, all.len(), all.len() + 1] {
                let rest: Vec<PairExample> = data.stream(1, skip).unwrap().collect::<Result<_>>().unwrap();
                assert_eq!(rest, all[skip.min(all.len())..]);
            }
        }
        assert_ne!(data().epoch(1).unwrap(), data().shuffle_buffer(64).epoch(1).unwrap());
    }

    #[test]
    fn masking_is_dynamic_and_evaluation_is_not() {
        let data = data();
        let pair = &data.epoch(0).unwrap()[0];
        assert_ne!(data.example(pair, 0, 0).unwrap(), data.example(pair, 1, 0).unwrap());

        let pairs = data.evaluation().unwrap();
        assert_eq!(pairs, data.evaluation().unwrap());
        let flat = |batch_size| {
            let batches = data.evaluation_batches(&pairs, batch_size).unwrap();
            batches.flat_map(|batch| batch.unwrap().batch().ids().to_vec()).collect::<Vec<u32>>()
        };
        assert_eq!(flat(1), flat(7));
    }

    #[test]
    fn without_next_sentence_there_are_no_labels() {
        let data = PreTraining::from_tokenized(numbered(&[40]), VocabularyTable::small(5_000)).next_sentence(false);
        let pairs = data.epoch(0).unwrap();
        let packed = data.batch(&pairs, 0, 0).unwrap();
        assert!(packed.targets().next_sentence.is_empty());
        assert!(packed.batch().token_types().iter().all(|&kind| kind == 0));
    }

    #[test]
    fn examples_of_another_corpus_are_refused() {
        let large = data();
        let drawn = large.epoch(0).unwrap();
        let small = PreTraining::from_tokenized(numbered(&[2, 2]), VocabularyTable::small(5_000));
        let last = drawn.iter().max_by_key(|pair| pair.first().end).unwrap();
        for error in [
            small.example(last, 0, 0).unwrap_err(),
            small.batch(&drawn, 0, 0).unwrap_err(),
            small.clone().examples(drawn.clone()).epoch(0).unwrap_err(),
            small.clone().examples(drawn.clone()).evaluation().unwrap_err(),
        ] {
            assert!(error.to_string().contains("the corpus has 16"), "{error}");
        }
        assert!(large.clone().examples(drawn).epoch(0).is_ok());
    }

    #[test]
    fn errors_come_before_the_first_step() {
        let data = data();
        assert!(data.clone().masking(Masking::bert().rate(2.0)).epoch(0).is_err());
        assert!(data.clone().seq_len(3).epoch(0).is_err());
        let other = PreTraining::from_tokenized(data.corpus().clone(), VocabularyTable::small(2_000));
        assert!(other.epoch(0).unwrap_err().to_string().starts_with("token id is 3303"));
    }
}
