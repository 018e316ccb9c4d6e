//! What all models have in common: they are built of a configuration or opened from a folder, and saved.

use std::path::Path;

use cloze_tensor::random::{Purpose, Stream};
use cloze_tensor::{DType, Device, Module, Tensor};

use super::BertModel;
use super::lora::{self, LoraConfig};
use crate::checkpoint::{self, LoadReport};
use crate::config::CONFIG_FILE;
use crate::folder::Folder;
use crate::weights::{Source, Weights};
use crate::{BertConfig, ClassifierPooling, Result};

/// A BERT with some head: built of a configuration with random weights, or opened from a folder.
///
/// A head of your own is a few lines:
///
/// ```
/// use cloze_bert::{BertConfig, BertModel, Linear, PreTrainedModel, Result, Weights};
/// use cloze_tensor::{Device, module};
///
/// struct BertForRegression { bert: BertModel, classifier: Linear }
/// module!(BertForRegression { bert, classifier });
///
/// impl PreTrainedModel for BertForRegression {
///     const ARCHITECTURE: &'static str = "BertForRegression";
///     fn build(weights: Weights<'_>, config: &BertConfig) -> Result<Self> {
///         Ok(BertForRegression {
///             bert: BertModel::build(weights.at("bert"), config)?,
///             classifier: Linear::new(weights.at("classifier"), config.hidden_size, 1)?,
///         })
///     }
///     fn bert(&self) -> &BertModel { &self.bert }
///     fn bert_mut(&mut self) -> &mut BertModel { &mut self.bert }
/// }
///
/// let model = BertForRegression::new(&BertConfig::tiny(1000), &Device::Cpu, 7)?;
/// # Ok::<(), cloze_bert::Error>(())
/// ```
pub trait PreTrainedModel: Module + Sized {
    /// Name of its class in `transformers`, which `config.json` says.
    const ARCHITECTURE: &'static str;

    /// Builds the model of these weights. Names of modules are those of the state dict in `transformers`.
    ///
    /// # Errors
    /// When the weights do not fit the configuration.
    fn build(weights: Weights<'_>, config: &BertConfig) -> Result<Self>;

    /// The bare model in it.
    fn bert(&self) -> &BertModel;

    /// The bare model in it, to change.
    fn bert_mut(&mut self) -> &mut BertModel;

    /// The configuration.
    fn config(&self) -> &BertConfig {
        &self.bert().config
    }

    /// A model with random weights: normal with standard deviation `initializer_range`, biases zero.
    ///
    /// # Errors
    /// When the configuration describes no model, or none that has this head.
    fn new(config: &BertConfig, device: &Device, seed: u64) -> Result<Self> {
        config.validate()?;
        let (model, _) = Source::new(None, config, device, seed).build(|weights| Self::build(weights, config))?;
        Ok(model)
    }

    /// The model in the folder `place`, as `transformers` or [`save`](PreTrainedModel::save) wrote it, or
    /// [of this name](crate#models-by-name). The report says what was found; a head that is missing is made anew.
    ///
    /// Weights are views of the memory-mapped file where they are f32: a model that only answers costs no second
    /// copy of them.
    ///
    /// # Errors
    /// When a file cannot be read or is not what it should be, the encoder is not complete, a weight is of another
    /// shape than the configuration says or is not finite, or the decoder of a masked-language-model head is not
    /// tied to the word embeddings.
    fn open(place: impl AsRef<Path>, device: &Device) -> Result<(Self, LoadReport)> {
        Self::open_with(place, device, &OpenOptions::new())
    }

    /// As [`open`](PreTrainedModel::open), with options: other labels, a head made anew.
    ///
    /// # Errors
    /// As [`open`](PreTrainedModel::open).
    fn open_with(place: impl AsRef<Path>, device: &Device, options: &OpenOptions) -> Result<(Self, LoadReport)> {
        open_in(&Folder::at(place.as_ref())?, device, options)
    }

    /// Writes `config.json` and `model.safetensors` into folder `dir`, making it if need be.
    ///
    /// # Errors
    /// When a file cannot be written; older files are then left as they were.
    fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        self.save_with(dir, &SaveOptions::new())
    }

    /// As [`save`](PreTrainedModel::save), with options: half the size, several files.
    ///
    /// # Errors
    /// As [`save`](PreTrainedModel::save).
    fn save_with(&self, dir: impl AsRef<Path>, options: &SaveOptions) -> Result<()> {
        checkpoint::save(dir.as_ref(), self, self.config(), Self::ARCHITECTURE, options)
    }

    /// Gives linear layers of the encoder low-rank adapters, the only parameters of it that are then to be trained:
    /// freeze what [`LoraConfig::trains`] does not name. The model computes what it did until they are.
    ///
    /// # Errors
    /// When the rank is 0 or no layer is a target.
    fn add_adapters(&mut self, config: &LoraConfig, seed: u64) -> Result<()> {
        lora::add(self, config, seed)
    }

    /// Writes the adapters and the head, as `peft` does, into folder `dir`, making it if need be.
    ///
    /// # Errors
    /// When the model has no adapters, or a file cannot be written.
    fn save_adapters(&self, dir: impl AsRef<Path>) -> Result<()> {
        lora::save(self, dir.as_ref())
    }

    /// Reads the adapters in folder `dir` and the head beside them, as `peft` or
    /// [`save_adapters`](PreTrainedModel::save_adapters) wrote them.
    ///
    /// # Errors
    /// When a file cannot be read, is of another kind of adapter or does not fit the model.
    fn load_adapters(&mut self, dir: impl AsRef<Path>) -> Result<()> {
        lora::load(self, dir.as_ref())
    }

