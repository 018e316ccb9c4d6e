//! Labelled data for every head: encoded sequences and their labels.

mod answers;
mod choices;
mod classes;
mod report;
mod retag;
mod tags;
mod texts;

use cloze_bert::{Batch, Encoding};
use cloze_tensor::random::{Purpose, Stream};
use cloze_tensor::{CrossEntropy, Sequences};

pub(crate) use answers::answer_span;
pub use answers::{AnswerSpan, QuestionExample};
pub use choices::ChoiceExample;
pub use classes::{ClassLabel, balanced_class_weights};
pub use report::EncodingReport;
pub(crate) use retag::in_scheme_of;
pub use tags::{TaggedSentence, tag_names};
pub(crate) use tags::{classes, encode_sentences};

use crate::trainer::{DataSet, Fingerprint, Size};
use crate::{Error, Result};

/// `Purpose::Shuffle` at this site orders the examples of an epoch.
const EPOCH_SITE: u32 = 0;

/// An encoded sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// 0 for each token of the first text, 1 for the second.
    pub token_types: Vec<u32>,
}

impl From<Encoding> for Sequence {
    fn from(encoding: Encoding) -> Sequence {
        Sequence { ids: encoding.ids, token_types: encoding.token_types }
    }
}

/// Examples with labels. An example has one sequence, or one per choice. The type of the labels depends on the head:
///
/// | label `L` | made by | head |
/// |---|---|---|
/// | `i64`: a class | [`of_texts`](Self::of_texts), [`of_pairs`](Self::of_pairs) | sequence classification, next sentence |
/// | `f32`: a number | the same | sequence classification with one label (regression) |
/// | `Vec<bool>`: the labels that apply | the same | sequence classification |
/// | `f32`: a similarity; `()`: a pair that belongs together | [`of_sentences`](Self::of_sentences) | sentence encoder |
/// | `Vec<i64>`: a class per token, -100 if ignored | [`of_words`](LabelledData::of_words) | token classification |
/// | `(u32, u32)`: first and last token of the answer | [`of_questions`](LabelledData::of_questions) | question answering |
/// | `i64`: the right choice | [`of_choices`](LabelledData::of_choices) | multiple choice |
///
/// ```
/// use cloze_bert::{Tokenizer, TrainOptions};
/// use cloze_train::{DataSet, LabelledData};
/// let texts = ["a good film", "a bad film", "so good"];
/// let tokenizer = Tokenizer::train(texts, 60, &TrainOptions::new())?;
/// let (data, report) = LabelledData::of_texts(&texts, vec![1i64, 0, 1], &tokenizer, 128)?;
/// println!("{report}");
/// let order = data.epoch(0)?.collect::<cloze_train::Result<Vec<_>>>()?;
/// let batch = data.batch(&order[..2], 0, &[0, 1])?;
/// assert_eq!((batch.batch.len(), batch.labels.len()), (2, 2));
/// # Ok::<(), cloze_train::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LabelledData<L> {
    /// The sequences of the first example, then of the second, and so on; the same number for each.
    sequences: Vec<Sequence>,
    labels: Vec<L>,
    seed: u64,
    loss: CrossEntropy,
}

/// A batch with its labels.
#[derive(Clone, Debug)]
pub struct LabelledBatch<L> {
    /// The B sequences.
    pub batch: Batch,
    /// One label per example: B, or B divided by the number of choices.
    pub labels: Vec<L>,
    /// The class weights and the label smoothing of the data; only labels that are classes have them.
    pub loss: CrossEntropy,
}

impl<L> LabelledBatch<L> {
    /// Returns the number of sequences per example.
    pub fn choices(&self) -> usize {
        self.batch.len() / self.labels.len().max(1)
    }
}

impl<L> LabelledData<L> {
    /// Makes a data set of sequences and labels. There is one label per sequence, or per group of sequences of equal size if
    /// an example has several choices.
    ///
    /// # Errors
    /// Returns an error if there is no label, the number of sequences is not a multiple of the number of labels, or a
    /// sequence is empty or has a different number of ids and token types.
    pub fn new(sequences: Vec<Sequence>, labels: Vec<L>) -> Result<LabelledData<L>> {
        let (count, labelled) = (sequences.len(), labels.len());
        if labelled == 0 {
            return Err(Error::data("examples", "no example was given"));
        }
        if count == 0 || !count.is_multiple_of(labelled) {
            return Err(Error::data("examples", format!("{count} sequences for {labelled} labels")));
        }
        let broken = |sequence: &Sequence| sequence.ids.is_empty() || sequence.ids.len() != sequence.token_types.len();
        if let Some(index) = sequences.iter().position(broken) {
            let (ids, types) = (sequences[index].ids.len(), sequences[index].token_types.len());
            return Err(Error::data("examples", format!("sequence {index} has {ids} ids and {types} token types")));
        }
        Ok(LabelledData { sequences, labels, seed: 0, loss: CrossEntropy::default() })
    }

