//! Evaluation of models that find spans of words, such as named entities.

use cloze_bert::{BertForTokenClassification, Mode, PreTrainedModel, Tokenizer};
use cloze_tensor::{CrossEntropy, Reduction, no_grad};

use crate::labelled::{classes, encode_sentences, in_scheme_of};
use crate::metrics::{SpanMode, SpanScores, span_scores};
use crate::{Error, LabelledData, Result, TaggedSentence};

/// The predicted tag of a word that the model did not see.
const OUTSIDE: &str = "O";

/// Tags predicted by a model for the words of sentences, with the true tags.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct TokenClassificationEvaluation {
    /// Mean cross-entropy over the words that the model saw, in nats.
    pub loss: f64,
    /// The predicted tag of each word of each sentence, taken from the word's first token.
    pub predictions: Vec<Vec<String>>,
    /// The true tag of each word of each sentence.
    pub labels: Vec<Vec<String>>,
    /// Number of words that the model did not see, because their sentence was truncated before them or because they
    /// have no token. They count as predicted `O`, so that truncation cannot improve the scores.
    pub lost_words: usize,
}

impl TokenClassificationEvaluation {
    /// Evaluates `model` on `sentences`, `batch_size` at a time. Sentences are encoded like
    /// [`LabelledData::of_words`](LabelledData#method.of_words) does, with at most `max_length` tokens. If the model has
    /// tags of another scheme, such as BILOU for sentences in IOB2, its tags for the same spans are the true ones.
    ///
    /// # Errors
    /// Returns an error if no sentence has a word, a tag is not one of the model's labels and cannot be converted to
    /// them, `batch_size` is 0, or a sentence does not fit the model.
    pub fn run(
        model: &BertForTokenClassification,
        sentences: &[TaggedSentence],
        tokenizer: &Tokenizer,
        max_length: usize,
        batch_size: usize,
    ) -> Result<TokenClassificationEvaluation> {
        let names = &model.config().labels;
        let sentences = &*in_scheme_of(names, sentences);
        let classes = classes(sentences, names)?;
        let (data, indices) = encode_with_word_positions(sentences, tokenizer, max_length)?;
        let sum = CrossEntropy { reduction: Reduction::Sum, ..CrossEntropy::default() };
        let outside = |sentence: &TaggedSentence| vec![OUTSIDE.to_string(); sentence.words.len()];
        let mut evaluation = TokenClassificationEvaluation {
            predictions: sentences.iter().map(outside).collect(),
            labels: sentences.iter().map(|sentence| sentence.tags.clone()).collect(),
            lost_words: sentences.iter().map(|sentence| sentence.words.len()).sum(),
            ..TokenClassificationEvaluation::default()
        };
        let mut sentence_of = indices.into_iter();
        let mut predicted = 0usize;
        for batch in data.batches(batch_size)? {
            let batch = batch?;
            let in_batch: Vec<usize> = sentence_of.by_ref().take(batch.labels.len()).collect();
            let logits = no_grad(|| model.forward(&batch.batch, Mode::Eval))?; // [T, C]
            let words = word_of_each_token(&in_batch, &batch.labels);
            let class = |word: &Option<(usize, usize)>| word.map_or(sum.ignore_index, |(s, at)| classes[s][at]);
            let targets: Vec<i64> = words.iter().map(class).collect();
            evaluation.loss += no_grad(|| logits.cross_entropy_with(&targets, &sum))?.item()?;
            for (class, word) in logits.argmax()?.into_iter().zip(words) {
                if let Some((sentence, at)) = word {
                    evaluation.predictions[sentence][at].clone_from(&names[class]);
                    predicted += 1;
                }
            }
        }
        if predicted == 0 {
            return Err(Error::data("evaluation", "no word has a token"));
        }
        evaluation.lost_words -= predicted;
        evaluation.loss /= predicted as f64;
        Ok(evaluation)
    }

    /// Returns precision, recall and F1 of the spans formed by the tags.
    ///
    /// # Errors
    /// Returns an error if `mode` is strict and a tag does not belong to its scheme; see [`span_scores`].
    pub fn spans(&self, mode: SpanMode) -> Result<SpanScores> {
        span_scores(&self.predictions, &self.labels, mode)
    }

    /// Returns the fraction of words whose predicted tag is correct.
    pub fn accuracy(&self) -> f64 {
        let (mut right, mut all) = (0usize, 0usize);
        for (predicted, tags) in self.predictions.iter().zip(&self.labels) {
            right += predicted.iter().zip(tags).filter(|(predicted, tag)| predicted == tag).count();
            all += tags.len();
        }
        right as f64 / all as f64
    }
}

/// Encodes the sentences that have a word within `max_length` tokens, and returns their indices too. Labels are the
/// positions of words in their sentence rather than classes, so that predictions can be mapped back to words.
fn encode_with_word_positions(
    sentences: &[TaggedSentence],
    tokenizer: &Tokenizer,
    max_length: usize,
) -> Result<(LabelledData<Vec<i64>>, Vec<usize>)> {
    let positions = sentences.iter().map(|sentence| (0..).take(sentence.words.len()).collect());
    let encoded = encode_sentences(sentences, &positions.collect::<Vec<Vec<i64>>>(), tokenizer, max_length)?;
    let (mut sequences, mut labels, mut indices) = (Vec::new(), Vec::new(), Vec::new());
    for (index, sentence) in encoded.into_iter().enumerate().filter(|(_, sentence)| sentence.has_word()) {
        sequences.push(sentence.sequence);
        labels.push(sentence.labels);
        indices.push(index);
    }
    Ok((LabelledData::new(sequences, labels)?, indices))
}

/// Returns for each token of a batch the sentence and the position of its word, or `None` if it does not begin a word.
fn word_of_each_token(sentences: &[usize], positions: &[Vec<i64>]) -> Vec<Option<(usize, usize)>> {
    let words = |(&sentence, positions): (&usize, &Vec<i64>)| -> Vec<Option<(usize, usize)>> {
        positions.iter().map(|&at| Some((sentence, usize::try_from(at).ok()?))).collect()
    };
    sentences.iter().zip(positions).flat_map(words).collect()
}