    /// Adds what adapters learned to the weights, and takes the adapters away: the model computes the same, at its
    /// old speed, and can be [saved](PreTrainedModel::save).
    ///
    /// # Errors
    /// When there is not enough memory.
    fn merge_adapters(&mut self) -> Result<()> {
        lora::merge(self)
    }

    /// Gives the table of word embeddings, and the bias of a decoder tied to it, `vocab_size` rows: for tokens that
    /// were [added](crate::Tokenizer::add_tokens) to the tokenizer. Rows that are there keep their values; new ones
    /// are drawn with `seed` as in [`new`](PreTrainedModel::new), new biases are 0. Rows beyond `vocab_size` go.
    ///
    /// Do it before an optimizer is made for the model.
    ///
    /// # Errors
    /// When the configuration would describe no model.
    fn resize_token_embeddings(&mut self, vocab_size: usize, seed: u64) -> Result<()> {
        let config = BertConfig { vocab_size, ..self.config().clone() };
        config.validate()?;
        let mut resized = Ok(());
        self.visit_mut("", &mut |name, parameter| {
            let std = match name {
                _ if resized.is_err() => return,
                _ if name.ends_with("embeddings.word_embeddings.weight") => config.initializer_range,
                "cls.predictions.bias" => 0.0,
                _ => return,
            };
            match with_rows(parameter, vocab_size, std, seed) {
                Ok(tensor) => *parameter = tensor,
                Err(error) => resized = Err(error),
            }
        });
        resized?;
        self.bert_mut().config = config;
        Ok(())
    }
}

/// The model in a folder.
pub(super) fn open_in<M: PreTrainedModel>(
    folder: &Folder,
    device: &Device,
    options: &OpenOptions,
) -> Result<(M, LoadReport)> {
    let stored = BertConfig::in_folder(folder)?;
    let mut config = match &options.labels {
        Some(labels) => stored.with_labels(labels.iter().cloned()),
        None => stored,
    };
    if let Some(pooling) = options.classifier_pooling {
        config = config.with_classifier_pooling(pooling);
    }
    if let Some(p) = options.dropout {
        (config.hidden_dropout_prob, config.attention_probs_dropout_prob) = (p, p);
    }
    let in_file = |error: crate::Error| error.in_file(&folder.path().join(CONFIG_FILE));
    config.validate().map_err(in_file)?;
    checkpoint::load(folder, &config, device, options.seed, options.fresh_head, |weights| {
        M::build(weights, &config).map_err(in_file)
    })
}

/// A table or vector with `rows` rows; new ones are normal with standard deviation `std`.
fn with_rows(tensor: &Tensor, rows: usize, std: f64, seed: u64) -> Result<Tensor> {
    let old = tensor.detach();
    let kept = old.narrow(0, 0, rows.min(old.shape()[0]))?;
    let mut shape = old.shape().to_vec();
    shape[0] = rows - kept.shape()[0];
    let mut stream = Stream::new(seed, Purpose::Init, 0, 0, 0);
    let new = Tensor::randn(&shape, std, &mut stream, &old.device())?.to_dtype(old.dtype())?;
    Ok(Tensor::concat(&[&kept, &new], 0)?.requires_grad())
}

/// How a model is opened.
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
    dropout: Option<f64>,
    seed: u64,
    fresh_head: bool,
}

impl OpenOptions {
    /// As the folder says; a head that is missing is drawn with seed 0.
    pub fn new() -> OpenOptions {
        OpenOptions::default()
    }

    /// Labels in the place of those that the folder names.
    pub fn labels<S: Into<String>>(self, labels: impl IntoIterator<Item = S>) -> OpenOptions {
        OpenOptions { labels: Some(labels.into_iter().map(Into::into).collect()), ..self }
    }

    /// What a classifier of sequences sees, in the place of what the folder says, which `None` leaves.
    pub fn classifier_pooling(self, pooling: impl Into<Option<ClassifierPooling>>) -> OpenOptions {
        OpenOptions { classifier_pooling: pooling.into(), ..self }
    }

    /// Dropout of hidden states and of attention, in the place of what the folder says, which `None` leaves. A classifier
    /// that has a dropout of its own keeps it.
    pub fn dropout(self, p: impl Into<Option<f64>>) -> OpenOptions {
        OpenOptions { dropout: p.into(), ..self }
    }

    /// Key of the random numbers that a missing head is made of.
    pub fn seed(self, seed: u64) -> OpenOptions {
        OpenOptions { seed, ..self }
    }

    /// Makes a head anew whose weights are there in another shape, as for another number of labels. Without this
    /// it is an error.
    pub fn fresh_head(self) -> OpenOptions {
        OpenOptions { fresh_head: true, ..self }
    }
}

/// How a model is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaveOptions {
    pub(crate) dtype: DType,
    pub(crate) max_shard_bytes: Option<usize>,
}

impl Default for SaveOptions {
    fn default() -> SaveOptions {
        SaveOptions { dtype: DType::F32, max_shard_bytes: None }
    }
}

impl SaveOptions {
    /// In f32, in one file.
    pub fn new() -> SaveOptions {
        SaveOptions::default()
    }

    /// The type that weights are rounded to: [`DType::BF16`] and [`DType::F16`] halve the file.
    pub fn dtype(self, dtype: DType) -> SaveOptions {
        SaveOptions { dtype, ..self }
    }

    /// Splits the weights into files of at most so many bytes (a tensor that is larger has one of its own), with
    /// an index beside them.
    pub fn max_shard_bytes(self, bytes: usize) -> SaveOptions {
        SaveOptions { max_shard_bytes: Some(bytes), ..self }
    }
}
