//! A tag per word: named entities, parts of speech.

use std::collections::{BTreeSet, HashMap};

use cloze_bert::Tokenizer;
use rayon::prelude::*;

use super::{EncodingReport, LabelledData, Sequence};
use crate::{Error, Result};

/// A sentence as words with a tag each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaggedSentence {
    /// The words.
    pub words: Vec<String>,
    /// The tag of each word: `O`, `B-PER`.
    pub tags: Vec<String>,
}

/// Returns the tags of some sentences in alphabetical order: the names of the classes.
pub fn tag_names<'a>(sentences: impl IntoIterator<Item = &'a TaggedSentence>) -> Vec<String> {
    let names: BTreeSet<&String> = sentences.into_iter().flat_map(|sentence| &sentence.tags).collect();
    names.into_iter().cloned().collect()
}

impl LabelledData<Vec<i64>> {
    /// Encodes sentences as `[CLS] words [SEP]`. The first piece of each word is labelled with the index of its tag in
    /// `tag_names`; the other pieces and the special tokens have the ignored label, -100.
    ///
    /// A sentence of more than `max_length` tokens (special tokens included) is truncated, and a sentence without any
    /// labelled token is dropped. The report has the number of truncated sentences, of tokens cut, and of tags that were lost because
    /// their word was cut off or has no token.
    ///
    /// Source: J. Devlin, M.-W. Chang, K. Lee, K. Toutanova, "BERT", 2018, section 5.3.
    ///
    /// # Errors
    /// Returns an error if no sentence has a word, if a sentence has a different number of words and tags, if a tag is not
    /// in `tag_names`, or if `max_length` has no room for the special tokens.
    pub fn of_words(
        sentences: &[TaggedSentence],
        tag_names: &[String],
        tokenizer: &Tokenizer,
        max_length: usize,
    ) -> Result<(LabelledData<Vec<i64>>, EncodingReport)> {
        let classes = classes(sentences, tag_names)?;
        let encoded = encode_sentences(sentences, &classes, tokenizer, max_length)?;
        let report = EncodingReport {
            examples: sentences.len(),
            max_length,
            lost_labels: encoded.iter().map(|encoded| encoded.lost).sum(),
            ..EncodingReport::default()
        };
        let report = report.with_cut(encoded.iter().map(|encoded| encoded.cut));
        let with_words = encoded.into_iter().filter(Encoded::has_word);
        let (sequences, labels) = with_words.map(|encoded| (encoded.sequence, encoded.labels)).unzip();
        Ok((LabelledData::new(sequences, labels)?, report))
    }
}

/// The ignored label.
const IGNORED: i64 = -100;

/// An encoded sentence.
pub(crate) struct Encoded {
    pub(crate) sequence: Sequence,
    /// The label of each word at its first piece, -100 elsewhere.
    pub(crate) labels: Vec<i64>,
    /// The number of tokens that were cut.
    cut: usize,
    /// The number of words without a token.
    lost: usize,
}

impl Encoded {
    pub(crate) fn has_word(&self) -> bool {
        self.labels.iter().any(|&label| label != IGNORED)
    }
}

/// Returns the class of each tag of each sentence.
///
/// # Errors
/// Returns the errors of [`LabelledData::of_words`].
pub(crate) fn classes(sentences: &[TaggedSentence], tag_names: &[String]) -> Result<Vec<Vec<i64>>> {
    let classes: HashMap<&str, i64> = tag_names.iter().map(String::as_str).zip(0..).collect();
    sentences.iter().enumerate().map(|(number, sentence)| labels(number, sentence, &classes)).collect()
}

/// Encodes sentences and labels the first piece of each word.
///
/// # Errors
/// Returns an error if `max_length` has no room for the special tokens.
pub(crate) fn encode_sentences(
    sentences: &[TaggedSentence],
    labels: &[Vec<i64>],
    tokenizer: &Tokenizer,
    max_length: usize,
) -> Result<Vec<Encoded>> {
    if max_length < 2 {
        return Err(Error::invalid("max_length", max_length, "at least 2 for the special tokens"));
    }
    let encode =
        |(sentence, labels): (&TaggedSentence, &Vec<i64>)| encode(&sentence.words, labels, tokenizer, max_length);
    sentences.par_iter().zip(labels).map(encode).collect()
}

