//! Questions with their answers in a context, as in SQuAD.

use std::sync::Arc;

use cloze_bert::{EncodeOptions, Encoding, Tokenizer, Truncation, Windows};
use rayon::prelude::*;

use super::{EncodingReport, LabelledData, Sequence};
use crate::{Error, Result};

/// A question about a context that may have the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuestionExample {
    /// The question.
    pub question: String,
    /// The context to answer from, which questions may share.
    pub context: Arc<str>,
    /// The answer, or `None` if the context has none.
    pub answer: Option<AnswerSpan>,
}

/// An answer: a piece of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerSpan {
    /// The text of the answer, exactly as in the context.
    pub text: String,
    /// The start of the answer in the context, in characters (Unicode scalar values, as in SQuAD, not bytes).
    pub start: usize,
}

/// The label of a question without an answer in its sequence: the `[CLS]` token.
const NO_ANSWER: (u32, u32) = (0, 0);

impl LabelledData<(u32, u32)> {
    /// Encodes questions as `[CLS] question [SEP] context [SEP]`. The label has the positions of the first and the last
    /// token of the answer.
    ///
    /// A context that does not fit into `max_length` tokens (special tokens included) is split into windows that share
    /// `stride` tokens with their neighbours; each window is an example. A window without the whole answer, and a
    /// question without an answer, point to `[CLS]`. BERT uses 384 and 128. The report has the number of questions in
    /// windows, and of answers that no window has whole.
    ///
    /// Source: J. Devlin, M.-W. Chang, K. Lee, K. Toutanova, "BERT", 2018, sections 4.2 and 4.3.
    ///
    /// # Errors
    /// Returns an error if there is no question, if an answer is not at its position in the context, or if a question is
    /// so long that a window has at most `stride` tokens of context. The error names the question.
    pub fn of_questions(
        questions: &[QuestionExample],
        tokenizer: &Tokenizer,
        max_length: usize,
        stride: usize,
    ) -> Result<(LabelledData<(u32, u32)>, EncodingReport)> {
        let options = EncodeOptions::new().max_length(max_length).truncation(Truncation::OnlySecond).stride(stride);
        let encode = |(number, question): (usize, &QuestionExample)| {
            let named = |why: String| Error::data("questions", format!("question {number}: {why}"));
            let span = question.answer.as_ref().map(|answer| answer_span(answer, &question.context)).transpose();
            let span = span.map_err(named)?;
            let encoded = tokenizer.windows(&question.question, Some(&question.context), &options);
            Ok(windows(encoded.map_err(|error| named(error.to_string()))?, span))
        };
        let encoded: Vec<QuestionWindows> = questions.par_iter().enumerate().map(encode).collect::<Result<_>>()?;

        let mut report = EncodingReport { examples: questions.len(), max_length, ..EncodingReport::default() };
        let (mut sequences, mut labels) = (Vec::new(), Vec::new());
        for windows in encoded {
            report.in_windows += usize::from(windows.sequences.len() > 1);
            report.lost_labels += usize::from(windows.lost);
            sequences.extend(windows.sequences);
            labels.extend(windows.labels);
        }
        Ok((LabelledData::new(sequences, labels)?, report))
    }
}

/// A question with the windows of its context.
struct QuestionWindows {
    sequences: Vec<Sequence>,
    labels: Vec<(u32, u32)>,
    /// Whether there is an answer but no window has it whole.
    lost: bool,
}

fn windows(encoded: Windows, span: Option<CharRange>) -> QuestionWindows {
    let (mut sequences, mut tokens) = (Vec::with_capacity(encoded.len()), Vec::with_capacity(encoded.len()));
    for window in encoded {
        tokens.push(span.map_or_else(Vec::new, |span| in_answer(&window, span)));
        sequences.push(Sequence::from(window));
    }
    let answers = answers(&tokens);
    QuestionWindows {
        lost: span.is_some() && answers.iter().all(Option::is_none),
        labels: answers.into_iter().map(|answer| answer.unwrap_or(NO_ANSWER)).collect(),
        sequences,
    }
}

/// A half-open range of characters of the context.
pub(crate) type CharRange = (usize, usize);

/// Returns the characters of an answer, or the reason why the answer is invalid.
pub(crate) fn answer_span(answer: &AnswerSpan, context: &str) -> std::result::Result<CharRange, String> {
    let AnswerSpan { text, start } = answer;
    let length = text.chars().count();
    let found: String = context.chars().skip(*start).take(length).collect();
    if found != *text {
        return Err(format!(
            "the answer {text:?} is not at character {start} of the context, which has {found:?} there"
        ));
    }
    if text.trim().is_empty() {
        return Err(format!("the answer {text:?} is blank: leave it out if the context has no answer"));
    }
    Ok((*start, start + length))
}

