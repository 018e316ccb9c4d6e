//! Opening a model folder.

use cloze_tensor::Device;

use super::{BertModel, PreTrainedModel, lora_files};
use crate::checkpoint::names::canonical;
use crate::checkpoint::{Checkpoint, LoadReport};
use crate::config::{CONFIG_FILE, Remarks};
use crate::folder::Folder;
use crate::weights::{Source, Weights};
use crate::{BertConfig, ClassifierPooling, Error, ProblemType, Result, Tokenizer};

/// Options for opening a model.
///
/// ```no_run
/// use cloze_bert::{BertForSequenceClassification, OpenOptions, PreTrainedModel};
/// use cloze_tensor::Device;
/// // A classifier of three classes on the encoder of any checkpoint.
/// let options = OpenOptions::new().labels(["negative", "neutral", "positive"]).fresh_head().seed(42);
/// let (model, report) = BertForSequenceClassification::open_reported("models/base", &Device::Cpu, &options)?;
/// println!("{report}");
/// # Ok::<(), cloze_bert::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OpenOptions {
    labels: Option<Vec<String>>,
    classifier_pooling: Option<ClassifierPooling>,
    problem_type: Option<ProblemType>,
    dropout: Option<f64>,
    seed: u64,
    fresh_head: bool,
    without_tokenizer: bool,
}

impl OpenOptions {
    /// Creates options that follow the configuration in the folder and draw a missing head with seed 0.
    pub fn new() -> OpenOptions {
        OpenOptions::default()
    }

    /// Sets the labels, instead of those that the folder names.
    pub fn labels<S: AsRef<str>>(self, labels: impl IntoIterator<Item = S>) -> OpenOptions {
        OpenOptions { labels: Some(labels.into_iter().map(|label| label.as_ref().to_string()).collect()), ..self }
    }

    /// Sets the pooling of a classifier of sequences. `None` keeps that of the folder.
    pub fn classifier_pooling(self, pooling: impl Into<Option<ClassifierPooling>>) -> OpenOptions {
        OpenOptions { classifier_pooling: pooling.into(), ..self }
    }

    /// Sets the task of a classifier of sequences. With one label, only [`ProblemType::Regression`] makes its scores
    /// plain numbers; otherwise they are probabilities.
    pub fn problem_type(self, problem: ProblemType) -> OpenOptions {
        OpenOptions { problem_type: Some(problem), ..self }
    }

    /// Sets the dropout of hidden states and of attention. `None` keeps that of the folder. A classifier whose dropout
    /// is configured separately keeps it.
    pub fn dropout(self, p: impl Into<Option<f64>>) -> OpenOptions {
        OpenOptions { dropout: p.into(), ..self }
    }

    /// Sets the seed with which a missing head is drawn.
    pub fn seed(self, seed: u64) -> OpenOptions {
        OpenOptions { seed, ..self }
    }

    /// Initialises a head whose weights have another shape in the file, for example for another number of labels.
    /// Without this option they are an error.
    pub fn fresh_head(self) -> OpenOptions {
        OpenOptions { fresh_head: true, ..self }
    }

    /// Does not read the tokenizer for the report: the caller does, and [adds](LoadReport::add_tokenizer) it.
    pub(crate) fn without_tokenizer(self) -> OpenOptions {
        OpenOptions { without_tokenizer: true, ..self }
    }

    /// Returns whether the tokenizer is read for the report.
    pub(super) fn reads_tokenizer(&self) -> bool {
        !self.without_tokenizer
    }

    /// Returns `config` with the fields that these options set.
    fn apply(&self, config: BertConfig) -> BertConfig {
        let mut config = match &self.labels {
            Some(labels) => config.with_labels(labels.iter().cloned()),
            None => config,
        };
        if let Some(pooling) = self.classifier_pooling {
            config = config.with_classifier_pooling(pooling);
        }
        if let Some(problem) = self.problem_type {
            config = config.with_problem_type(problem);
        }
        if let Some(p) = self.dropout {
            (config.hidden_dropout_prob, config.attention_probs_dropout_prob) = (p, p);
        }
        config
    }
}

/// Opens the model in a folder or, in a folder of adapters, the model that they belong to, with them.
pub(super) fn open_adapted<M: PreTrainedModel>(
    folder: &Folder,
    device: &Device,
    options: &OpenOptions,
) -> Result<(M, LoadReport)> {
    let Some(path) = folder.find(lora_files::CONFIG_FILE)? else {
        return open_folder(folder, device, options, M::build);
    };
    let (mut model, mut report) = open_folder(&lora_files::base(&path)?, device, options, M::build)?;
    let replaced = lora_files::load(&mut model, folder)?;
    let model_type = model.config().model_type;
    report.missing.retain(|name| !replaced.contains(&canonical(name, model_type)));
    Ok((model, report))
}

/// Builds a model from the weights in a folder; parameters of the head that are missing are drawn.
pub(super) fn open_folder<M>(
    folder: &Folder,
    device: &Device,
    options: &OpenOptions,
    build: impl FnOnce(Weights<'_>, &BertConfig) -> Result<M>,
) -> Result<(M, LoadReport)> {
    std::thread::scope(|threads| {
        // Opening a model downloads no tokenizer. If this one cannot be opened, opening it says why. It is read while the
        // weights are, since large vocabularies take some milliseconds.
        let tokenizer = options.reads_tokenizer() && folder.is_on_disk();
        let tokenizer = tokenizer.then(|| threads.spawn(|| Tokenizer::in_folder(folder).ok()));
        let (model, config, mut report) = open_weights_of(folder, device, options, build)?;
        if let Some(tokenizer) = tokenizer.and_then(|thread| thread.join().ok().flatten()) {
            report.add_tokenizer(&tokenizer, &config);
        }
        Ok((model, report))
    })
}

/// Builds a model from the weights and the configuration in a folder.
fn open_weights_of<M>(
    folder: &Folder,
    device: &Device,
    options: &OpenOptions,
    build: impl FnOnce(Weights<'_>, &BertConfig) -> Result<M>,
) -> Result<(M, BertConfig, LoadReport)> {
    let mut config = options.apply(BertConfig::in_folder(folder)?);
    let in_file = |error: Error| error.in_file(&folder.path().join(CONFIG_FILE));
    config.validate().map_err(in_file)?;
    let checkpoint = Checkpoint::open(folder, &config, options.fresh_head)?;
    if checkpoint.is_untied() {
        config = config.with_tie_word_embeddings(false);
    }
    // Names and shapes are checked before a value is read or drawn: with an invalid file, the configuration must not
    // decide how much memory is allocated.
    let body = |weights: Weights<'_>| BertModel::without_pooler(weights.at("bert"), &config);
    let (_, checkpoint) = Source::shapes(checkpoint, &config).build(body)?;
    checkpoint.as_ref().map_or(Ok(()), Checkpoint::check_missing)?;
    let build = |weights: Weights<'_>| build(weights, &config).map_err(in_file);
    let (model, checkpoint) = Source::new(checkpoint, &config, device, options.seed).build(build)?;
    let mut report = checkpoint.map(Checkpoint::report).unwrap_or_default();
    let remarks = Remarks::in_folder(folder, &config)?;
    (report.unknown_fields, report.conflicts) = (remarks.unknown_fields, remarks.conflicts);
    Ok((model, config, report))
}
