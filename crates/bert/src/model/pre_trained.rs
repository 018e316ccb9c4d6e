//! The trait that all models share: creating, opening, resizing, adapting and saving them.

use std::path::Path;

use cloze_tensor::random::{Purpose, Stream};
use cloze_tensor::{DType, Device, Module, Tensor};

use super::BertModel;
use super::lora::{self, LoraConfig};
use super::lora_files;
use super::open::{OpenOptions, open_adapted};
use crate::checkpoint::{self, LoadReport, SaveOptions};
use crate::folder::Folder;
use crate::room::Room;
use crate::weights::{Source, Weights};
use crate::{BertConfig, ModelType, Result};

/// A BERT with a head, created with random weights or opened from a folder.
///
/// A head of your own is a struct with the bare model and the head's parameters:
///
/// ```
/// use cloze_bert::{Batch, BertConfig, BertModel, Linear, Mode, PreTrainedModel, Result, Weights};
/// use cloze_tensor::{Device, Inside, Tensor, module};
///
/// struct BertForRegression { bert: BertModel, regressor: Linear }
/// module!(BertForRegression { bert, regressor });
///
/// impl PreTrainedModel for BertForRegression {
///     const ARCHITECTURE: &'static str = "BertForRegression";
///     fn build(weights: Weights<'_>, config: &BertConfig) -> Result<Self> {
///         Ok(BertForRegression {
///             bert: BertModel::with_pooler(weights.at("bert"), config)?,
///             regressor: Linear::new(weights.at("regressor"), config.hidden_size, 1)?,
///         })
///     }
///     fn bert(&self) -> &BertModel { &self.bert }
///     fn bert_mut(&mut self) -> &mut BertModel { &mut self.bert }
/// }
///
/// impl BertForRegression {
///     /// Computes a value per sequence: `[B, 1]`.
///     fn forward(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
///         self.regressor.forward(&self.bert.pooled_for_head(batch, mode)?).inside("regressor")
///     }
/// }
///
/// let model = BertForRegression::new(&BertConfig::tiny(1000), &Device::Cpu, 7)?;
/// let values = model.forward(&Batch::new(&[([2, 40, 3], [0, 0, 0])])?, Mode::Eval)?;
/// assert_eq!(values.shape(), [1, 1]);
/// # Ok::<(), cloze_bert::Error>(())
/// ```
pub trait PreTrainedModel: Module + Sized {
    /// The name of the model's class in `transformers`, written to `config.json`.
    const ARCHITECTURE: &'static str;

    /// Builds the model from `weights`. Modules are named as in the state dict of `transformers`.
    ///
    /// # Errors
    /// Returns an error if the weights do not fit the configuration.
    fn build(weights: Weights<'_>, config: &BertConfig) -> Result<Self>;

    /// Returns the model without its head.
    fn bert(&self) -> &BertModel;

    /// Returns the model without its head, mutably.
    fn bert_mut(&mut self) -> &mut BertModel;

    /// Returns the configuration.
    fn config(&self) -> &BertConfig {
        &self.bert().config
    }

    /// Creates a model with random weights: normal with standard deviation `initializer_range`, biases zero.
    ///
    /// # Errors
    /// Returns an error if the configuration is invalid or excludes this head, or if the parameters need more than the memory
    /// of this machine.
    fn new(config: &BertConfig, device: &Device, seed: u64) -> Result<Self> {
        config.validate()?;
        Room::of_machine().check(config)?;
        let (model, _) = Source::new(None, config, device, seed).build(|weights| Self::build(weights, config))?;
        Ok(model)
    }

    /// Opens the model in the folder `place`, written by `transformers` or [`save`](PreTrainedModel::save), or
    /// [of this name](crate#models-by-name). A head that the folder has no weights for is drawn at random, to be trained;
    /// [`open_reported`](PreTrainedModel::open_reported) says so. In a folder of adapters, opens the model that they belong
    /// to and [loads](PreTrainedModel::load_adapters) them.
    ///
    /// Weights stored as f32 are views of the memory-mapped file, so a model that only answers needs no second copy
    /// of them.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or is invalid, the encoder is incomplete, a weight is not finite or
    /// its shape differs from the configuration, or the decoder of a masked-language-model head is not tied to the
    /// word embeddings.
    fn open(place: impl AsRef<Path>, device: &Device) -> Result<Self> {
        Self::open_with(place, device, &OpenOptions::new())
    }

    /// Opens a model like [`open`](PreTrainedModel::open), with options such as other labels or a new head.
    ///
    /// # Errors
    /// Returns an error like [`open`](PreTrainedModel::open).
    fn open_with(place: impl AsRef<Path>, device: &Device, options: &OpenOptions) -> Result<Self> {
        Ok(Self::open_reported(place, device, options)?.0)
    }

    /// Opens a model like [`open_with`](PreTrainedModel::open_with). The report has the parameters that were missing, the
    /// fields of `config.json` that are not read, and the contradictions between the files of the folder.
    ///
    /// # Errors
    /// Returns an error like [`open`](PreTrainedModel::open).
    fn open_reported(place: impl AsRef<Path>, device: &Device, options: &OpenOptions) -> Result<(Self, LoadReport)> {
        open_adapted(&Folder::at(place.as_ref())?, device, options)
    }

    /// Writes `config.json` and `model.safetensors` into the folder `dir`, creating it if necessary.
    ///
    /// # Errors
    /// Returns an error if the model has adapters or a file cannot be written. A file that could not be replaced
    /// keeps its old content.
    fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        self.save_with(dir, &SaveOptions::new())
    }

