//! Labelling the words of a text, and finding entities: spans of words with the same label.

use std::collections::BTreeMap;
use std::ops::Range;

use cloze_tensor::Precision;

use super::Pipeline;
use super::long_text::{LongText, LongTextReport, Reported};
use super::output::{finite, largest, softmax};
use super::runner::Runner;
use crate::characters::Characters;
use crate::tags::{SpanPosition, Tag, TagNotation};
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
    /// The same in bytes: `&text[word.bytes.clone()]` is the word.
    pub bytes: Range<usize>,
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
    /// The same in bytes: `&text[entity.bytes.clone()]` is the entity.
    pub bytes: Range<usize>,
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

/// A word that was labelled.
struct Labelled {
    start: usize,
    end: usize,
    /// The id of the most probable label.
    label: usize,
    score: f64,
}

/// The tokens of the words of a text that a further window may have, by their position in the text.
#[derive(Default)]
struct Open {
    pieces: BTreeMap<usize, Piece>,
}

impl Open {
    /// Returns the pieces of the words that no further window has, if the next one begins behind `before` tokens of the text.
    /// `None` stands for no further window.
    fn finish(&mut self, before: Option<usize>) -> Vec<Piece> {
        // The position of a token counts `[CLS]`. The last word may have further tokens.
        let next = before.map(|before| before + 1);
        let read = |at: usize| next.is_none_or(|next| at < next);
        let open =
            next.and_then(|next| self.pieces.range(next.saturating_sub(1)..).next().map(|(_, piece)| piece.word));
        let end = self.pieces.iter().find(|(at, piece)| !read(**at) || Some(piece.word) == open).map(|(at, _)| *at);
        let later = end.map(|end| self.pieces.split_off(&end)).unwrap_or_default();
        std::mem::replace(&mut self.pieces, later).into_values().collect()
    }
}

/// The entities of a text, as far as it has been read.
struct Entities<'l> {
    previous: Tag<'l>,
    found: Vec<Found<'l>>,
}

/// An entity, whose words may not have been read all.
struct Found<'l> {
    kind: &'l str,
    start: usize,
    end: usize,
    /// The sum of the scores of its words.
    score: f64,
    words: usize,
}

impl<'l> Entities<'l> {
    fn new() -> Entities<'l> {
        Entities { previous: Tag::OUTSIDE, found: Vec::new() }
    }

    /// Adds the next word.
    fn add(&mut self, tag: Tag<'l>, word: &Labelled) {
        if tag.begins_after(&self.previous) {
            self.found.push(Found { kind: tag.kind, start: word.start, end: word.end, score: word.score, words: 1 });
        } else if tag.position != SpanPosition::Outside
            && let Some(last) = self.found.last_mut()
        {
            (last.end, last.score, last.words) = (word.end, last.score + word.score, last.words + 1);
        }
        self.previous = tag;
    }

    fn of(self, text: &str) -> Vec<Entity> {
        let text = Characters::new(text);
        let entity = |Found { kind, start, end, score, words }: Found| Entity {
            label: kind.to_string(),
            text: text.part(start, end).to_string(),
            start,
            end,
            bytes: text.bytes(start, end),
            score: score / words as f64,
        };
        self.found.into_iter().map(entity).collect()
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
    pub fn words(&self, texts: &[impl AsRef<str>]) -> Result<Reported<Vec<Vec<LabelledWord>>>> {
        let characters: Vec<Characters> = texts.iter().map(|text| Characters::new(text.as_ref())).collect();
        let mut words: Vec<Vec<LabelledWord>> = vec![Vec::new(); texts.len()];
        let report = self.each_word(texts, |text, Labelled { start, end, label, score }| {
            let (bytes, label) = (characters[text].bytes(start, end), self.labels()[label].clone());
            let of_word = texts[text].as_ref()[bytes.clone()].to_string();
            words[text].push(LabelledWord { text: of_word, start, end, bytes, label, score });
        })?;
        Ok(Reported { value: words, report })
    }

    /// Calls `each` with the index of a text and the next of its words.
    fn each_word(&self, texts: &[impl AsRef<str>], mut each: impl FnMut(usize, Labelled)) -> Result<LongTextReport> {
        if let Some(index) = texts.iter().position(|text| text.as_ref().trim().is_empty()) {
            return Err(Error::input(format!("text {index} is blank: it has no words")));
        }
        let readings = self.runner.read_any(texts.iter().map(|text| (text.as_ref().into(), None)), 0)?;
        let mut open: Vec<Open> = texts.iter().map(|_| Open::default()).collect();
        let mut finish = |text: usize, pieces: Vec<Piece>| {
            pieces.chunk_by(|a, b| a.word == b.word).for_each(|word| each(text, self.labelled(word)));
        };
        self.runner.in_batches(readings.windows(&self.runner.tokenizer), |model, batch, windows| {
            let logits = finite(&model.forward(batch, Mode::Eval)?)?; // [T, C]
            let mut rows = logits.chunks_exact(self.labels().len());
            for window in windows {
                let open = &mut open[window.text];
                finish(window.text, open.finish(Some(window.start)));
                let probabilities = rows.by_ref().take(window.encoding.len()).map(softmax).collect();
                gather(&window.encoding, window.start, probabilities, &mut open.pieces);
            }
            Ok(())
        })?;
        open.into_iter().enumerate().for_each(|(text, mut open)| finish(text, open.finish(None)));
        Ok(readings.report)
    }

    /// Finds the entities of each text: spans of consecutive words of one kind. Labels may follow any
    /// [scheme](crate::tags::TagScheme), in any [notation](TagNotation): a `B-` or `S-` starts a new span, as does an
    /// `I-` after another kind. Labels without a letter for the position form spans of equal labels.
    ///
    /// # Errors
    /// Returns an error like [`words`](TokenClassification::words).
    pub fn entities(&self, texts: &[impl AsRef<str>]) -> Result<Reported<Vec<Vec<Entity>>>> {
        let notation = TagNotation::of(self.labels().iter().map(String::as_str));
        let tags: Vec<Tag> = self.labels().iter().map(|label| notation.parse(label)).collect();
        let mut entities: Vec<Entities> = texts.iter().map(|_| Entities::new()).collect();
        let report = self.each_word(texts, |text, word| entities[text].add(tags[word.label], &word))?;
        let entities = entities.into_iter().zip(texts).map(|(entities, text)| entities.of(text.as_ref())).collect();
        Ok(Reported { value: entities, report })
    }

    /// Labels the word of these pieces, of which there is at least one.
    fn labelled(&self, pieces: &[Piece]) -> Labelled {
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
        let label = largest(&probabilities);
        let (start, end, score) = (pieces[0].start, pieces[pieces.len() - 1].end, probabilities[label]);
        Labelled { start, end, label, score }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn found(labels: &[&str]) -> Vec<(String, String)> {
        let text = ["Ana", "Luz", "mora", "em", "Rio", "Claro"];
        let whole = text.join(" ");
        let notation = TagNotation::of(labels.iter().copied());
        let (mut start, mut entities) = (0, Entities::new());
        for (word, label) in text.iter().zip(labels) {
            let end = start + word.len();
            entities.add(notation.parse(label), &Labelled { start, end, label: 0, score: 0.5 });
            start = end + 1;
        }
        let found = entities.of(&whole);
        assert!(found.iter().all(|entity| entity.score == 0.5));
        found.into_iter().map(|entity| (entity.label, entity.text)).collect()
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
