//! Texts and pairs of texts with a label.

use cloze_bert::{EncodeOptions, Tokenizer, Truncation};
use rayon::prelude::*;

use super::{EncodingReport, LabelledData, Sequence};
use crate::{Error, Result};

impl<L> LabelledData<L> {
    /// Encodes texts as `[CLS] text [SEP]`. A text of more than `max_length` tokens (special tokens included) is truncated;
    /// the report has the number of these texts.
    ///
    /// # Errors
    /// Returns an error if there is no text, the numbers of texts and labels differ, or `max_length` has no room for the
    /// special tokens.
    pub fn of_texts<S: AsRef<str> + Sync>(
        texts: &[S],
        labels: Vec<L>,
        tokenizer: &Tokenizer,
        max_length: usize,
    ) -> Result<(LabelledData<L>, EncodingReport)> {
        same_count("texts", texts.len(), "labels", labels.len())?;
        let texts: Vec<(&str, Option<&str>)> = texts.iter().map(|text| (text.as_ref(), None)).collect();
        let (sequences, report) = encode(&texts, tokenizer, max_length)?;
        Ok((LabelledData::new(sequences, labels)?, report))
    }

    /// Encodes pairs of texts as `[CLS] first [SEP] second [SEP]`. In a pair of more than `max_length` tokens (special
    /// tokens included), the longer text is truncated; the report has the number of these pairs.
    ///
    /// # Errors
    /// Returns an error if there is no pair, the numbers of texts and labels differ, or `max_length` has no room for the
    /// special tokens.
    pub fn of_pairs<S: AsRef<str> + Sync>(
        first: &[S],
        second: &[S],
        labels: Vec<L>,
        tokenizer: &Tokenizer,
        max_length: usize,
    ) -> Result<(LabelledData<L>, EncodingReport)> {
        same_count("first texts", first.len(), "second texts", second.len())?;
        same_count("pairs", first.len(), "labels", labels.len())?;
        let pairs = first.iter().zip(second).map(|(first, second)| (first.as_ref(), Some(second.as_ref())));
        let (sequences, report) = encode(&pairs.collect::<Vec<_>>(), tokenizer, max_length)?;
        Ok((LabelledData::new(sequences, labels)?, report))
    }

    /// Encodes each sentence of a pair separately as `[CLS] sentence [SEP]`, so that an example has two sequences. This is
    /// the input of a [`SentenceEncoder`](cloze_bert::SentenceEncoder). The label is the similarity of the sentences in
    /// [-1, 1] (`f32`), or `()` if every pair belongs together. A sentence of more than `max_length` tokens (special tokens
    /// included) is truncated; the report has the number of these sentences.
    ///
    /// # Errors
    /// Returns the errors of [`of_pairs`](Self::of_pairs).
    pub fn of_sentences<S: AsRef<str> + Sync>(
        first: &[S],
        second: &[S],
        labels: Vec<L>,
        tokenizer: &Tokenizer,
        max_length: usize,
    ) -> Result<(LabelledData<L>, EncodingReport)> {
        same_count("first texts", first.len(), "second texts", second.len())?;
        same_count("pairs", first.len(), "labels", labels.len())?;
        let texts =
            first.iter().zip(second).flat_map(|(first, second)| [(first.as_ref(), None), (second.as_ref(), None)]);
        let (sequences, report) = encode(&texts.collect::<Vec<_>>(), tokenizer, max_length)?;
        Ok((LabelledData::new(sequences, labels)?, EncodingReport { examples: first.len(), ..report }))
    }
}

fn same_count(what: &'static str, count: usize, others: &str, other: usize) -> Result<()> {
    match count == other {
        true => Ok(()),
        false => Err(Error::data(what, format!("there are {count}, but {other} {others}"))),
    }
}

/// Encodes texts and pairs of texts, in order.
pub(super) fn encode(
    texts: &[(&str, Option<&str>)],
    tokenizer: &Tokenizer,
    max_length: usize,
) -> Result<(Vec<Sequence>, EncodingReport)> {
    let options = EncodeOptions::new().max_length(max_length).truncation(Truncation::LongestFirst);
    let encoded = texts.par_iter().map(|&(first, second)| {
        let encoding = tokenizer.encode_with(first, second, &options)?;
        let cut = encoding.truncated;
        Ok((encoding.into(), cut))
    });
    let encoded: Vec<(Sequence, usize)> = encoded.collect::<Result<_>>()?;
    let (sequences, cut): (Vec<_>, Vec<_>) = encoded.into_iter().unzip();
    let report = EncodingReport { examples: texts.len(), max_length, ..EncodingReport::default() };
    Ok((sequences, report.with_cut(cut)))
}

#[cfg(test)]
mod tests {
    use cloze_bert::TrainOptions;

    use super::*;

    fn tokenizer() -> Tokenizer {
        Tokenizer::train(["the cat sat on the mat", "a dog ran"], 100, &TrainOptions::new()).unwrap()
    }

    #[test]
    fn texts_and_pairs_equal_the_tokenizers() {
        let (tokenizer, texts) = (tokenizer(), ["the cat", "", "a dog sat on the mat"]);
        let (data, report) = LabelledData::of_texts(&texts, vec![0.5f32, 1.0, 2.0], &tokenizer, 6).unwrap();
        let ids = |text: &str| tokenizer.encode(text).unwrap().ids;
        let long = [&ids(texts[2])[..5], &[tokenizer.sep_id()]].concat();
        let found: Vec<&[u32]> = data.sequences().iter().map(|sequence| sequence.ids.as_slice()).collect();
        assert_eq!(found, [ids(texts[0]), ids(""), long]);
        assert_eq!(data.labels(), [0.5, 1.0, 2.0]);
        let cut = ids(texts[2]).len() - 6;
        assert_eq!((report.examples, report.max_length, report.cut, report.cut_tokens), (3, 6, 1, cut));

        let second = ["dog", "the cat sat on the mat", "mat"];
        let (pairs, report) = LabelledData::of_pairs(&texts, &second, vec![0i64; 3], &tokenizer, 9).unwrap();
        let first: Sequence = tokenizer.encode_pair("the cat", "dog").unwrap().into();
        assert_eq!(pairs.sequences()[0], first);
        assert_eq!((pairs.sequences()[1].ids.len(), pairs.sequences()[2].ids.len()), (9, 9));
        assert_eq!(
            (report.cut, report.cut_tokens),
            (1, 1),
            "the second pair just fits, the third has one token too many: {report}"
        );
    }

    #[test]
    fn errors() {
        let tokenizer = tokenizer();
        let texts = |texts: &[&str], labels: usize, max_length: usize| {
            LabelledData::of_texts(texts, vec![0i64; labels], &tokenizer, max_length).unwrap_err().to_string()
        };
        assert_eq!(texts(&["a", "b"], 1, 9), "texts: there are 2, but 1 labels");
        assert_eq!(texts(&[], 0, 9), "examples: no example was given");
        assert!(texts(&["a"], 1, 1).contains("max_length is 1"));
        let uneven = LabelledData::of_pairs(&["a"], &[], vec![0i64], &tokenizer, 9).unwrap_err().to_string();
        assert_eq!(uneven, "first texts: there are 1, but 0 second texts");
    }
}
