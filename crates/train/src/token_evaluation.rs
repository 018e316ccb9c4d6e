//! How well a model finds spans of words: named entities.

use cloze_bert::{BertForTokenClassification, Mode, PreTrainedModel, Tokenizer};
use cloze_tensor::{CrossEntropy, Reduction, no_grad};

use crate::labelled::{classes, encode_sentences};
use crate::metrics::{SpanMode, SpanScores, span_scores};
use crate::{Error, LabelledData, Result, TaggedSentence};

/// What a word is where the model says nothing of it.
const OUTSIDE: &str = "O";

/// What a model says of the words of sentences, and what it should have said.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct TokenClassificationEvaluation {
    /// Mean cross-entropy of the words that have a prediction, in nats.
    pub loss: f64,
    /// The predicted tag of each word of each sentence: the one that the word's first piece has.
    pub predictions: Vec<Vec<String>>,
    /// The right ones.
    pub labels: Vec<Vec<String>>,
    /// Words without a prediction, because their sentence was cut before them or they have no token. They count as
    /// predicted `O`: what was cut off is not found, and no sentence is easier for being long.
    pub lost_words: usize,
}

impl TokenClassificationEvaluation {
    /// Evaluates `model` on sentences, whose tags must be among its labels, as
    /// [`LabelledData::of_words`](LabelledData#method.of_words) encodes them: of at most `max_length` tokens, `batch_size`
    /// at a time.
    ///
    /// # Errors
    /// When no sentence has a word, a tag is none of the model's labels, `batch_size` is 0, or a sentence does not fit the
    /// model.
    pub fn run(
        model: &BertForTokenClassification,
        sentences: &[TaggedSentence],
        tokenizer: &Tokenizer,
        max_length: usize,
        batch_size: usize,
    ) -> Result<TokenClassificationEvaluation> {
        let names = &model.config().labels;
        let classes = classes(sentences, names)?;
        // The labels are numbers of words, so that what is said of a token finds its word.
        let numbers: Vec<Vec<i64>> = classes.iter().map(|classes| (0..).take(classes.len()).collect()).collect();
        let encoded = encode_sentences(sentences, &numbers, tokenizer, max_length)?;
        let with_words: Vec<usize> = (0..encoded.len()).filter(|&number| encoded[number].has_word()).collect();
        let (sequences, words) = encoded
            .into_iter()
            .filter(|sentence| sentence.has_word())
            .map(|sentence| (sentence.sequence, sentence.labels))
            .unzip();
        let data = LabelledData::new(sequences, words)?;

        let sum = CrossEntropy { reduction: Reduction::Sum, ..CrossEntropy::default() };
        let outside = |sentence: &TaggedSentence| vec![OUTSIDE.to_string(); sentence.words.len()];
        let mut evaluation = TokenClassificationEvaluation {
            predictions: sentences.iter().map(outside).collect(),
            labels: sentences.iter().map(|sentence| sentence.tags.clone()).collect(),
            lost_words: sentences.iter().map(|sentence| sentence.words.len()).sum(),
            ..TokenClassificationEvaluation::default()
        };
        let mut sentence_of = with_words.into_iter();
        let mut said = 0usize;
        for batch in data.batches(batch_size)? {
            let batch = batch?;
            let numbers: Vec<usize> = sentence_of.by_ref().take(batch.labels.len()).collect();
            let logits = no_grad(|| model.forward(&batch.batch, Mode::Eval))?; // [T, C]
            // The sentence and the word of each token that is the first of a word.
            let words: Vec<Option<(usize, usize)>> = numbers
                .iter()
                .zip(&batch.labels)
                .flat_map(|(&number, words)| words.iter().map(move |&word| Some((number, usize::try_from(word).ok()?))))
                .collect();
            let class =
                |place: &Option<(usize, usize)>| place.map_or(sum.ignore_index, |(number, word)| classes[number][word]);
            let targets: Vec<i64> = words.iter().map(class).collect();
            evaluation.loss += no_grad(|| logits.cross_entropy_with(&targets, sum))?.item()?;
            for (class, place) in logits.argmax()?.into_iter().zip(words) {
                if let Some((number, word)) = place {
                    evaluation.predictions[number][word].clone_from(&names[class]);
                    said += 1;
                }
            }
        }
        if said == 0 {
            return Err(Error::data("evaluation", "no word has a token"));
        }
        evaluation.lost_words -= said;
        evaluation.loss /= said as f64;
        Ok(evaluation)
    }

    /// Precision, recall and F1 of the spans that the tags make.
    ///
    /// # Errors
    /// When `mode` is strict and a tag is none of its scheme; see [`span_scores`].
    pub fn spans(&self, mode: SpanMode) -> Result<SpanScores> {
        span_scores(&self.predictions, &self.labels, mode)
    }

    /// The part of the words whose tag is right.
    pub fn accuracy(&self) -> f64 {
        let (mut right, mut all) = (0usize, 0usize);
        for (predicted, tags) in self.predictions.iter().zip(&self.labels) {
            right += predicted.iter().zip(tags).filter(|(predicted, tag)| predicted == tag).count();
            all += tags.len();
        }
        right as f64 / all as f64
    }
}
