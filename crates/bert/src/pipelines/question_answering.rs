//! Where in a text is the answer to a question?

use std::collections::HashMap;

use cloze_tensor::Precision;

use super::spans::{self, Span};
use super::{Asked, Characters, Pipeline, finite};
use crate::{
    BertForQuestionAnswering, EncodeOptions, Encoding, Error, Mode, PreTrainedModel, Result, Tokenizer, Truncation,
};

/// An answer: a part of the context.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The part of the context; empty where there is no answer.
    pub text: String,
    /// Where it starts in the context, in characters.
    pub start: usize,
    /// Where it ends, in characters.
    pub end: usize,
    /// Its first and last token within the window that it was found in, `[CLS]` being 0.
    pub tokens: (usize, usize),
    /// The sum of the logits of its first and its last token.
    pub score: f64,
    /// Its probability among all answers that were possible, in [0, 1].
    pub probability: f64,
}

impl Answer {
    /// Whether this says that the context has no answer.
    pub fn is_none(&self) -> bool {
        self.tokens == (0, 0)
    }
}

/// Answers questions from a context, which may be longer than the model takes: it is read in windows that overlap.
///
/// The answer is the span whose first and last token have the largest sum of logits, of at most a number of tokens,
/// in any window (J. Devlin et al., 2018, section 4.2).
pub struct QuestionAnswering {
    asked: Asked<BertForQuestionAnswering>,
    max_length: usize,
    stride: usize,
    longest: usize,
    no_answer: bool,
}

impl Pipeline for QuestionAnswering {
    type Model = BertForQuestionAnswering;

    fn new(model: BertForQuestionAnswering, tokenizer: Tokenizer) -> Result<QuestionAnswering> {
        let asked = Asked::new(model, tokenizer)?;
        Ok(QuestionAnswering { asked, max_length: 384, stride: 128, longest: 30, no_answer: false })
    }

    fn precision(mut self, precision: Precision) -> Self {
        self.asked.precision = precision;
        self
    }
}

/// So many questions are encoded at once, which bounds the memory that their windows take.
const QUESTIONS_AT_ONCE: usize = 64;

/// A window over a context, and its tokens' logits.
struct Window {
    encoding: Encoding,
    starts: Vec<f32>,
    ends: Vec<f32>,
    /// Tokens of the context.
    allowed: Vec<bool>,
}

impl QuestionAnswering {
    /// Tokens of a window, question and special tokens included: 384 by default, and never more than the model takes.
    pub fn max_length(self, tokens: usize) -> QuestionAnswering {
        QuestionAnswering { max_length: tokens, ..self }
    }

    /// Tokens of the context that neighbouring windows share: 128 by default, and at most half of what fits.
    pub fn stride(self, tokens: usize) -> QuestionAnswering {
        QuestionAnswering { stride: tokens, ..self }
    }

    /// The most tokens of an answer: 30 by default.
    pub fn max_answer_length(self, tokens: usize) -> QuestionAnswering {
        QuestionAnswering { longest: tokens, ..self }
    }

    /// Whether "there is no answer" may be the answer, for models of SQuAD 2.0: its score is that of `[CLS]`, in the
    /// window where it is least.
    pub fn no_answer(self, allowed: bool) -> QuestionAnswering {
        QuestionAnswering { no_answer: allowed, ..self }
    }

    /// The best answer.
    ///
    /// # Errors
    /// When question or context is blank, the context has no tokens, or the question leaves no room for it.
    pub fn answer(&self, question: &str, context: &str) -> Result<Answer> {
        let none = || match self.longest {
            0 => Error::input("no answer is possible: max_answer_length is 0"),
            _ => no_tokens(),
        };
        self.top_k(question, context, 1)?.into_iter().next().ok_or_else(none)
    }

    /// The `k` best answers, best first. One that two windows have counts once.
    ///
    /// # Errors
    /// As [`answer`](QuestionAnswering::answer).
    pub fn top_k(&self, question: &str, context: &str, k: usize) -> Result<Vec<Answer>> {
        Ok(self.best(&self.ask(question, context)?, context, k))
    }

    /// The `k` best answers to each of many questions, each with its context: as [`top_k`](QuestionAnswering::top_k), with
    /// the windows of several questions in one batch.
    ///
    /// # Errors
    /// As [`answer`](QuestionAnswering::answer); says which question, from 0.
    pub fn top_k_of_each(&self, questions: &[(&str, &str)], k: usize) -> Result<Vec<Vec<Answer>>> {
        let mut answers = Vec::with_capacity(questions.len());
        for asked in questions.chunks(QUESTIONS_AT_ONCE) {
            let before = answers.len();
            let encode = |(at, (question, context)): (usize, &(&str, &str))| {
                let named = |error| Error::input(format!("question {}: {error}", before + at));
                self.encode(question, context).map_err(named)
            };
            let windows = self.windows(asked.iter().enumerate().map(encode).collect::<Result<_>>()?)?;
            answers.extend(windows.iter().zip(asked).map(|(windows, (_, context))| self.best(windows, context, k)));
        }
        Ok(answers)
    }

