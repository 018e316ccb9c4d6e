//! Finding the answer to a question in a text.

use std::collections::HashMap;

use cloze_tensor::Precision;

use super::Pipeline;
use super::characters::Characters;
use super::long_text::LongText;
use super::output::{finite, softmax};
use super::runner::{Runner, Window};
use super::spans::{self, Span};
use crate::{
    BertForQuestionAnswering, EncodeOptions, Encoding, Error, Mode, PreTrainedModel, Result, Tokenizer, Truncation,
    Windows,
};

/// An answer, which is a part of the context.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The part of the context, empty if there is no answer.
    pub text: String,
    /// The start of the answer in the context, in characters.
    pub start: usize,
    /// The end of the answer in the context, in characters.
    pub end: usize,
    /// The positions of its first and last token in its window, where `[CLS]` is 0.
    pub tokens: (usize, usize),
    /// The sum of the logits of its first and last token.
    pub score: f64,
    /// Its probability among all possible answers, in [0, 1].
    pub probability: f64,
}

impl Answer {
    /// Returns whether this stands for "the context has no answer".
    pub fn is_none(&self) -> bool {
        self.tokens == (0, 0)
    }
}

/// A pipeline that answers questions from a context. A context that is longer than the model allows is read in
/// overlapping windows.
///
/// The answer is the span in any window, up to a maximum length, whose first and last token have the largest sum of
/// logits (J. Devlin et al., 2018, section 4.2).
pub struct QuestionAnswering {
    runner: Runner<BertForQuestionAnswering>,
    max_length: usize,
    stride: usize,
    longest: usize,
    no_answer: bool,
}

impl Pipeline for QuestionAnswering {
    type Model = BertForQuestionAnswering;

    fn new(model: BertForQuestionAnswering, tokenizer: Tokenizer) -> Result<QuestionAnswering> {
        let runner = Runner::new(model, tokenizer, LongText::Windows)?;
        Ok(QuestionAnswering { runner, max_length: 384, stride: 128, longest: 30, no_answer: false })
    }

    fn precision(mut self, precision: Precision) -> Self {
        self.runner.precision = precision;
        self
    }

    fn model(&self) -> &BertForQuestionAnswering {
        &self.runner.model
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.runner.tokenizer
    }
}

/// The number of questions whose windows share batches.
const QUESTIONS_AT_ONCE: usize = 64;

/// A window over a context, and the logits of its tokens.
struct Scored<'w> {
    encoding: &'w Encoding,
    starts: Vec<f32>,
    ends: Vec<f32>,
    /// Whether each token belongs to the context.
    allowed: Vec<bool>,
}

impl QuestionAnswering {
    /// Sets the length of a window in tokens, question and special tokens included: 384 by default, limited by the
    /// maximum length of the model.
    pub fn max_length(self, tokens: usize) -> QuestionAnswering {
        QuestionAnswering { max_length: tokens, ..self }
    }

    /// Sets the number of context tokens that consecutive windows share: 128 by default, at most half of those in a
    /// window.
    pub fn stride(self, tokens: usize) -> QuestionAnswering {
        QuestionAnswering { stride: tokens, ..self }
    }

    /// Sets the maximum number of tokens of an answer, 30 by default.
    pub fn max_answer_length(self, tokens: usize) -> QuestionAnswering {
        QuestionAnswering { longest: tokens, ..self }
    }

    /// Sets whether "no answer" is a possible answer, for models trained on SQuAD 2.0. It is scored by `[CLS]` in the
    /// window with the lowest such score.
    pub fn no_answer(self, allowed: bool) -> QuestionAnswering {
        QuestionAnswering { no_answer: allowed, ..self }
    }

    /// Returns the best answer.
    ///
    /// # Errors
    /// Returns an error if the question or the context is blank, the context has no tokens, or the question leaves no
    /// room for it.
    pub fn answer(&self, question: &str, context: &str) -> Result<Answer> {
        let none = || match self.longest {
            0 => Error::input("no answer is possible: max_answer_length is 0"),
            _ => no_tokens(),
        };
        self.top_k(question, context, 1)?.into_iter().next().ok_or_else(none)
    }

    /// Returns the `k` best answers, best first. An answer that two windows share is returned once.
    ///
    /// # Errors
    /// Returns an error like [`answer`](QuestionAnswering::answer).
    pub fn top_k(&self, question: &str, context: &str, k: usize) -> Result<Vec<Answer>> {
        let mut best = Best::new(context, k, self.longest);
        self.read(vec![self.windows(question, context)?], |_, window| best.add(window))?;
        Ok(best.answers(self.no_answer))
    }

