//! Finding the answer to a question in a text.

use std::ops::Range;

use cloze_tensor::Precision;

use super::Pipeline;
use super::answers::{Best, Scored};
use super::long_text::LongText;
use super::output::{finite, softmax};
use super::runner::{Runner, Window};
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
    /// The same in bytes: `&context[answer.bytes.clone()]` is the answer.
    pub bytes: Range<usize>,
    /// The positions of its first and last token in its window, where `[CLS]` is 0.
    pub tokens: (usize, usize),
    /// The largest sum of the logits of a first and a last token, of those in its first and in its last word.
    pub score: f64,
    /// Its probability among all possible answers, in [0, 1]: that of all spans from its first to its last word.
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
/// logits (J. Devlin et al., 2018, section 4.2), completed to [whole words](QuestionAnswering::align_to_words).
///
/// ```no_run
/// use cloze_bert::{Pipeline, QuestionAnswering};
/// let context = "Pedro Álvares Cabral discovered Brazil in 1500.";
/// let answer = QuestionAnswering::open("models/squad")?.answer("Who discovered Brazil?", context)?;
/// assert_eq!(&context[answer.bytes.clone()], answer.text);
/// # Ok::<(), cloze_bert::Error>(())
/// ```
pub struct QuestionAnswering {
    runner: Runner<BertForQuestionAnswering>,
    max_length: usize,
    stride: usize,
    longest: usize,
    by_words: bool,
    no_answer: bool,
}

impl Pipeline for QuestionAnswering {
    type Model = BertForQuestionAnswering;

    fn new(model: BertForQuestionAnswering, tokenizer: Tokenizer) -> Result<QuestionAnswering> {
        let runner = Runner::new(model, tokenizer, LongText::Windows)?;
        Ok(QuestionAnswering { runner, max_length: 384, stride: 128, longest: 30, by_words: true, no_answer: false })
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

    /// Sets the maximum number of tokens of an answer, 30 by default, before it is completed to whole words.
    pub fn max_answer_length(self, tokens: usize) -> QuestionAnswering {
        QuestionAnswering { longest: tokens, ..self }
    }

    /// Sets whether answers are made of whole words, as by default: spans that begin in the same word and end in the
    /// same word are one answer, from the start of the one to the end of the other. A word is what the tokenizer splits
    /// into pieces: BERT's ends at white space and punctuation, and a Chinese character is one. Otherwise an answer
    /// begins and ends with any token, perhaps within a word.
    ///
    /// This is `align_to_words` of `transformers`, but there, pieces of a word in another window are left out, and the
    /// probabilities of one answer are added up only as far as its spans are among the best.
    pub fn align_to_words(self, align: bool) -> QuestionAnswering {
        QuestionAnswering { by_words: align, ..self }
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
        let mut best = self.best(context, k);
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
            let mut best: Vec<Best> = part.iter().map(|(_, context)| self.best(context.as_ref(), k)).collect();
            self.read(windows, |question, window| best[question].add(window))?;
            answers.extend(best.into_iter().map(|best| best.answers(self.no_answer)));
        }
        Ok(answers)
    }

    /// Returns the answer from the best first to the best last token, found independently of each other (see
    /// [`spans::independent`](super::spans::independent)), in the window where their sum is largest. Its probability is the product of theirs.
    ///
    /// # Errors
    /// Returns an error like [`answer`](QuestionAnswering::answer).
    pub fn independent(&self, question: &str, context: &str) -> Result<Answer> {
        let mut best = self.best(context, 1);
        self.read(vec![self.windows(question, context)?], |_, window| {
            best.add_independent(window, |window, span| {
                softmax(&window.starts)[span.start] * softmax(&window.ends)[span.end]
            });
        })?;
        best.independent().ok_or_else(no_tokens)
    }

    fn best<'c>(&self, context: &'c str, k: usize) -> Best<'c> {
        Best::new(context, k, self.longest, self.by_words)
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

fn no_tokens() -> Error {
    Error::input("the context has no tokens, so it has no answer")
}