/// Returns the position and the characters of each token of a window that belongs to the answer.
fn in_answer(window: &Encoding, (start, end): CharRange) -> Vec<(u32, CharRange)> {
    let tokens = (0..).zip(&window.offsets).zip(&window.sequence_ids);
    let touches = |(from, to): CharRange| from < end && start < to;
    tokens
        .filter(|((_, span), sequence)| **sequence == Some(1) && touches(**span))
        .map(|((at, span), _)| (at, *span))
        .collect()
}

/// Returns the positions of the first and the last token of the answer in each window that has both, given the tokens of the
/// answer in each.
fn answers(tokens: &[Vec<(u32, CharRange)>]) -> Vec<Option<(u32, u32)>> {
    let whole = (
        tokens.iter().flatten().map(|(_, (from, _))| *from).min(),
        tokens.iter().flatten().map(|(_, (_, to))| *to).max(),
    );
    let answer = |tokens: &Vec<(u32, CharRange)>| {
        let ((first, (from, _)), (last, (_, to))) = (tokens.first()?, tokens.last()?);
        ((Some(*from), Some(*to)) == whole).then_some((*first, *last))
    };
    tokens.iter().map(answer).collect()
}

#[cfg(test)]
mod tests {
    use cloze_bert::TrainOptions;
    use proptest::prelude::*;

    use super::*;

    const CONTEXT: &str = "Olá, the São  Paulo cat ½ sat on 12 mats.";

    fn tokenizer() -> Tokenizer {
        Tokenizer::train([CONTEXT, "where who sat"], 80, &TrainOptions::new()).unwrap()
    }

    fn question(answer: Option<(&str, usize)>) -> QuestionExample {
        let answer = answer.map(|(text, start)| AnswerSpan { text: text.into(), start });
        QuestionExample { question: "who sat".into(), context: CONTEXT.into(), answer }
    }

    /// Returns the text of the tokens that a label points to, or `None` for `[CLS]`.
    fn answer_text(tokenizer: &Tokenizer, sequence: &Sequence, (first, last): (u32, u32)) -> Option<String> {
        let ids = &sequence.ids[first as usize..=last as usize];
        (first > 0).then(|| tokenizer.decode(ids, false).unwrap())
    }

    #[test]
    fn answers_are_found_by_their_characters() {
        let tokenizer = tokenizer();
        for (text, start, expected) in [
            ("cat", 20, "cat"),
            ("São  Paulo", 9, "sao paulo"),
            (" cat ", 19, "cat"),
            ("Olá", 0, "ola"),
            ("mats.", 36, "mats."),
            // Part of a word selects the whole token.
            ("at", 21, "cat"),
        ] {
            let given = question(Some((text, start)));
            let (data, report) = LabelledData::of_questions(&[given], &tokenizer, 64, 8).unwrap();
            assert_eq!(answer_text(&tokenizer, &data.sequences()[0], data.labels()[0]).as_deref(), Some(expected));
            assert_eq!((data.example_count(), report.in_windows, report.lost_labels), (1, 0, 0));
        }
        let (data, report) = LabelledData::of_questions(&[question(None)], &tokenizer, 64, 8).unwrap();
        assert_eq!((data.labels(), report.lost_labels), (&[NO_ANSWER][..], 0));
    }

    #[test]
    fn an_answer_without_a_token_is_lost() {
        let context = "cat \u{7} sat".into();
        let given =
            QuestionExample { context, answer: Some(AnswerSpan { text: "\u{7}".into(), start: 4 }), ..question(None) };
        let (data, report) = LabelledData::of_questions(&[given], &tokenizer(), 64, 8).unwrap();
        assert_eq!((data.labels(), report.lost_labels), (&[NO_ANSWER][..], 1));
    }

