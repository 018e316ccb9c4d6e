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
/// let (model, report) = BertForSequenceClassification::open_with("models/base", &Device::Cpu, &options)?;
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
    quiet: bool,
}

impl OpenOptions {
    /// Creates options that follow the configuration in the folder and draw a missing head with seed 0.
    pub fn new() -> OpenOptions {
        OpenOptions::default()
    }

    /// Sets the labels, instead of those that the folder names.
    pub fn labels<S: Into<String>>(self, labels: impl IntoIterator<Item = S>) -> OpenOptions {
        OpenOptions { labels: Some(labels.into_iter().map(Into::into).collect()), ..self }
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

    /// Leaves out what the report says about side files, for which the tokenizer is read.
    pub(crate) fn quiet(self) -> OpenOptions {
        OpenOptions { quiet: true, ..self }
    }

    /// Returns whether the report leaves out side files.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet
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
    if !options.quiet {
        Remarks { unknown_fields: report.unknown_fields, conflicts: report.conflicts } = remarks(folder, &config)?;
    }
    Ok((model, report))
}

/// Returns what is unknown or contradictory in the side files of a folder.
fn remarks(folder: &Folder, config: &BertConfig) -> Result<Remarks> {
    let mut remarks = Remarks::in_folder(folder, config)?;
    // Opening a model downloads no tokenizer. If this one cannot be opened, opening it says why.
    if folder.is_on_disk()
        && let Ok(tokenizer) = Tokenizer::in_folder(folder)
    {
        remarks.conflicts.extend_from_slice(tokenizer.conflicts());
        remarks.conflicts.extend(tokenizer.conflicts_with(config));
    }
    Ok(remarks)
}
