//! One vector for each sentence (N. Reimers, I. Gurevych, "Sentence-BERT", 2019): the encoder, a pooling of its
//! hidden states, and the norm made 1. Folders are those of `sentence-transformers`.

use std::path::Path;

use cloze_tensor::{Device, Pooling, Tensor, module};
use serde_json::{Map, Value, json};

use super::pre_trained::open_in;
use super::{BertModel, Mode, OpenOptions, PreTrainedModel, Rows, SaveOptions};
use crate::checkpoint::{self, LoadReport};
use crate::files::{read_object, replace};
use crate::folder::Folder;
use crate::weights::Weights;
use crate::{Batch, BertConfig, Error, Result, Tokenizer};

/// How the hidden states of a sentence become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentencePooling {
    /// That of `[CLS]`.
    Cls,
    /// The largest of each column.
    Max,
    /// The mean of all tokens, special ones included.
    Mean,
    /// The sum of all tokens by the root of their number.
    MeanSqrtLen,
}

impl SentencePooling {
    /// In the order in which `sentence-transformers` puts several side by side.
    pub const ALL: [SentencePooling; 4] =
        [SentencePooling::Cls, SentencePooling::Max, SentencePooling::Mean, SentencePooling::MeanSqrtLen];

    /// Its name in `1_Pooling/config.json`.
    pub fn name(self) -> &'static str {
        match self {
            SentencePooling::Cls => "cls",
            SentencePooling::Max => "max",
            SentencePooling::Mean => "mean",
            SentencePooling::MeanSqrtLen => "mean_sqrt_len_tokens",
        }
    }

    /// The flag that older versions have in its place.
    fn flag(self) -> &'static str {
        match self {
            SentencePooling::Cls => "pooling_mode_cls_token",
            SentencePooling::Max => "pooling_mode_max_tokens",
            SentencePooling::Mean => "pooling_mode_mean_tokens",
            SentencePooling::MeanSqrtLen => "pooling_mode_mean_sqrt_len_tokens",
        }
    }
}

/// What follows the encoder: `modules.json` and what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Modules {
    /// Folder of the encoder inside the model's.
    transformer: String,
    poolings: Vec<SentencePooling>,
    normalize: bool,
}

/// The file that lists them.
const MODULES: &str = "modules.json";
/// Where our own pooling is.
const POOLING: &str = "1_Pooling";

/// Without `modules.json`, as `sentence-transformers` takes a bare encoder: the mean.
impl Default for Modules {
    fn default() -> Modules {
        Modules { transformer: String::new(), poolings: vec![SentencePooling::Mean], normalize: false }
    }
}

impl Modules {
    fn read(folder: &Folder) -> Result<Modules> {
        let Some(path) = folder.find(MODULES)? else { return Ok(Modules::default()) };
        let text = crate::files::read_text(&path)?;
        let listed: Vec<Map<String, Value>> = serde_json::from_str(&text)
            .map_err(|error| Error::format(&path, format!("not a list of modules: {error}")))?;
        let mut modules = Modules { poolings: Vec::new(), ..Modules::default() };
        for (index, module) in listed.iter().enumerate() {
            let field = |name: &str| module.get(name).and_then(Value::as_str).unwrap_or_default();
            // Versions differ in the packages before the class.
            match field("type").rsplit('.').next().unwrap_or_default() {
                "Transformer" if index == 0 => modules.transformer = field("path").to_string(),
                "Pooling" => modules.poolings = read_pooling(folder, field("path"))?,
                "Normalize" => modules.normalize = true,
                _ => {
                    let reason = format!(
                        "module {index} is {:?}: only Transformer, Pooling and Normalize are read",
                        field("type")
                    );
                    return Err(Error::format(path, reason));
                }
            }
        }
        match modules.poolings.is_empty() {
            true => Err(Error::format(path, "has no Pooling module: tokens do not become a sentence")),
            false => Ok(modules),
        }
    }
}