    #[test]
    fn windows_without_the_whole_answer_point_to_cls() {
        let tokenizer = tokenizer();
        let words: Vec<String> = (0..30).map(|n| if n == 14 { "cat".into() } else { "sat".to_string() }).collect();
        let context = words.join(" ");
        let answer = AnswerSpan { text: "cat sat".into(), start: 14 * 4 };
        let given = QuestionExample { context: context.as_str().into(), answer: Some(answer), ..question(None) };
        // Windows of 10 words that share 4: from words 0, 6, 12, 18 and 24.
        let (data, report) = LabelledData::of_questions(std::slice::from_ref(&given), &tokenizer, 15, 4).unwrap();
        let found: Vec<_> =
            data.sequences().iter().zip(data.labels()).map(|(s, l)| answer_text(&tokenizer, s, *l)).collect();
        // The second window has words 6 to 15.
        let both = Some("cat sat".to_string());
        assert_eq!(found, [None, both.clone(), both, None, None]);
        assert_eq!((report.examples, report.in_windows, report.lost_labels), (1, 1, 0));

        // The second window only has the first word, the third window has all of them.
        let longer =
            QuestionExample { answer: Some(AnswerSpan { text: "cat sat sat".into(), start: 14 * 4 }), ..given.clone() };
        let (data, _) = LabelledData::of_questions(&[longer], &tokenizer, 15, 4).unwrap();
        assert_eq!(
            data.labels().iter().map(|label| *label != NO_ANSWER).collect::<Vec<_>>(),
            [false, false, true, false, false]
        );
        let all = QuestionExample { answer: Some(AnswerSpan { text: context, start: 0 }), ..given };
        let (data, report) = LabelledData::of_questions(&[all], &tokenizer, 15, 4).unwrap();
        assert_eq!((data.labels(), report.lost_labels), (&[NO_ANSWER; 5][..], 1));
        assert!(report.to_string().contains("1 were split into windows; 1 label(s) were lost"), "{report}");
    }

    #[test]
    fn errors_name_the_question() {
        let tokenizer = tokenizer();
        let error = |wrong: QuestionExample, max_length: usize| {
            let questions = [question(None), wrong];
            LabelledData::of_questions(&questions, &tokenizer, max_length, 2).unwrap_err().to_string()
        };
        let misplaced = error(question(Some(("cat", 21))), 64);
        let why = "the answer \"cat\" is not at character 21 of the context, which has \"at \" there";
        assert_eq!(misplaced, format!("questions: question 1: {why}"));
        let beyond = error(question(Some(("cat", usize::MAX))), 64);
        assert!(beyond.ends_with("of the context, which has \"\" there"), "{beyond}");
        let blank = error(question(Some(("  ", 12))), 64);
        let why = "questions: question 1: the answer \"  \" is blank: leave it out if the context has no answer";
        assert_eq!(blank, why);
        let long = QuestionExample { question: "who sat ".repeat(20), ..question(None) };
        let long = error(long, 40);
        assert!(long.starts_with("questions: question 1: the text has ") && long.contains("40 fit"), "{long}");
        let stride = error(QuestionExample { question: "who sat ".repeat(9), ..question(None) }, 23);
        assert!(stride.starts_with("questions: question 1: ") && stride.contains("stride is 2"), "{stride}");
        let none: [QuestionExample; 0] = [];
        let none = LabelledData::of_questions(&none, &tokenizer, 64, 2).unwrap_err().to_string();
        assert_eq!(none, "examples: no example was given");
    }

    proptest! {
        /// Selects words of the context by their characters.
        #[test]
        fn any_span_of_words(
            words in prop::collection::vec("[a-eé½ñ]{1,3}[.,]?", 1..30),
            from in any::<prop::sample::Index>(),
            count in 1usize..4,
            max_length in 20usize..60,
        ) {
            let context = words.join(" ");
            let first = from.index(words.len());
            let last = (first + count).min(words.len());
            let text = words[first..last].join(" ");
            let start = words[..first].iter().map(|word| word.chars().count() + 1).sum();
            let answer = Some(AnswerSpan { text: text.clone(), start });
            let tokenizer = Tokenizer::train(["a b c d e n 1 2 ⁄ . , who sat"], 40, &TrainOptions::new()).unwrap();
            let question = QuestionExample { question: "who sat".into(), context: context.as_str().into(), answer };
            let (data, report) = LabelledData::of_questions(&[question], &tokenizer, max_length, 4).unwrap();

            let options = EncodeOptions::new().max_length(max_length).truncation(Truncation::OnlySecond).stride(4);
            let encoding = tokenizer.encode_with("who sat", Some(&context), &options).unwrap();
            let windows: Vec<&Encoding> = std::iter::once(&encoding).chain(&encoding.overflowing).collect();
            prop_assert_eq!(data.example_count(), windows.len());
            let mut answered = 0;
            for (window, &(first, last)) in windows.into_iter().zip(data.labels()) {
                if (first, last) == NO_ANSWER {
                    continue;
                }
                answered += 1;
                let (from, to) = (window.offsets[first as usize].0, window.offsets[last as usize].1);
                prop_assert_eq!(context.chars().skip(from).take(to - from).collect::<String>(), text.clone());
            }
            prop_assert_eq!(report.lost_labels, usize::from(answered == 0));
            if report.in_windows == 0 {
                prop_assert_eq!(answered, 1);
            }
        }
    }
}
