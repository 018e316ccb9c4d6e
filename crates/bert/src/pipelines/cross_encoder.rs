//! Scores of pairs of texts, such as a query and a document that may answer it.

use std::path::Path;

use cloze_tensor::{Device, Precision};

use super::Pipeline;
use super::long_text::{LongText, Reported};
use super::output::best;
use super::pipeline::open_trained;
use super::runner::{Runner, prompted};
use super::score_function::ScoreFunction;
use crate::config::CONFIG_FILE;
use crate::folder::Folder;
use crate::model::{Settings, Task, length_conflicts, lists_only_encoder, open_tokenizer};
use crate::{BertForSequenceClassification, Error, LoadReport, Mode, PreTrainedModel, Result, Tokenizer};

/// A pipeline that reads two texts together and scores them. It is slower than comparing embeddings, and more exact:
/// find a few hundred candidates with a [`SentenceEmbedder`](crate::SentenceEmbedder), and re-rank them with this (R.
/// Nogueira, K. Cho, "Passage Re-ranking with BERT", 2019).
///
/// With one label, the score is the sigmoid of the logit unless the folder names the identity. Pairs that are too long are
/// truncated, as in `sentence-transformers`, unless [`long_texts`](CrossEncoder::long_texts) says otherwise.
///
/// ```no_run
/// use cloze_bert::{CrossEncoder, Pipeline};
/// let model = CrossEncoder::open("models/ms-marco-MiniLM-L6-v2")?;
/// for (document, score) in model.rank("where is the cat?", &["The dog barked.", "The cat sat on the mat."], 1)? {
///     println!("document {document}: {score:.3}");
/// }
/// # Ok::<(), cloze_bert::Error>(())
/// ```
pub struct CrossEncoder {
    runner: Runner<BertForSequenceClassification>,
    scores: ScoreFunction,
    /// A text that is put before the first of a pair.
    prompt: String,
}

impl Pipeline for CrossEncoder {
    type Model = BertForSequenceClassification;

    fn new(model: BertForSequenceClassification, tokenizer: Tokenizer) -> Result<CrossEncoder> {
        CrossEncoder::with_settings(model, tokenizer, &Settings::default())
    }

    fn open_reported(place: impl AsRef<Path>, device: &Device) -> Result<(CrossEncoder, LoadReport)> {
        let place = place.as_ref();
        let folder = Folder::at(place)?;
        // Only a folder with a list of modules has settings of `sentence-transformers`.
        let (settings, tokenizer, conflicts) = match lists_only_encoder(&folder)? {
            true => {
                let settings = Settings::read(&folder, Task::CrossEncoder)?;
                (settings, open_tokenizer(&folder, Task::CrossEncoder)?, length_conflicts(&folder))
            }
            false => (Settings::default(), Tokenizer::in_folder(&folder)?, Vec::new()),
        };
        let in_file = |error: Error| error.in_file(&folder.path().join(CONFIG_FILE));
        let (model, mut report) = open_trained::<BertForSequenceClassification>(place, device)?;
        report.conflicts.extend(conflicts);
        report.add_tokenizer(&tokenizer, model.config());
        Ok((CrossEncoder::with_settings(model, tokenizer, &settings).map_err(in_file)?, report))
    }

    fn precision(mut self, precision: Precision) -> Self {
        self.runner.precision = precision;
        self
    }

    fn model(&self) -> &BertForSequenceClassification {
        &self.runner.model
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.runner.tokenizer
    }
}

impl CrossEncoder {
    fn with_settings(
        model: BertForSequenceClassification,
        tokenizer: Tokenizer,
        settings: &Settings,
    ) -> Result<CrossEncoder> {
        let scores = ScoreFunction::of_cross_encoder(model.config(), settings.activation)?;
        let prompt = settings.prompt(None)?.to_string();
        Ok(CrossEncoder { runner: Runner::new(model, tokenizer, LongText::Truncate)?, scores, prompt })
    }

    /// Sets what happens to pairs that are too long, [`LongText::Truncate`] by default. With windows, the logits are
    /// averaged before they become scores.
    pub fn long_texts(mut self, long_texts: LongText) -> CrossEncoder {
        self.runner.long_texts = long_texts;
        self
    }

    /// Returns the scores of each pair of texts, one per label of the model.
    ///
    /// # Errors
    /// Returns an error if a pair is too long and [refused](LongText::Refuse), or if the model computes a number that is
    /// not finite.
    pub fn predict(&self, pairs: &[(impl AsRef<str>, impl AsRef<str>)]) -> Result<Reported<Vec<Vec<f64>>>> {
        let texts = pairs.iter().map(|(first, second)| (prompted(&self.prompt, first.as_ref()), Some(second.as_ref())));
        let texts = self.runner.read_any(texts, self.runner.tokenizer.count(&self.prompt))?;
        let logits = self.runner.means(texts, |model, batch| model.forward(batch, Mode::Eval))?; // [pairs, C]
        Ok(logits.map(|logits| logits.iter().map(|logits| self.scores.apply(logits)).collect()))
    }

    /// Returns the indices and scores of the `k` documents with the highest scores for `query`, highest first. The report
    /// is about all documents.
    ///
    /// # Errors
    /// Returns an error like [`predict`](CrossEncoder::predict), and if the model has several labels.
    pub fn rank(&self, query: &str, documents: &[impl AsRef<str>], k: usize) -> Result<Reported<Vec<(usize, f64)>>> {
        let labels = self.runner.model.config().num_labels();
        if labels != 1 {
            let reason = format!(
                "the model has {labels} labels: ranking needs one score per pair; CrossEncoder::predict returns the scores of all labels"
            );
            return Err(Error::config(reason));
        }
        let pairs: Vec<(&str, &str)> = documents.iter().map(|document| (query, document.as_ref())).collect();
        Ok(self.predict(&pairs)?.map(|scores| best(scores.concat(), k)))
    }
}
