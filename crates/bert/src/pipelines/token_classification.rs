//! Labelling the words of a text, and finding entities: spans of words with the same label.

use std::collections::BTreeMap;

use cloze_tensor::Precision;

use super::Pipeline;
use super::characters::Characters;
use super::long_text::{LongText, Reported};
use super::output::{finite, largest, softmax};
use super::runner::Runner;
use crate::tags::{Tag, TagNotation, TagSpan};
use crate::{BertForTokenClassification, Encoding, Error, Mode, PreTrainedModel, Result, Tokenizer};

/// The way in which the probabilities of the pieces of a word are combined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aggregation {
    /// The probabilities of the first piece, the one that is labelled in training.
    #[default]
    First,
    /// The mean of the probabilities.
    Average,
    /// The probabilities of the piece with the most probable label.
    Max,
}

/// A word with its label.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledWord {
    /// The word. Punctuation marks are words.
    pub text: String,
    /// The start of the word in the text, in characters.
    pub start: usize,
    /// The end of the word in the text, in characters.
    pub end: usize,
    /// The most probable label.
    pub label: String,
    /// Its probability.
    pub score: f64,
}

/// Consecutive words that name one thing, such as a person or a place.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity {
    /// The kind of entity: the label without `B-`, `I-` or another letter for the position.
    pub label: String,
    /// The text from the first to the last word.
    pub text: String,
    /// The start of the entity in the text, in characters.
    pub start: usize,
    /// The end of the entity in the text, in characters.
    pub end: usize,
    /// The mean score of the words.
    pub score: f64,
}

/// A pipeline that labels the words of texts. A text that is longer than the model allows is read in overlapping
/// windows, unless [`long_texts`](TokenClassification::long_texts) says otherwise; each token of a word is labelled in
/// the window where it has the most context.
pub struct TokenClassification {
    runner: Runner<BertForTokenClassification>,
    aggregation: Aggregation,
}

impl Pipeline for TokenClassification {
    type Model = BertForTokenClassification;

    fn new(model: BertForTokenClassification, tokenizer: Tokenizer) -> Result<TokenClassification> {
        let runner = Runner::new(model, tokenizer, LongText::Windows)?;
        Ok(TokenClassification { runner, aggregation: Aggregation::default() })
    }

    fn precision(mut self, precision: Precision) -> Self {
        self.runner.precision = precision;
        self
    }

    fn model(&self) -> &BertForTokenClassification {
        &self.runner.model
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.runner.tokenizer
    }
}

/// A token of a word in the window where it has the most context.
struct Piece {
    /// The index of the word.
    word: u32,
    start: usize,
    end: usize,
    /// The distance to the nearer end of the window, in tokens.
    margin: usize,
    /// The probabilities, by label.
    probabilities: Vec<f64>,
}

/// The words of a text, as far as it has been read.
struct Words<'t> {
    text: Characters<'t>,
    /// The tokens of words that a further window may have, by their position in the text.
    pieces: BTreeMap<usize, Piece>,
    labelled: Vec<LabelledWord>,
}

impl<'t> Words<'t> {
    fn new(text: &'t str) -> Words<'t> {
        Words { text: Characters::new(text), pieces: BTreeMap::new(), labelled: Vec::new() }
    }

    /// Labels the words that no further window has, if the next one begins behind `before` tokens of the text. `None` stands
    /// for no further window.
    fn finish(&mut self, pipeline: &TokenClassification, before: Option<usize>) {
        // The position of a token counts `[CLS]`. The last word may have further tokens.
        let next = before.map(|before| before + 1);
        let read = |at: usize| next.is_none_or(|next| at < next);
        let open =
            next.and_then(|next| self.pieces.range(next.saturating_sub(1)..).next().map(|(_, piece)| piece.word));
        let end = self.pieces.iter().find(|(at, piece)| !read(**at) || Some(piece.word) == open).map(|(at, _)| *at);
        let later = end.map(|end| self.pieces.split_off(&end)).unwrap_or_default();
        let pieces: Vec<Piece> = std::mem::replace(&mut self.pieces, later).into_values().collect();
        let words = pieces.chunk_by(|a, b| a.word == b.word);
        self.labelled.extend(words.map(|word| pipeline.labelled(word, &self.text)));
    }
}

impl TokenClassification {
    /// Sets how the pieces of a word are combined, [`Aggregation::First`] by default.
    pub fn aggregation(self, aggregation: Aggregation) -> TokenClassification {
        TokenClassification { aggregation, ..self }
    }