    /// Returns the `k` best answers to each question, given with its context, like [`top_k`](QuestionAnswering::top_k),
    /// but with the windows of several questions in one batch.
    ///
    /// # Errors
    /// Returns an error like [`answer`](QuestionAnswering::answer), with the index of the question.
    pub fn top_k_of_each(
        &self,
        questions: &[(impl AsRef<str>, impl AsRef<str>)],
        k: usize,
    ) -> Result<Vec<Vec<Answer>>> {
        let mut answers = Vec::with_capacity(questions.len());
        for part in questions.chunks(QUESTIONS_AT_ONCE) {
            let before = answers.len();
            let mut windows = Vec::with_capacity(part.len());
            for (at, (question, context)) in part.iter().enumerate() {
                let named = |error| Error::input(format!("question {}: {error}", before + at));
                windows.push(self.windows(question.as_ref(), context.as_ref()).map_err(named)?);
            }
            let mut best: Vec<Best> =
                part.iter().map(|(_, context)| Best::new(context.as_ref(), k, self.longest)).collect();
            self.read(windows, |question, window| best[question].add(window))?;
            answers.extend(best.into_iter().map(|best| best.answers(self.no_answer)));
        }
        Ok(answers)
    }

    /// Returns the answer from the best first to the best last token, found independently of each other (see
    /// [`spans::independent`]), in the window where their sum is largest. Its probability is the product of theirs.
    ///
    /// # Errors
    /// Returns an error like [`answer`](QuestionAnswering::answer).
    pub fn independent(&self, question: &str, context: &str) -> Result<Answer> {
        let (mut best, characters): (Option<(f32, Answer)>, _) = (None, Characters::new(context));
        self.read(vec![self.windows(question, context)?], |_, window| {
            let Some(span) = spans::independent(&window.starts, &window.ends, &window.allowed) else { return };
            if best.as_ref().is_none_or(|(score, _)| span.score.total_cmp(score).is_ge()) {
                let probability = softmax(&window.starts)[span.start] * softmax(&window.ends)[span.end];
                best = Some((span.score, Answer { probability, ..window.answer(span, &characters) }));
            }
        })?;
        best.map(|(_, answer)| answer).ok_or_else(no_tokens)
    }

    /// Encodes the question with each window of the context, as the model reads them.
    ///
    /// # Errors
    /// Returns an error like [`answer`](QuestionAnswering::answer).
    pub fn encode(&self, question: &str, context: &str) -> Result<Vec<Encoding>> {
        Ok(self.windows(question, context)?.collect())
    }

    /// Returns the windows of a context that [`encode`](QuestionAnswering::encode) encodes.
    fn windows<'q>(&'q self, question: &'q str, context: &'q str) -> Result<Windows<'q>> {
        let options = EncodeOptions::new()
            .max_length(self.window_length())
            .truncation(Truncation::OnlySecond)
            .stride(self.stride.min(self.room(question, context)? / 2));
        self.runner.tokenizer.windows(question, Some(context), &options)
    }

    /// Checks questions, given with their contexts, without reading the contexts: answering them later returns no error
    /// about a text.
    ///
    /// # Errors
    /// Returns an error if a text is blank, or a question so long that no room is left for its context. The error has
    /// the index of the question.
    pub fn check(&self, questions: &[(impl AsRef<str>, impl AsRef<str>)]) -> Result<()> {
        questions.iter().enumerate().try_for_each(|(at, (question, context))| {
            match self.room(question.as_ref(), context.as_ref()) {
                Ok(_) => Ok(()),
                Err(error) => Err(Error::input(format!("question {at}: {error}"))),
            }
        })
    }

    /// Returns the number of tokens in a window, special tokens included.
    fn window_length(&self) -> usize {
        self.max_length.min(self.runner.tokenizer.max_length())
    }

    /// Returns the number of tokens of the context that fit in a window.
    fn room(&self, question: &str, context: &str) -> Result<usize> {
        for (what, text) in [("question", question), ("context", context)] {
            if text.trim().is_empty() {
                return Err(Error::input(format!("the {what} is blank")));
            }
        }
        let (tokenizer, max_length) = (&self.runner.tokenizer, self.window_length());
        let question_tokens = tokenizer.ids(question)?.len();
        max_length.checked_sub(question_tokens + 3).filter(|room| *room > 0).ok_or_else(|| {
            Error::input(format!(
                "the question has {question_tokens} tokens: with [CLS] and two [SEP] it leaves no room for the context \
                 in a window of {max_length}"
            ))
        })
    }

    /// Runs the model on the windows of several questions, and calls `each` with the number of a question and a window, in order.
    fn read(&self, questions: Vec<Windows>, mut each: impl FnMut(usize, Scored)) -> Result<()> {
        let windows = questions.into_iter().enumerate();
        let windows = windows.flat_map(|(at, windows)| windows.map(move |encoding| Window::whole(at, encoding)));
        self.runner.in_batches(windows, |model, batch, windows| {
            let logits = finite(&model.forward(batch, Mode::Eval)?)?; // [T, 2]
            let mut pairs = logits.chunks_exact(2);
            for Window { text, encoding, .. } in windows {
                let (starts, ends) = pairs.by_ref().take(encoding.len()).map(|pair| (pair[0], pair[1])).unzip();
                let allowed = encoding.sequence_ids.iter().map(|&sequence| sequence == Some(1)).collect();
                each(*text, Scored { encoding, starts, ends, allowed });
            }
            Ok(())
        })
    }

    /// Returns the configuration of the model.
    pub fn config(&self) -> &crate::BertConfig {
        self.runner.model.config()
    }
}

