//! The data set of pre-training: from a corpus to packed batches of masked examples.
//!
//! Three kinds of draws, each its own random stream: which segments make an example (by epoch), the order of
//! the examples (by epoch), and the masking (by step and sequence). So a batch is a function of seed, epoch
//! and step, and training can resume anywhere.

use cloze_bert::Tokenizer;
use cloze_tensor::random::{Purpose, Stream};

use crate::trainer::Fingerprint;
use crate::{
    Corpus, Error, ExampleStream, MaskedExample, Masking, PackedExamples, PairExample, PairSampler, Result,
    TokenizedCorpus, VocabularyTable,
};

/// Tokens whose examples are shuffled together: some 400,000 examples of 128 tokens, 20 MB.
const SHUFFLE_BUFFER: usize = 1 << 25;

/// The epoch and the step that evaluation draws for, so that every evaluation sees the same examples with the
/// same targets. Training does not get there.
const EVALUATION: u32 = u32::MAX;

/// The data set of masked language modelling and next-sentence prediction. The defaults are BERT's, at 128
/// tokens.
///
/// ```no_run
/// use cloze_train::{Corpus, Masking, PairSampler, PreTraining};
/// # fn train(tokenizer: cloze_bert::Tokenizer) -> cloze_train::Result<()> {
/// let corpus = Corpus::open("corpus.txt")?;
/// let data = PreTraining::new(&corpus, &tokenizer)?
///     .pairs(PairSampler::course(400).seq_len(64))
///     .masking(Masking::bert().whole_word(true))
///     .seed(7);
/// for (step, batch) in data.batches(&data.epoch(0)?, 8, 0)?.enumerate() {
///     println!("step {step}: {} tokens", batch?.token_count());
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
    /// When the tokenizer fails, or no sentence has a token.
    pub fn new(corpus: &Corpus, tokenizer: &Tokenizer) -> Result<PreTraining> {
        let vocabulary = VocabularyTable::new(tokenizer)?;
        Ok(PreTraining::from_tokenized(TokenizedCorpus::new(corpus, tokenizer)?, vocabulary))
    }

    /// The data set of a corpus already tokenized, such as either part of [`TokenizedCorpus::split`].
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

    /// How examples are drawn from the corpus, how long they may be, whether they are pairs.
    pub fn pairs(self, pairs: PairSampler) -> PreTraining {
        PreTraining { pairs, ..self }
    }

    /// The largest number of tokens of an example.
    pub fn seq_len(self, seq_len: usize) -> PreTraining {
        PreTraining { pairs: self.pairs.seq_len(seq_len), ..self }
    }

    /// Whether there is next-sentence prediction; without it, examples are single segments.
    pub fn next_sentence(self, next_sentence: bool) -> PreTraining {
        PreTraining { pairs: self.pairs.next_sentence(next_sentence), ..self }
    }

    /// Which tokens are masked, and how.
    pub fn masking(self, masking: Masking) -> PreTraining {
        PreTraining { masking, ..self }
    }

    /// The seed of all draws.
    pub fn seed(self, seed: u64) -> PreTraining {
        PreTraining { seed, ..self }
    }

    /// Tokens whose examples are shuffled together; 2^25 by default. A larger corpus is divided into blocks of a 32nd of it,
    /// which come in an order of the epoch. Examples of about so many tokens are in memory at a time.
    pub fn shuffle_buffer(self, tokens: usize) -> PreTraining {
        PreTraining { shuffle_buffer: tokens, ..self }
    }

    /// Uses these examples in every epoch, in an order of its own, instead of sampling new ones.
    pub fn examples(self, examples: Vec<PairExample>) -> PreTraining {
        PreTraining { examples: Some(examples), ..self }
    }

    /// The same with examples so many times shorter, but no shorter than can be.
    pub(crate) fn shortened(self, times: usize) -> PreTraining {
        PreTraining { pairs: self.pairs.shortened(times), ..self }
    }

    /// A number that another corpus, or other settings, would not have.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut print = Fingerprint::new();
        self.corpus.ids().for_each(|id| print.add(&id.to_le_bytes()));
        let settings = format!("{:?} {:?} {} {:?}", self.pairs, self.masking, self.seed, self.examples);
        print.add(settings.as_bytes());
        print.finish()
    }

    /// The corpus.
    pub fn corpus(&self) -> &TokenizedCorpus {
        &self.corpus
    }

    /// The table of the vocabulary.
    pub fn vocabulary(&self) -> &VocabularyTable {
        &self.vocabulary
    }

    /// The examples of epoch `epoch`, in the order of training, all at once. For large corpora, see
    /// [`stream`](Self::stream).
    ///
    /// # Errors
    /// When a setting makes no sense, pairs are asked of a corpus of one document, or the
    /// [given examples](Self::examples) are of a larger corpus.
    pub fn epoch(&self, epoch: u32) -> Result<Vec<PairExample>> {
        self.stream(epoch, 0)?.collect()
    }

    /// The examples of epoch `epoch` one after the other, in the order of training, without the first `skip`. Memory does not
    /// grow with the corpus; passing over examples costs a small part of what training on them does.
    ///
    /// # Errors
    /// As [`epoch`](Self::epoch).
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

    /// The number of examples of epoch `epoch`. It is known for the course's pairs and for given examples; BERT's are drawn
    /// and counted, on all threads. Epochs differ by a little.
    ///
    /// # Errors
    /// As [`epoch`](Self::epoch).
    pub fn example_count(&self, epoch: u32) -> Result<usize> {
        Ok(self.stream(epoch, 0)?.remaining())
    }

    /// The examples to evaluate on: the same at every call, in the order of the sampler.
    ///
    /// # Errors
    /// As [`epoch`](Self::epoch).
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
    /// When a setting of the masking makes no sense, or the example was drawn from a larger corpus.
    pub fn example(&self, pair: &PairExample, step: u32, sequence: u32) -> Result<MaskedExample> {
        pair.check(&self.corpus)?;
        let mut ids = pair.ids(&self.corpus, &self.vocabulary);
        let mut stream = Stream::new(self.seed, Purpose::Masking, 0, step, sequence);
        let targets = self.masking.mask(&mut ids, &self.vocabulary, &mut stream)?;
        Ok(MaskedExample { ids, token_types: pair.token_types(), targets, next_sentence_label: pair.label() })
    }

    /// Masks and packs examples of optimizer step `step`, of which the first is sequence `first_sequence`:
    /// not 0 where a step is made of several batches.
    ///
    /// # Errors
    /// As [`example`](Self::example) and [`PackedExamples::pack`].
    pub fn batch(&self, pairs: &[PairExample], step: u32, first_sequence: u32) -> Result<PackedExamples> {
        let mask = |(pair, sequence)| self.example(pair, step, sequence);
        let numbers = (0..pairs.len() as u32).map(|number| first_sequence.wrapping_add(number));
        let examples: Vec<MaskedExample> = pairs.iter().zip(numbers).map(mask).collect::<Result<_>>()?;
        PackedExamples::pack(&examples, first_sequence)
    }

    /// The batches of an epoch's examples, `batch_size` sequences each and an optimizer step each, from step
    /// `first_step` on. The last batch has what is left.
    ///
    /// # Errors
    /// When `batch_size` is 0; each batch may fail as [`batch`](Self::batch).
    pub fn batches<'a>(
        &'a self,
        pairs: &'a [PairExample],
        batch_size: usize,
        first_step: u32,
    ) -> Result<impl ExactSizeIterator<Item = Result<PackedExamples>> + 'a> {
        check_batch_size(batch_size)?;
        let batch = move |(number, pairs)| self.batch(pairs, first_step.wrapping_add(number as u32), 0);
        Ok(pairs.chunks(batch_size).enumerate().map(batch))
    }

    /// The batches of an evaluation. A target depends on the number of its example alone: not on the batch
    /// size, nor on when the evaluation takes place.
    ///
    /// # Errors
    /// As [`batches`](Self::batches).
    pub fn evaluation_batches<'a>(
        &'a self,
        pairs: &'a [PairExample],
        batch_size: usize,
    ) -> Result<impl ExactSizeIterator<Item = Result<PackedExamples>> + 'a> {
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
        assert_eq!(packed.sequence_numbers, [10, 11, 12, 13, 14]);
        assert_eq!((packed.sequence_count(), packed.cu_seqlens.len()), (5, 6));
        assert_eq!(packed.token_count(), packed.cu_seqlens[5] as usize);

        let mut targets = 0;
        for (number, example) in examples.iter().enumerate() {
            let (start, end) = (packed.cu_seqlens[number], packed.cu_seqlens[number + 1]);
            let rows = start as usize..end as usize;
            assert_eq!(packed.ids[rows.clone()], example.ids);
            assert_eq!(packed.token_types[rows.clone()], example.token_types);
            assert!(packed.positions[rows].iter().copied().eq(0..end - start));
            assert_eq!(Some(packed.next_sentence_labels[number] as u32), example.next_sentence_label);
            assert!(!example.targets.is_empty());
            let original = pairs[number].ids(data.corpus(), data.vocabulary());
            for target in &example.targets {
                let row = packed.target_rows[targets];
                assert_eq!(row, start + target.position);
                assert_eq!(packed.target_ids[targets], original[target.position as usize] as i64);
                assert_eq!(packed.target_kinds[targets], target.kind);
                if target.kind == TargetKind::Masked {
                    assert_eq!(packed.ids[row as usize], 4);
                }
                targets += 1;
            }
        }
        assert_eq!(
            (packed.target_rows.len(), packed.target_ids.len(), packed.target_kinds.len()),
            (targets, targets, targets)
        );
    }

    #[test]
    fn batches_cover_the_epoch_and_advance_the_step() {
        let data = data();
        let pairs = data.epoch(2).unwrap();
        assert_ne!(pairs.len() % 4, 0, "the test wants a partial batch");
        let batches: Vec<PackedExamples> = data.batches(&pairs, 4, 100).unwrap().map(|batch| batch.unwrap()).collect();
        assert_eq!(batches.len(), pairs.len().div_ceil(4));
        assert_eq!(batches.last().unwrap().sequence_count(), pairs.len() % 4);
        for (number, batch) in batches.iter().enumerate() {
            let pairs = &pairs[number * 4..pairs.len().min(number * 4 + 4)];
            assert_eq!(*batch, data.batch(pairs, 100 + number as u32, 0).unwrap());
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
        assert_eq!(whole.ids, [first.ids, second.ids].concat());
        assert_eq!(whole.target_ids, [first.target_ids, second.target_ids].concat());
        assert_eq!(whole.sequence_numbers, [first.sequence_numbers, second.sequence_numbers].concat());
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
            batches.flat_map(|batch| batch.unwrap().ids).collect::<Vec<u32>>()
        };
        assert_eq!(flat(1), flat(7));
    }

    #[test]
    fn without_next_sentence_there_are_no_labels() {
        let data = PreTraining::from_tokenized(numbered(&[40]), VocabularyTable::small(5_000)).next_sentence(false);
        let pairs = data.epoch(0).unwrap();
        let packed = data.batch(&pairs, 0, 0).unwrap();
        assert!(packed.next_sentence_labels.is_empty() && packed.token_types.iter().all(|&kind| kind == 0));

        let labelled = MaskedExample { next_sentence_label: Some(0), ..data.example(&pairs[0], 0, 0).unwrap() };
        let mixed = [labelled, data.example(&pairs[0], 0, 1).unwrap()];
        assert!(PackedExamples::pack(&mixed, 0).unwrap_err().to_string().contains("1 of 2"));
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
        assert!(data.clone().masking(Masking::bert().probability(2.0)).epoch(0).is_err());
        assert!(data.clone().seq_len(3).epoch(0).is_err());
        let other = PreTraining::from_tokenized(data.corpus().clone(), VocabularyTable::small(2_000));
        assert!(other.epoch(0).unwrap_err().to_string().starts_with("token id is 3303"));
    }
}