    /// Sets what happens to texts that are too long, [`LongText::Windows`] by default. Words that are cut have no label.
    pub fn long_texts(mut self, long_texts: LongText) -> TokenClassification {
        self.runner.long_texts = long_texts;
        self
    }

    /// Returns the names of the labels, by id.
    pub fn labels(&self) -> &[String] {
        &self.runner.model.config().labels
    }

    /// Labels every word of each text.
    ///
    /// # Errors
    /// Returns an error if a text is blank, or too long and [refused](LongText::Refuse).
    pub fn words(&self, texts: &[&str]) -> Result<Reported<Vec<Vec<LabelledWord>>>> {
        if let Some(index) = texts.iter().position(|text| text.trim().is_empty()) {
            return Err(Error::input(format!("text {index} is blank: it has no words")));
        }
        let readings = self.runner.read_any(texts.iter().map(|text| ((*text).into(), None)), 0)?;
        let mut labelled: Vec<Words> = texts.iter().map(|text| Words::new(text)).collect();
        self.runner.in_batches(readings.windows(&self.runner.tokenizer), |model, batch, windows| {
            let logits = finite(&model.forward(batch, Mode::Eval)?)?; // [T, C]
            let mut rows = logits.chunks_exact(self.labels().len());
            for window in windows {
                let words = &mut labelled[window.text];
                words.finish(self, Some(window.start));
                let probabilities = rows.by_ref().take(window.encoding.len()).map(softmax).collect();
                gather(&window.encoding, window.start, probabilities, &mut words.pieces);
            }
            Ok(())
        })?;
        let all = |mut words: Words| {
            words.finish(self, None);
            words.labelled
        };
        Ok(Reported { value: labelled.into_iter().map(all).collect(), report: readings.report })
    }

    /// Finds the entities of each text: spans of consecutive words of one kind. Labels may follow any
    /// [scheme](crate::tags::TagScheme), in any [notation](TagNotation): a `B-` or `S-` starts a new span, as does an
    /// `I-` after another kind. Labels without a letter for the position form spans of equal labels.
    ///
    /// # Errors
    /// Returns an error like [`words`](TokenClassification::words).
    pub fn entities(&self, texts: &[&str]) -> Result<Reported<Vec<Vec<Entity>>>> {
        let notation = TagNotation::of(self.labels().iter().map(String::as_str));
        let of_text = |(words, text): (&Vec<LabelledWord>, &&str)| entities(words, notation, text);
        Ok(self.words(texts)?.map(|words| words.iter().zip(texts).map(of_text).collect()))
    }

