//! Multiple-choice questions.

use cloze_bert::Tokenizer;

use super::{EncodingReport, LabelledData, texts};
use crate::{Error, Result};

/// A question, or the beginning of a story, with several choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChoiceExample {
    /// The text that all choices share.
    pub text: String,
    /// The choices.
    pub choices: Vec<String>,
    /// The number of the right choice, from 0.
    pub label: usize,
}

impl LabelledData<i64> {
    /// Encodes each choice of a question as `[CLS] text [SEP] choice [SEP]`. In a pair of more than `max_length` tokens
    /// (special tokens included), the longer text is truncated; the report has the number of these pairs.
    ///
    /// # Errors
    /// Returns an error if there is no question, the numbers of choices differ, a label is out of range, or `max_length`
    /// has no room for the special tokens.
    pub fn of_choices(
        questions: &[ChoiceExample],
        tokenizer: &Tokenizer,
        max_length: usize,
    ) -> Result<(LabelledData<i64>, EncodingReport)> {
        let each = questions.first().map_or(0, |question| question.choices.len());
        for (number, question) in questions.iter().enumerate() {
            let (count, label) = (question.choices.len(), question.label);
            if count != each {
                let why = format!("question {number} has {count} choices, question 0 has {each}");
                return Err(Error::data("choices", why));
            }
            if label >= count {
                let why = format!("question {number} has label {label} but only {count} choices");
                return Err(Error::data("choices", why));
            }
        }
        let pairs = questions
            .iter()
            .flat_map(|question| question.choices.iter().map(|choice| (question.text.as_str(), Some(choice.as_str()))));
        let (sequences, report) = texts::encode(&pairs.collect::<Vec<_>>(), tokenizer, max_length)?;
        let labels = questions.iter().map(|question| question.label as i64).collect();
        Ok((LabelledData::new(sequences, labels)?, EncodingReport { examples: questions.len(), ..report }))
    }
}

#[cfg(test)]
mod tests {
    use cloze_bert::TrainOptions;

    use super::*;

    fn question(choices: &[&str], label: usize) -> ChoiceExample {
        ChoiceExample {
            text: "the cat".into(),
            choices: choices.iter().map(|choice| choice.to_string()).collect(),
            label,
        }
    }

    #[test]
    fn a_pair_for_each_choice() {
        let tokenizer = Tokenizer::train(["the cat sat and ran"], 60, &TrainOptions::new()).unwrap();
        let questions = [question(&["sat", "ran"], 1), question(&["and", "the cat sat and ran"], 0)];
        let (data, report) = LabelledData::of_choices(&questions, &tokenizer, 8).unwrap();
        let pair = |choice: &str| tokenizer.encode_pair("the cat", choice).unwrap().into();
        assert_eq!(data.sequences()[..3], [pair("sat"), pair("ran"), pair("and")]);
        assert_eq!((data.example_count(), data.labels()), (2, &[1, 0][..]));
        assert_eq!((report.examples, report.cut), (2, 1));

        let error =
            |questions: &[ChoiceExample]| LabelledData::of_choices(questions, &tokenizer, 8).unwrap_err().to_string();
        assert_eq!(error(&[]), "examples: no example was given");
        let uneven = error(&[question(&["a"], 0), question(&["a", "b"], 0)]);
        assert_eq!(uneven, "choices: question 1 has 2 choices, question 0 has 1");
        let outside = error(&[question(&["a"], 1)]);
        assert_eq!(outside, "choices: question 0 has label 1 but only 1 choices");
    }
}