/// The best answers in the windows over a context.
struct Best<'c> {
    context: Characters<'c>,
    k: usize,
    longest: usize,
    /// By their characters, because windows may share answers.
    answers: HashMap<(usize, usize), Answer>,
    possible: LogSum,
    /// The lowest score of `[CLS]`.
    at_cls: Option<f32>,
}

impl<'c> Best<'c> {
    fn new(context: &'c str, k: usize, longest: usize) -> Best<'c> {
        let (answers, possible) = (HashMap::new(), LogSum::default());
        Best { context: Characters::new(context), k, longest, answers, possible, at_cls: None }
    }

    /// Takes the best answers of a window.
    fn add(&mut self, window: Scored) {
        let all = spans::all(&window.starts, &window.ends, &window.allowed, self.longest);
        all.for_each(|span| self.possible.add(span.score.into()));
        for span in spans::best(&window.starts, &window.ends, &window.allowed, self.longest, self.k) {
            let answer = window.answer(span, &self.context);
            let best = self.answers.entry((answer.start, answer.end)).or_insert_with(|| answer.clone());
            if answer.score > best.score {
                *best = answer;
            }
        }
        let at_cls = window.starts[0] + window.ends[0];
        if self.at_cls.is_none_or(|lowest| at_cls.total_cmp(&lowest).is_lt()) {
            self.at_cls = Some(at_cls);
        }
    }

    /// Returns the best answers, best first, among them "no answer" if that is possible.
    fn answers(self, no_answer: bool) -> Vec<Answer> {
        let Best { k, mut possible, .. } = self;
        let mut answers: Vec<Answer> = self.answers.into_values().collect();
        if let Some(score) = self.at_cls.filter(|_| no_answer) {
            let (text, score) = (String::new(), f64::from(score));
            possible.add(score);
            answers.push(Answer { text, start: 0, end: 0, tokens: (0, 0), score, probability: 0.0 });
        }
        answers.sort_by(|a, b| b.score.total_cmp(&a.score).then((a.start, a.end).cmp(&(b.start, b.end))));
        answers.truncate(k);
        answers.iter_mut().for_each(|answer| answer.probability = possible.part(answer.score));
        answers
    }
}

/// A sum of powers of e, stored relative to the largest so that it neither overflows nor vanishes.
struct LogSum {
    largest: f64,
    /// The sum of e to each exponent minus the largest.
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

    /// Returns the fraction of the sum that one power accounts for.
    fn part(&self, exponent: f64) -> f64 {
        (exponent - self.largest).exp() / self.sum
    }
}

fn no_tokens() -> Error {
    Error::input("the context has no tokens, so it has no answer")
}

impl Scored<'_> {
    fn answer(&self, span: Span, context: &Characters) -> Answer {
        let (start, end) = (self.encoding.offsets[span.start].0, self.encoding.offsets[span.end].1);
        let text = context.part(start, end).to_string();
        Answer { text, start, end, tokens: (span.start, span.end), score: span.score.into(), probability: 0.0 }
    }
}