    /// The best answers that windows over a context have.
    fn best(&self, windows: &[Window], context: &str, k: usize) -> Vec<Answer> {
        let mut answers: HashMap<(usize, usize), Answer> = HashMap::new();
        let mut possible = LogSum::default();
        let mut keep = |answer: Answer| {
            let best = answers.entry((answer.start, answer.end)).or_insert_with(|| answer.clone());
            if answer.score > best.score {
                *best = answer;
            }
        };
        let characters = Characters::new(context);
        // As many of each window, because what two windows have counts once.
        for window in windows {
            let all = spans::all(&window.starts, &window.ends, &window.allowed, self.longest);
            all.for_each(|span| possible.add(span.score.into()));
            let best = spans::best(&window.starts, &window.ends, &window.allowed, self.longest, k);
            best.into_iter().for_each(|span| keep(window.answer(span, &characters)));
        }
        let mut answers: Vec<Answer> = answers.into_values().collect();
        let at_cls = |window: &Window| window.starts[0] + window.ends[0];
        if self.no_answer
            && let Some(score) = windows.iter().map(at_cls).min_by(f32::total_cmp)
        {
            let (text, score) = (String::new(), f64::from(score));
            possible.add(score);
            answers.push(Answer { text, start: 0, end: 0, tokens: (0, 0), score, probability: 0.0 });
        }
        answers.sort_by(|a, b| b.score.total_cmp(&a.score).then((a.start, a.end).cmp(&(b.start, b.end))));
        answers.truncate(k);
        answers.iter_mut().for_each(|answer| answer.probability = possible.part(answer.score));
        answers
    }

    /// The answer from the best first token to the best last token, each found by itself (see
    /// [`spans::independent`]), of the window where their sum is largest. Its probability is the product of the two.
    ///
    /// # Errors
    /// As [`answer`](QuestionAnswering::answer).
    pub fn independent(&self, question: &str, context: &str) -> Result<Answer> {
        let windows = self.ask(question, context)?;
        let found = windows.iter().filter_map(|window| {
            let span = spans::independent(&window.starts, &window.ends, &window.allowed)?;
            Some((window, span))
        });
        let best = found.max_by(|(_, a), (_, b)| a.score.total_cmp(&b.score));
        let (window, span) = best.ok_or_else(no_tokens)?;
        let probability = super::softmax(&window.starts)[span.start] * super::softmax(&window.ends)[span.end];
        Ok(Answer { probability, ..window.answer(span, &Characters::new(context)) })
    }

    /// The question with each window of the context, as the model gets it.
    ///
    /// # Errors
    /// As [`answer`](QuestionAnswering::answer).
    pub fn encode(&self, question: &str, context: &str) -> Result<Vec<Encoding>> {
        for (what, text) in [("question", question), ("context", context)] {
            if text.trim().is_empty() {
                return Err(Error::input(format!("the {what} is blank")));
            }
        }
        let tokenizer = &self.asked.tokenizer;
        let max_length = self.max_length.min(tokenizer.max_length());
        let asked = tokenizer.ids(question)?.len();
        let Some(room) = max_length.checked_sub(asked + 3).filter(|room| *room > 0) else {
            let reason = format!(
                "the question has {asked} tokens: with [CLS] and two [SEP] it leaves no room for the context in a \
                 window of {max_length}"
            );
            return Err(Error::input(reason));
        };
        let options = EncodeOptions::new()
            .max_length(max_length)
            .truncation(Truncation::OnlySecond)
            .stride(self.stride.min(room / 2));
        let mut first = tokenizer.encode_with(question, Some(context), &options)?;
        let others = std::mem::take(&mut first.overflowing);
        Ok([vec![first], others].concat())
    }

    fn ask(&self, question: &str, context: &str) -> Result<Vec<Window>> {
        Ok(self.windows(vec![self.encode(question, context)?])?.pop().unwrap_or_default())
    }

    /// The logits of the windows of each of some questions.
    fn windows(&self, questions: Vec<Vec<Encoding>>) -> Result<Vec<Vec<Window>>> {
        let counts: Vec<usize> = questions.iter().map(Vec::len).collect();
        let encodings = questions.concat();
        let mut windows = Vec::with_capacity(encodings.len());
        self.asked.in_batches(&encodings, |model, batch, encodings| {
            let logits = finite(&model.forward(batch, Mode::Eval)?)?; // [T, 2]
            let mut pairs = logits.chunks_exact(2);
            for encoding in encodings {
                let (starts, ends) = pairs.by_ref().take(encoding.len()).map(|pair| (pair[0], pair[1])).unzip();
                let allowed = encoding.sequence_ids.iter().map(|&sequence| sequence == Some(1)).collect();
                windows.push(Window { encoding: encoding.clone(), starts, ends, allowed });
            }
            Ok(())
        })?;
        let mut windows = windows.into_iter();
        Ok(counts.into_iter().map(|count| windows.by_ref().take(count).collect()).collect())
    }

    /// The configuration of the model.
    pub fn config(&self) -> &crate::BertConfig {
        self.asked.model.config()
    }
}

/// The logarithm of a sum of powers of e, by their exponents: of as many as there are spans.
struct LogSum {
    largest: f64,
    /// Of e to the exponents less the largest.
    sum: f64,
}

impl Default for LogSum {
    fn default() -> LogSum {
        LogSum { largest: f64::NEG_INFINITY, sum: 0.0 }
    }
}

impl LogSum {
    fn add(&mut self, exponent: f64) {
        if exponent > self.largest {
            self.sum *= (self.largest - exponent).exp();
            self.largest = exponent;
        }
        self.sum += (exponent - self.largest).exp();
    }

    /// The part of the sum that a power is.
    fn part(&self, exponent: f64) -> f64 {
        (exponent - self.largest).exp() / self.sum
    }
}

fn no_tokens() -> Error {
    Error::input("the context has no tokens: nothing can be the answer")
}

impl Window {
    fn answer(&self, span: Span, context: &Characters) -> Answer {
        let (start, end) = (self.encoding.offsets[span.start].0, self.encoding.offsets[span.end].1);
        let text = context.part(start, end).to_string();
        Answer { text, start, end, tokens: (span.start, span.end), score: span.score.into(), probability: 0.0 }
    }
}