    /// Saves the model like [`save`](PreTrainedModel::save), with options such as a smaller dtype or several files.
    ///
    /// # Errors
    /// Returns an error like [`save`](PreTrainedModel::save).
    fn save_with(&self, dir: impl AsRef<Path>, options: &SaveOptions) -> Result<()> {
        save_folder(dir.as_ref(), self, self.config(), Self::ARCHITECTURE, options)
    }

    /// Adds low-rank adapters to linear layers of the encoder or the pooler and freezes all other parameters of the bare
    /// model. Only the adapters and the head are trained. Outputs do not change until then.
    ///
    /// # Errors
    /// Returns an error if the rank is 0 or no layer is a target.
    fn add_adapters(&mut self, config: &LoraConfig, seed: u64) -> Result<()> {
        lora::add(self.bert_mut(), config, seed)?;
        lora::freeze_base(self, |_| false);
        Ok(())
    }

    /// Writes the adapters and the head in the format of `peft` into the folder `dir`, creating it if necessary.
    ///
    /// # Errors
    /// Returns an error if the model has no adapters or a file cannot be written.
    fn save_adapters(&self, dir: impl AsRef<Path>) -> Result<()> {
        lora_files::save(self, dir.as_ref())
    }

    /// Adds the adapters in the folder `dir`, written by `peft` or [`save_adapters`](PreTrainedModel::save_adapters),
    /// loads the head and the other modules stored with them, and freezes all other parameters as
    /// [`add_adapters`](PreTrainedModel::add_adapters) does.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, describes another kind of adapter or does not fit the model.
    fn load_adapters(&mut self, dir: impl AsRef<Path>) -> Result<()> {
        lora_files::load(self, &Folder::at(dir.as_ref())?)?;
        Ok(())
    }

    /// Adds the corrections of the adapters to the weights, removes the adapters, and makes all parameters trainable
    /// again. The model computes the same, as fast as without adapters, and can be [saved](PreTrainedModel::save).
    /// Does nothing to a model without adapters.
    ///
    /// # Errors
    /// Returns an error if memory runs out.
    fn merge_adapters(&mut self) -> Result<()> {
        if lora::is_adapted(self) {
            lora::merge(self.bert_mut())?;
            lora::unfreeze(self);
        }
        Ok(())
    }

    /// Resizes the word embeddings, and the decoder of masked tokens, to `vocab_size` rows, after tokens were
    /// [added](crate::Tokenizer::add_tokens) to the tokenizer. Existing rows keep their values. Rows beyond `vocab_size`
    /// are removed.
    ///
    /// New rows are drawn from the normal distribution with the mean of the existing rows and 1e-9 times their covariance,
    /// as in `transformers`, so that new tokens hardly change the probabilities of the others: all of them begin as
    /// probable as the mean. New biases are 0 or, if the decoder is not tied to the word embeddings, the mean bias. `seed`
    /// does not give the numbers of `torch`.
    ///
    /// Source: J. Hewitt, "Initializing new word embeddings for pretrained language models", 2021.
    ///
    /// Call it before creating an optimizer for the model.
    ///
    /// # Errors
    /// Returns an error if the new configuration is invalid.
    fn resize_token_embeddings(&mut self, vocab_size: usize, seed: u64) -> Result<()> {
        let config = BertConfig { vocab_size, ..self.config().clone() };
        config.validate()?;
        let (mut resized, mut is_tied) = (Ok(()), true);
        self.visit("", &mut |name, _| is_tied &= name != DECODER);
        self.visit_mut("", &mut |name, parameter| {
            let new = match name {
                _ if resized.is_err() => return,
                _ if name.ends_with("embeddings.word_embeddings.weight") => NewRows::AroundMean(SPREAD),
                DECODER => NewRows::AroundMean(SPREAD),
                "cls.predictions.bias" if is_tied => NewRows::Zeros,
                "cls.predictions.bias" => NewRows::AroundMean(0.0),
                _ => return,
            };
            match with_rows(parameter, vocab_size, new, seed) {
                Ok(tensor) => *parameter = tensor,
                Err(error) => resized = Err(error),
            }
        });
        resized?;
        self.bert_mut().config = config;
        Ok(())
    }
}

impl PreTrainedModel for BertModel {
    const ARCHITECTURE: &'static str = "BertModel";

    /// Builds the model with a pooler, unless it is a DistilBERT.
    fn build(weights: Weights<'_>, config: &BertConfig) -> Result<BertModel> {
        match config.model_type {
            ModelType::Bert => BertModel::with_pooler(weights, config),
            ModelType::DistilBert => BertModel::without_pooler(weights, config),
        }
    }