    /// Labels the word of these pieces, of which there is at least one.
    fn labelled(&self, pieces: &[Piece], text: &Characters) -> LabelledWord {
        let probabilities = || pieces.iter().map(|piece| &piece.probabilities);
        let probabilities = match self.aggregation {
            Aggregation::First => pieces[0].probabilities.clone(),
            Aggregation::Max => {
                let best = probabilities().max_by(|a, b| a[largest(a)].total_cmp(&b[largest(b)]));
                best.cloned().unwrap_or_default()
            }
            Aggregation::Average => {
                let mean = |label: usize| probabilities().map(|piece| piece[label]).sum::<f64>() / pieces.len() as f64;
                (0..self.labels().len()).map(mean).collect()
            }
        };
        let (start, end, id) = (pieces[0].start, pieces[pieces.len() - 1].end, largest(&probabilities));
        LabelledWord {
            text: text.part(start, end).to_string(),
            start,
            end,
            label: self.labels()[id].clone(),
            score: probabilities[id],
        }
    }
}

/// Adds the pieces of a window, by their position in the text, of which `before` tokens are before the window. If two
/// windows have a piece, the one where it is farther from the ends of the window is kept.
fn gather(encoding: &Encoding, before: usize, probabilities: Vec<Vec<f64>>, pieces: &mut BTreeMap<usize, Piece>) {
    let last = encoding.len().saturating_sub(1);
    for (at, probabilities) in probabilities.into_iter().enumerate() {
        let Some(word) = encoding.word_ids[at] else { continue };
        let ((start, end), margin) = (encoding.offsets[at], at.min(last - at));
        if pieces.get(&(before + at)).is_none_or(|known| known.margin < margin) {
            pieces.insert(before + at, Piece { word, start, end, margin, probabilities });
        }
    }
}

/// Finds the spans of words whose labels, written in `notation`, belong together.
fn entities(words: &[LabelledWord], notation: TagNotation, text: &str) -> Vec<Entity> {
    let tags: Vec<Tag> = words.iter().map(|word| notation.parse(&word.label)).collect();
    let text = Characters::new(text);
    let entity = |TagSpan { start, end, kind }: TagSpan| {
        let words = &words[start..end];
        let score = words.iter().map(|word| word.score).sum::<f64>() / words.len() as f64;
        let (start, end) = (words[0].start, words[words.len() - 1].end);
        Entity { label: kind, text: text.part(start, end).to_string(), start, end, score }
    };
    TagSpan::of_tags(&tags).into_iter().map(entity).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(labels: &[&str]) -> Vec<(String, String)> {
        let text = ["Ana", "Luz", "mora", "em", "Rio", "Claro"];
        let whole = text.join(" ");
        let mut start = 0;
        let words: Vec<LabelledWord> = text
            .iter()
            .zip(labels)
            .map(|(word, label)| {
                let word = LabelledWord {
                    text: word.to_string(),
                    start,
                    end: start + word.len(),
                    label: label.to_string(),
                    score: 0.5,
                };
                start = word.end + 1;
                word
            })
            .collect();
        let notation = TagNotation::of(labels.iter().copied());
        entities(&words, notation, &whole).into_iter().map(|entity| (entity.label, entity.text)).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect()
    }

    #[test]
    fn spans_of_every_scheme() {
        let both = pairs(&[("PER", "Ana Luz"), ("LOC", "Rio Claro")]);
        assert_eq!(found(&["B-PER", "I-PER", "O", "O", "B-LOC", "I-LOC"]), both);
        assert_eq!(found(&["I-PER", "I-PER", "O", "O", "I-LOC", "I-LOC"]), both, "IOB1");
        assert_eq!(found(&["B-PER", "E-PER", "O", "O", "B-LOC", "E-LOC"]), both, "BIOES");
        assert_eq!(found(&["B-PER", "L-PER", "O", "O", "B-LOC", "L-LOC"]), both, "BILOU");
        assert_eq!(found(&["PER-B", "PER-I", "o", "o", "LOC-B", "LOC-I"]), both, "letters behind");
        assert_eq!(found(&["b_PER", "i_PER", "0", "0", "b_LOC", "i_LOC"]), both, "underscores");
        assert_eq!(found(&["PER", "PER", "O", "O", "LOC", "LOC"]), both, "without a scheme");
        let apart = pairs(&[("PER", "Ana"), ("PER", "Luz"), ("LOC", "Rio"), ("PER", "Claro")]);
        assert_eq!(found(&["B-PER", "B-PER", "O", "O", "B-LOC", "I-PER"]), apart);
        assert_eq!(found(&["S-PER", "S-PER", "O", "O", "S-LOC", "S-PER"]), apart);
        assert_eq!(found(&["U-PER", "U-PER", "O", "O", "U-LOC", "U-PER"]), apart);
        assert_eq!(found(&["O"; 6]), []);
    }
}