fn read_pooling(folder: &Folder, inside: &str) -> Result<Vec<SentencePooling>> {
    let path = folder.inside(inside)?.get("config.json")?;
    let config = read_object(&path)?;
    let named: Vec<&str> = match config.get("pooling_mode") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => {
            let on = config.iter().filter(|(name, value)| name.starts_with("pooling_mode_") && **value == true);
            let flags: Vec<&str> = on.map(|(name, _)| name.as_str()).collect();
            if let Some(unknown) = flags.iter().find(|flag| SentencePooling::ALL.iter().all(|p| p.flag() != **flag)) {
                return Err(Error::format(path, format!("{unknown} is not supported: {} are", known())));
            }
            let known = SentencePooling::ALL.into_iter().filter(|pooling| flags.contains(&pooling.flag()));
            known.map(SentencePooling::name).collect()
        }
    };
    let pooling = |name: &&str| SentencePooling::ALL.into_iter().find(|pooling| pooling.name() == *name);
    if let Some(unknown) = named.iter().find(|name| pooling(name).is_none()) {
        return Err(Error::format(path, format!("pooling_mode {unknown:?} is not supported: {} are", known())));
    }
    match named.is_empty() {
        true => Err(Error::format(path, format!("names no pooling: {} are known", known()))),
        false => Ok(named.iter().filter_map(pooling).collect()),
    }
}

fn known() -> String {
    SentencePooling::ALL.map(SentencePooling::name).join(", ")
}

/// An encoder of sentences. Opens what `sentence-transformers` wrote, and the folder of any bare encoder, whose hidden
/// states it averages.
#[derive(Clone)]
pub struct SentenceEncoder {
    /// The bare model, without a pooler.
    pub bert: BertModel,
    poolings: Vec<SentencePooling>,
    normalize: bool,
}
module!(SentenceEncoder { bert });

impl PreTrainedModel for SentenceEncoder {
    const ARCHITECTURE: &'static str = "BertModel";

    /// With mean pooling.
    fn build(weights: Weights<'_>, config: &BertConfig) -> Result<SentenceEncoder> {
        let Modules { poolings, normalize, .. } = Modules::default();
        Ok(SentenceEncoder { bert: BertModel::without_pooler(weights, config)?, poolings, normalize })
    }

    fn bert(&self) -> &BertModel {
        &self.bert
    }

    fn bert_mut(&mut self) -> &mut BertModel {
        &mut self.bert
    }

    fn open_with(
        place: impl AsRef<Path>,
        device: &Device,
        options: &OpenOptions,
    ) -> Result<(SentenceEncoder, LoadReport)> {
        let folder = Folder::at(place.as_ref())?;
        let Modules { transformer, poolings, normalize } = Modules::read(&folder)?;
        let (model, report) = open_in::<SentenceEncoder>(&folder.inside(&transformer)?, device, options)?;
        Ok((SentenceEncoder { poolings, normalize, ..model }, report))
    }

    /// Writes the encoder and, beside it, `modules.json` and the settings of the pooling, which
    /// `sentence-transformers` opens.
    fn save_with(&self, dir: impl AsRef<Path>, options: &SaveOptions) -> Result<()> {
        let dir = dir.as_ref();
        checkpoint::save(dir, &self.bert, self.config(), Self::ARCHITECTURE, options)?;
        let mut modules = vec![("", "Transformer"), (POOLING, "Pooling")];
        if self.normalize {
            modules.push(("2_Normalize", "Normalize"));
        }
        let listed = modules.iter().enumerate().map(|(index, (path, class))| {
            let class = format!("sentence_transformers.models.{class}");
            json!({"idx": index, "name": index.to_string(), "path": path, "type": class})
        });
        let mut pooling = Map::from_iter([("word_embedding_dimension".into(), self.config().hidden_size.into())]);
        pooling.extend(SentencePooling::ALL.map(|kind| (kind.flag().into(), self.poolings.contains(&kind).into())));
        let write = |path: &Path, value: Value| replace(path, format!("{value:#}\n").as_bytes());
        write(&dir.join(POOLING).join("config.json"), Value::Object(pooling))?;
        write(&dir.join(MODULES), listed.collect())
    }
}