    fn bert(&self) -> &BertModel {
        self
    }

    fn bert_mut(&mut self) -> &mut BertModel {
        self
    }
}

/// Writes a model without adapters into folder `dir`.
pub(super) fn save_folder(
    dir: &Path,
    model: &impl Module,
    config: &BertConfig,
    architecture: &str,
    options: &SaveOptions,
) -> Result<()> {
    lora::check_merged(model)?;
    checkpoint::save(dir, model, config, architecture, options)
}

/// The covariance of new rows, as a part of that of the existing rows.
const SPREAD: f64 = 1e-9;

/// The decoder of masked tokens, if it is not tied to the word embeddings.
const DECODER: &str = "cls.predictions.decoder.weight";

/// Initial values of the rows added to a table.
#[derive(Clone, Copy)]
enum NewRows {
    Zeros,
    /// Normal, with the mean of the old rows and this part of their covariance.
    AroundMean(f64),
}

/// The most rows that are drawn at once, to limit memory.
const DRAWN: usize = 64;

/// Returns a table or vector resized to `rows` rows.
fn with_rows(tensor: &Tensor, rows: usize, new_rows: NewRows, seed: u64) -> Result<Tensor> {
    let old = tensor.detach();
    let count = old.shape()[0];
    let mut parts = vec![old.narrow(0, 0, rows.min(count))?];
    let table = old.to_dtype(DType::F32)?.reshape(&[count, old.elements() / count])?; // [V, H]
    let mut stream = Stream::new(seed, Purpose::Init, 0, 0, 0);
    for start in (count..rows).step_by(DRAWN) {
        let new = DRAWN.min(rows - start);
        let weights = match new_rows {
            NewRows::Zeros => vec![0.0; new * count],
            NewRows::AroundMean(spread) => {
                (0..new).flat_map(|_| mean_weights(count, spread, &mut stream)).collect::<Vec<f32>>()
            }
        };
        let drawn = Tensor::from_vec(weights, &[new, count], &old.device())?.matmul(&table)?; // [new, H]
        let shape = [&[new], &old.shape()[1..]].concat();
        parts.push(drawn.reshape(&shape)?.to_dtype(old.dtype())?);
    }
    Ok(Tensor::concat(&parts.iter().collect::<Vec<_>>(), 0)?.requires_grad())
}

/// Returns the weights of `count` rows in a sum that is their mean plus a normal error: with z from the standard normal
/// distribution, Σ (z - mean z) x / √`count` has the covariance of the rows x.
fn mean_weights(count: usize, spread: f64, stream: &mut Stream) -> Vec<f32> {
    let z: Vec<f64> = (0..count).map(|_| stream.normal_pair()[0]).collect();
    let (n, mean) = (count as f64, z.iter().sum::<f64>() / count as f64);
    z.iter().map(|z| (1.0 / n + (spread / n).sqrt() * (z - mean)) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean and the covariance of many new rows, measured in units of those asked for.
    #[test]
    fn new_rows_have_the_mean_and_the_covariance_of_the_old_ones() {
        let (old, width, new, spread) = (40, 3, 4000, 0.01);
        let mut stream = Stream::new(1, Purpose::User, 0, 0, 0);
        // Columns with different means and deviations, the last two of them correlated.
        let table: Vec<[f64; 3]> = (0..old)
            .map(|_| {
                let [a, b] = stream.normal_pair();
                [a + 2.0, 3.0 * b, 3.0 * b + a - 1.0]
            })
            .collect();
        let values = table.concat().into_iter().map(|x| x as f32).collect();
        let tensor = Tensor::from_vec(values, &[old, width], &Device::Cpu).unwrap();
        let resized = with_rows(&tensor, old + new, NewRows::AroundMean(spread), 7).unwrap().to_vec::<f32>().unwrap();
        let drawn: Vec<[f64; 3]> =
            resized[old * width..].chunks(3).map(|row| [0, 1, 2].map(|c| row[c].into())).collect();
        let moments = |rows: &[[f64; 3]]| {
            let mean = |of: &dyn Fn(&[f64; 3]) -> f64| rows.iter().map(of).sum::<f64>() / rows.len() as f64;
            let means = [0, 1, 2].map(|c| mean(&|row| row[c]));
            (means, [0, 1, 2].map(|a| [0, 1, 2].map(|b| mean(&|row| (row[a] - means[a]) * (row[b] - means[b])))))
        };
        let ((means, covariance), (found_means, found_covariance)) = (moments(&table), moments(&drawn));
        for a in 0..3 {
            let deviation = (spread * covariance[a][a] / new as f64).sqrt();
            assert!((found_means[a] - means[a]).abs() < 4.0 * deviation, "{found_means:?}, not {means:?}");
            for b in 0..3 {
                let scale = spread * (covariance[a][a] * covariance[b][b]).sqrt();
                let error = (found_covariance[a][b] - spread * covariance[a][b]).abs();
                assert!(error < 0.1 * scale, "{found_covariance:?}, not {spread} times {covariance:?}");
            }
        }
    }
}