    /// Sets the seed of the training order.
    pub fn seed(self, seed: u64) -> LabelledData<L> {
        LabelledData { seed, ..self }
    }

    /// Returns the number of examples, at least one.
    pub fn example_count(&self) -> usize {
        self.labels.len()
    }

    /// Returns the sequences of the first example, then of the second, and so on.
    pub fn sequences(&self) -> &[Sequence] {
        &self.sequences
    }

    /// Returns the sequences of an example, or an empty slice if it is out of range.
    fn sequences_of(&self, example: usize) -> &[Sequence] {
        let each = self.sequences.len() / self.example_count();
        let start = example.saturating_mul(each);
        self.sequences.get(start..start.saturating_add(each)).unwrap_or_default()
    }

    /// Returns the shuffled examples of an epoch.
    fn order(&self, epoch: u32) -> Vec<usize> {
        let mut examples: Vec<usize> = (0..self.example_count()).collect();
        Stream::new(self.seed, Purpose::Shuffle, EPOCH_SITE, epoch, 0).shuffle(&mut examples);
        examples
    }

    /// Returns the label of each example.
    pub fn labels(&self) -> &[L] {
        &self.labels
    }
}

impl<L: Clone> LabelledData<L> {
    /// Returns batches of all examples in their given order, to evaluate on.
    ///
    /// # Errors
    /// Returns an error if `batch_size` is 0. Each batch can fail like [`DataSet::batch`].
    pub fn batches(&self, batch_size: usize) -> Result<impl ExactSizeIterator<Item = Result<LabelledBatch<L>>> + '_> {
        if batch_size == 0 {
            return Err(Error::invalid("batch size", 0, "at least 1"));
        }
        let batch = move |number: usize| {
            let (start, end) = (number * batch_size, (number + 1).saturating_mul(batch_size).min(self.example_count()));
            let examples: Vec<usize> = (start..end).collect();
            let each = self.size(&start).sequences as u32;
            self.batch(&examples, 0, &(0..examples.len() as u32).map(|number| number * each).collect::<Vec<_>>())
        };
        Ok((0..self.example_count().div_ceil(batch_size)).map(batch))
    }
}

/// The examples are numbers.
impl<L: Clone> DataSet for LabelledData<L> {
    type Example = usize;
    type Batch = LabelledBatch<L>;