impl SentenceEncoder {
    /// The same encoder with these poolings, their vectors side by side.
    ///
    /// # Errors
    /// When there is none.
    pub fn pooled_by(self, poolings: &[SentencePooling]) -> Result<SentenceEncoder> {
        match poolings.is_empty() {
            true => Err(Error::config("no pooling given: tokens do not become a sentence")),
            false => Ok(SentenceEncoder { poolings: poolings.to_vec(), ..self }),
        }
    }

    /// The same encoder, with vectors of norm 1 or as they are.
    pub fn normalized(self, normalize: bool) -> SentenceEncoder {
        SentenceEncoder { normalize, ..self }
    }

    /// The tokenizer of the encoder in the folder `place`, or of [this name](crate#models-by-name), limited to the length
    /// that `sentence_bert_config.json` says.
    ///
    /// # Errors
    /// As [`Tokenizer::open`], and when a file of settings is not what it should be.
    pub fn tokenizer(place: impl AsRef<Path>) -> Result<Tokenizer> {
        let folder = Folder::at(place.as_ref())?;
        let folder = folder.inside(&Modules::read(&folder)?.transformer)?;
        let tokenizer = Tokenizer::in_folder(&folder)?;
        let settings =
            folder.find("sentence_bert_config.json")?.map_or_else(|| Ok(Map::new()), |path| read_object(&path))?;
        let limit =
            settings.get("max_seq_length").and_then(Value::as_u64).and_then(|limit| usize::try_from(limit).ok());
        let max_length = limit.map_or(tokenizer.max_length(), |limit| limit.min(tokenizer.max_length()));
        Ok(tokenizer.with_max_length(max_length))
    }

    /// Width D of the vectors.
    pub fn dimension(&self) -> usize {
        self.poolings.len() * self.config().hidden_size
    }

    /// A vector for each sequence: `[B, D]`.
    ///
    /// # Errors
    /// When the batch does not fit the model.
    pub fn forward(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        let sequences = batch.sequences();
        let pooled = if self.poolings == [SentencePooling::Cls] {
            self.bert.forward_rows(batch, &Rows::cls(sequences), mode)?
        } else {
            let hidden = self.bert.forward(batch, mode)?; // [T, H]
            let pool = |pooling: &SentencePooling| -> Result<Tensor> {
                Ok(match pooling {
                    SentencePooling::Cls => hidden.gather_rows(sequences.starts())?,
                    SentencePooling::Max => hidden.pool(sequences, Pooling::Max)?,
                    SentencePooling::Mean => hidden.pool(sequences, Pooling::Mean)?,
                    SentencePooling::MeanSqrtLen => {
                        let length = |ends: &[u32]| ((ends[1] - ends[0]) as f32).sqrt();
                        let lengths: Vec<f32> = sequences.cu_seqlens().windows(2).map(length).collect();
                        let lengths = Tensor::from_vec(lengths, &[batch.len(), 1], &hidden.device())?;
                        hidden.pool(sequences, Pooling::Mean)?.mul(&lengths)?
                    }
                })
            };
            let pooled = self.poolings.iter().map(pool).collect::<Result<Vec<_>>>()?;
            Tensor::concat(&pooled.iter().collect::<Vec<_>>(), 1)?
        };
        if !self.normalize {
            return Ok(pooled);
        }
        // The small number keeps a vector of zeros one, and its gradient finite.
        let norms = pooled.mul(&pooled)?.sum_keep(&[1])?.add_scalar(1e-24)?.sqrt()?; // [B, 1]
        Ok(pooled.div(&norms)?)
    }
}