fn labels(number: usize, sentence: &TaggedSentence, classes: &HashMap<&str, i64>) -> Result<Vec<i64>> {
    let TaggedSentence { words, tags } = sentence;
    if words.len() != tags.len() {
        let why = format!("sentence {number} has {} words and {} tags", words.len(), tags.len());
        return Err(Error::data("tags", why));
    }
    let class = |(tag, word): (&String, &String)| {
        classes.get(tag.as_str()).copied().ok_or_else(|| {
            let mut known: Vec<&str> = classes.keys().copied().collect();
            known.sort_unstable();
            let known = known.join(", ");
            Error::data("tags", format!("sentence {number} has tag {tag:?} for {word:?}, known tags are {known}"))
        })
    };
    tags.iter().zip(words).map(class).collect()
}

fn encode(words: &[String], labels: &[i64], tokenizer: &Tokenizer, max_length: usize) -> Result<Encoded> {
    let (mut ids, mut of_ids) = (vec![tokenizer.cls_id()], vec![IGNORED]);
    let mut lost = 0;
    for (word, &label) in words.iter().zip(labels) {
        let before = ids.len();
        tokenizer.ids_into(word, &mut ids)?;
        of_ids.resize(ids.len(), IGNORED);
        match of_ids.get_mut(before) {
            Some(first) => *first = label,
            None => lost += 1,
        }
    }
    let room = max_length - 1;
    let cut = ids.len().saturating_sub(room);
    lost += of_ids.iter().skip(room).filter(|&&label| label != IGNORED).count();
    ids.truncate(room);
    of_ids.truncate(room);
    ids.push(tokenizer.sep_id());
    of_ids.push(IGNORED);
    let token_types = vec![0; ids.len()];
    Ok(Encoded { sequence: Sequence { ids, token_types }, labels: of_ids, cut, lost })
}

#[cfg(test)]
mod tests {
    use cloze_bert::TrainOptions;

    use super::*;

    fn sentence(words: &[(&str, &str)]) -> TaggedSentence {
        let (words, tags) = words.iter().map(|(word, tag)| (word.to_string(), tag.to_string())).unzip();
        TaggedSentence { words, tags }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    fn tokens(tokenizer: &Tokenizer, sequence: &Sequence) -> Vec<String> {
        sequence.ids.iter().map(|&id| tokenizer.token(id).unwrap().to_string()).collect()
    }

    #[test]
    fn first_pieces_have_the_tag() {
        let tokenizer = Tokenizer::train(["anna sat in rio", "it is", "' n t"], 60, &TrainOptions::new()).unwrap();
        let given = [
            sentence(&[("Anna", "PER"), ("isn't", "O"), ("\u{7}", "O"), ("in", "O"), ("Rio", "LOC")]),
            sentence(&[("\u{7}", "O")]),
            sentence(&[]),
        ];
        let tags = tag_names(&given);
        assert_eq!(tags, ["LOC", "O", "PER"]);
        let (data, report) = LabelledData::of_words(&given, &tags, &tokenizer, 20).unwrap();
        assert_eq!(data.example_count(), 1);
        assert_eq!(tokens(&tokenizer, &data.sequences()[0]), tokenizer.encode("anna isn't in rio").unwrap().tokens);
        // "isn't" is `is ##n ' t`.
        assert_eq!(data.labels(), [[-100, 2, 1, -100, -100, -100, 1, 0, -100]]);
        assert_eq!((report.examples, report.cut, report.lost_labels), (3, 0, 2));

        let (data, report) = LabelledData::of_words(&given, &tags, &tokenizer, 6).unwrap();
        assert_eq!(data.labels(), [[-100, 2, 1, -100, -100, -100]]);
        assert_eq!(data.sequences()[0].ids[5], tokenizer.sep_id());
        assert_eq!((report.cut, report.cut_tokens, report.lost_labels), (1, 3, 4));
    }

    #[test]
    fn errors() {
        let tokenizer = Tokenizer::train(["a b"], 30, &TrainOptions::new()).unwrap();
        let error = |given: &[TaggedSentence], max_length: usize| {
            LabelledData::of_words(given, &names(&["O", "B"]), &tokenizer, max_length).unwrap_err().to_string()
        };
        let good = sentence(&[("a", "O")]);
        let unknown = error(&[good.clone(), sentence(&[("b", "I")])], 9);
        assert_eq!(unknown, "tags: sentence 1 has tag \"I\" for \"b\", known tags are B, O");
        let uneven = TaggedSentence { words: names(&["a", "b"]), tags: names(&["O"]) };
        assert_eq!(error(&[uneven], 9), "tags: sentence 0 has 2 words and 1 tags");
        assert_eq!(error(&[sentence(&[])], 9), "examples: no example was given");
        assert_eq!(error(&[good], 1), "max_length is 1, must be at least 2 for the special tokens");
    }
}