    fn epoch(&self, epoch: u32) -> Result<impl Iterator<Item = Result<usize>> + '_> {
        Ok(self.order(epoch).into_iter().map(Ok))
    }

    fn batch(&self, examples: &[usize], _step: u32, sequences: &[u32]) -> Result<LabelledBatch<L>> {
        let (mut ids, mut token_types, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        let (mut numbers, mut labels) = (Vec::new(), Vec::new());
        if sequences.len() != examples.len() {
            let limit = format!("that of the examples, {}", examples.len());
            return Err(Error::invalid("number of sequence numbers", sequences.len(), limit));
        }
        for (&example, &first) in examples.iter().zip(sequences) {
            let label = self.labels.get(example).ok_or_else(|| {
                let limit = format!("below the number of examples, {}", self.example_count());
                Error::invalid("example number", example, limit)
            })?;
            labels.push(label.clone());
            for (sequence, number) in self.sequences_of(example).iter().zip(0..) {
                ids.extend_from_slice(&sequence.ids);
                token_types.extend_from_slice(&sequence.token_types);
                numbers.push(first.wrapping_add(number));
                lengths.push(sequence.ids.len());
            }
        }
        let batch = Batch::packed(ids, token_types, Sequences::numbered(&lengths, &numbers)?)?;
        Ok(LabelledBatch { batch, labels, loss: self.loss.clone() })
    }

    fn size(&self, example: &usize) -> Size {
        let sequences = self.sequences_of(*example);
        Size { sequences: sequences.len(), tokens: sequences.iter().map(|sequence| sequence.ids.len()).sum() }
    }

    fn name(&self, example: &usize) -> Option<String> {
        Some(example.to_string())
    }

    /// Hashes the sequences, the seed and the loss. Labels are left out because they may have any type.
    fn fingerprint(&self) -> Option<u64> {
        let mut print = Fingerprint::new();
        print.add(&self.seed.to_le_bytes());
        if self.loss != CrossEntropy::default() {
            self.loss.class_weights.iter().flatten().for_each(|weight| print.add(&weight.to_le_bytes()));
            print.add(&self.loss.label_smoothing.to_le_bytes());
        }
        for sequence in &self.sequences {
            print.add(&(sequence.ids.len() as u64).to_le_bytes());
            sequence.ids.iter().chain(&sequence.token_types).for_each(|id| print.add(&id.to_le_bytes()));
        }
        Some(print.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Example n has n + 1 tokens of id n per choice, and label n.
    fn data(count: u32, choices: usize) -> LabelledData<u32> {
        let sequence = |n: u32| Sequence { ids: vec![n; n as usize + 1], token_types: vec![n % 2; n as usize + 1] };
        let sequences = (0..count).flat_map(|n| std::iter::repeat_n(sequence(n), choices)).collect();
        LabelledData::new(sequences, (0..count).collect()).unwrap()
    }

    #[test]
    fn epochs_are_orders_of_all_examples() {
        let data = data(50, 1).seed(3);
        let (first, second) = (data.order(0), data.order(1));
        assert_eq!(first, data.order(0));
        assert_ne!(first, second);
        assert_ne!(first, data.clone().seed(4).order(0));
        for mut order in [first, second] {
            assert!(!order.is_sorted());
            order.sort_unstable();
            assert!(order.into_iter().eq(0..50));
        }
    }

    #[test]
    fn a_batch_is_its_examples() {
        let batch = data(9, 1).batch(&[4, 0, 7], 5, &[10, 12, 13]).unwrap();
        assert_eq!(batch.labels, [4, 0, 7]);
        assert_eq!(batch.batch.ids(), [vec![4; 5], vec![0; 1], vec![7; 8]].concat());
        assert_eq!(batch.batch.token_types(), [vec![0; 6], vec![1; 8]].concat());
        assert_eq!(batch.batch.sequences().cu_seqlens(), [0, 5, 6, 14]);
        assert_eq!(batch.batch.sequences().numbers(), [10, 12, 13]);
        assert_eq!((batch.choices(), data(9, 1).size(&4)), (1, Size { sequences: 1, tokens: 5 }));
    }

    #[test]
    fn choices_stay_together() {
        let batch = data(5, 3).batch(&[2, 1], 0, &[6, 12]).unwrap();
        assert_eq!(batch.labels, [2, 1]);
        assert_eq!(batch.batch.ids(), [vec![2; 9], vec![1; 6]].concat());
        assert_eq!(batch.batch.sequences().cu_seqlens(), [0, 3, 6, 9, 11, 13, 15]);
        assert_eq!(batch.batch.sequences().numbers(), [6, 7, 8, 12, 13, 14]);
        assert_eq!(batch.choices(), 3);
    }

    #[test]
    fn batches_to_evaluate_on_are_in_order() {
        let data = data(7, 1);
        for (size, lengths) in [(3, vec![3, 3, 1]), (7, vec![7]), (usize::MAX, vec![7])] {
            let batches: Vec<Vec<u32>> = data.batches(size).unwrap().map(|batch| batch.unwrap().labels).collect();
            assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
            assert!(batches.concat().into_iter().eq(0..7));
        }
    }

    /// A run that is resumed with another loss is refused.
    #[test]
    fn the_loss_is_part_of_the_fingerprint() {
        let data = LabelledData::new(vec![Sequence { ids: vec![1], token_types: vec![0] }], vec![1i64]).unwrap();
        let weighted = |weight| data.clone().class_weights(vec![1.0, weight]);
        let all = [data.clone(), weighted(2.0), weighted(3.0), data.clone().label_smoothing(0.1)];
        let prints: std::collections::BTreeSet<_> = all.iter().map(|data| data.fingerprint()).collect();
        assert_eq!(prints.len(), all.len());
        assert_eq!(data.clone().label_smoothing(0.0).fingerprint(), data.fingerprint());
    }

    #[test]
    fn errors() {
        let one = Sequence { ids: vec![1], token_types: vec![0] };
        let error = |sequences: &[Sequence], labels: usize| {
            LabelledData::new(sequences.to_vec(), vec![0i64; labels]).unwrap_err().to_string()
        };
        assert_eq!(error(&[], 0), "examples: no example was given");
        assert_eq!(error(&[], 2), "examples: 0 sequences for 2 labels");
        assert_eq!(error(&[one.clone(), one.clone(), one.clone()], 2), "examples: 3 sequences for 2 labels");
        let broken = Sequence { ids: vec![1, 2], token_types: vec![0] };
        assert_eq!(error(&[one.clone(), broken], 2), "examples: sequence 1 has 2 ids and 1 token types");
        assert_eq!(error(&[Sequence::default()], 1), "examples: sequence 0 has 0 ids and 0 token types");
        let data = data(3, 1);
        let few = data.batch(&[0, 1], 0, &[0]).unwrap_err().to_string();
        assert_eq!(few, "number of sequence numbers is 1, must be that of the examples, 2");
        let outside = data.batch(&[0, 3], 0, &[0, 1]).unwrap_err().to_string();
        assert_eq!(outside, "example number is 3, must be below the number of examples, 3");
        assert_eq!(data.batches(0).err().unwrap().to_string(), "batch size is 0, must be at least 1");
    }
}
