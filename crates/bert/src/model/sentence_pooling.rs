//! The pooling of a sentence encoder: the hidden states of a sentence become one vector.

use std::path::Path;

use cloze_tensor::{Pooling, Sequences, Tensor};
use serde_json::{Map, Value};

use crate::files::replace;
use crate::folder::Folder;
use crate::side_file::{Kind, SideFile};
use crate::{Batch, Result};

/// The way in which the hidden states of a sentence are combined into one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentencePooling {
    /// The hidden state of `[CLS]`.
    Cls,
    /// The maximum of each column over all tokens.
    Max,
    /// The mean over all tokens, special tokens included.
    Mean,
    /// The sum over all tokens, divided by the square root of their number.
    MeanSqrtLen,
    /// The mean over all tokens, weighted by their positions: 1, 2, 3, ...
    WeightedMean,
    /// The hidden state of the last token, `[SEP]`.
    LastToken,
}

impl SentencePooling {
    /// All values, in the order in which `sentence-transformers` concatenates them.
    pub const ALL: [SentencePooling; 6] = [
        SentencePooling::Cls,
        SentencePooling::Max,
        SentencePooling::Mean,
        SentencePooling::MeanSqrtLen,
        SentencePooling::WeightedMean,
        SentencePooling::LastToken,
    ];

    /// Returns the name in `1_Pooling/config.json`.
    pub fn name(self) -> &'static str {
        match self {
            SentencePooling::Cls => "cls",
            SentencePooling::Max => "max",
            SentencePooling::Mean => "mean",
            SentencePooling::MeanSqrtLen => "mean_sqrt_len_tokens",
            SentencePooling::WeightedMean => "weightedmean",
            SentencePooling::LastToken => "lasttoken",
        }
    }

    /// Returns the flag that older versions use instead of the name.
    fn flag(self) -> &'static str {
        match self {
            SentencePooling::Cls => "pooling_mode_cls_token",
            SentencePooling::Max => "pooling_mode_max_tokens",
            SentencePooling::Mean => "pooling_mode_mean_tokens",
            SentencePooling::MeanSqrtLen => "pooling_mode_mean_sqrt_len_tokens",
            SentencePooling::WeightedMean => "pooling_mode_weightedmean_tokens",
            SentencePooling::LastToken => "pooling_mode_lasttoken",
        }
    }

    /// Combines the hidden states of each sequence, `[T, H]`, into one vector: `[B, H]`.
    fn apply(self, hidden: &Tensor, tokens: &Tokens) -> Result<Tensor> {
        let sequences = &tokens.sequences;
        let column = |values: Vec<f32>| Tensor::from_vec(values.clone(), &[values.len(), 1], &hidden.device());
        Ok(match self {
            SentencePooling::Cls => hidden.gather_rows(sequences.starts())?,
            SentencePooling::Max => hidden.pool(sequences, Pooling::Max)?,
            SentencePooling::Mean => hidden.pool(sequences, Pooling::Mean)?,
            SentencePooling::MeanSqrtLen => {
                let length = |ends: &[u32]| ((ends[1] - ends[0]) as f32).sqrt();
                let lengths = column(sequences.cu_seqlens().windows(2).map(length).collect())?; // [B, 1]
                hidden.pool(sequences, Pooling::Mean)?.mul(&lengths)?
            }
            SentencePooling::WeightedMean => {
                // A mean of L rows divides by L: the weights of a sequence must add up to L.
                let weights = sequences.cu_seqlens().windows(2).flat_map(|ends| {
                    let own = &tokens.positions[ends[0] as usize..ends[1] as usize];
                    let sum: f32 = own.iter().map(|&position| (position + 1) as f32).sum();
                    own.iter().map(move |&position| (position + 1) as f32 * own.len() as f32 / sum)
                });
                hidden.mul(&column(weights.collect())?)?.pool(sequences, Pooling::Mean)?
            }
            SentencePooling::LastToken => {
                let last: Vec<u32> = sequences.cu_seqlens().iter().skip(1).map(|end| end - 1).collect();
                hidden.gather_rows(&last)?
            }
        })
    }
}

/// The tokens that a pooling sees.
struct Tokens {
    sequences: Sequences,
    /// The position of each in its whole sequence.
    positions: Vec<u32>,
}

/// The `Pooling` module of `sentence-transformers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PoolingModule {
    /// The poolings whose vectors are concatenated.
    pub(super) poolings: Vec<SentencePooling>,
    /// Whether the tokens of a prompt are pooled, too.
    pub(super) include_prompt: bool,
}

/// Mean pooling, which `sentence-transformers` uses for a folder without `modules.json`.
impl Default for PoolingModule {
    fn default() -> PoolingModule {
        PoolingModule { poolings: vec![SentencePooling::Mean], include_prompt: true }
    }
}

impl PoolingModule {
    /// Pools the hidden states of a batch, `[T, H]`, without the first `skipped` tokens of each sequence: `[B, D]`.
    pub(super) fn forward(&self, hidden: &Tensor, batch: &Batch, skipped: usize) -> Result<Tensor> {
        let (sequences, positions) = (batch.sequences(), batch.positions());
        let (hidden, tokens) = match skipped {
            0 => (hidden.clone(), Tokens { sequences: sequences.clone(), positions: positions.to_vec() }),
            _ => {
                // The last token always stays, so that there is something to pool.
                let ends = || sequences.cu_seqlens().windows(2);
                let kept = |ends: &[u32]| (ends[0] + skipped as u32).min(ends[1] - 1)..ends[1];
                let rows: Vec<u32> = ends().flat_map(kept).collect();
                let sequences = Sequences::new(&ends().map(|ends| kept(ends).len()).collect::<Vec<_>>())?;
                let positions = rows.iter().map(|&row| positions[row as usize]).collect();
                (hidden.gather_rows(&rows)?, Tokens { sequences, positions })
            }
        };
        let pooled = self.poolings.iter().map(|pooling| pooling.apply(&hidden, &tokens));
        let pooled = pooled.collect::<Result<Vec<_>>>()?;
        Ok(Tensor::concat(&pooled.iter().collect::<Vec<_>>(), 1)?)
    }

    /// Reads the `config.json` in the folder of the module, which belongs to an encoder with this hidden size.
    pub(super) fn read(folder: &Folder, hidden_size: usize) -> Result<PoolingModule> {
        let mut file = SideFile::open(&folder.get("config.json")?, Kind::Pooling)?;
        for name in ["word_embedding_dimension", "embedding_dimension"] {
            file.only(name, &hidden_size.into())?;
        }
        let include_prompt = file.flag("include_prompt")?.unwrap_or(true);
        let must = format!("must be one of {}", SentencePooling::ALL.map(SentencePooling::name).join(", "));
        let named = file.read("pooling_mode", &must, poolings)?;
        let mut flagged = Vec::new();
        for pooling in SentencePooling::ALL {
            if file.flag(pooling.flag())? == Some(true) {
                flagged.push(pooling);
            }
        }
        file.finish()?;
        let poolings = named.unwrap_or(if flagged.is_empty() { PoolingModule::default().poolings } else { flagged });
        Ok(PoolingModule { poolings, include_prompt })
    }

    /// Writes the `config.json` of the module into the folder `dir`, in the form that all versions read.
    pub(super) fn write(&self, dir: &Path, hidden_size: usize) -> Result<()> {
        let mut config = Map::from_iter([("word_embedding_dimension".into(), hidden_size.into())]);
        let in_order = SentencePooling::ALL.into_iter().filter(|pooling| self.poolings.contains(pooling));
        if in_order.eq(self.poolings.iter().copied()) {
            config.extend(SentencePooling::ALL.map(|kind| (kind.flag().into(), self.poolings.contains(&kind).into())));
        } else {
            // Flags have no order. Names do, but only newer versions read them.
            let names: Value = self.poolings.iter().map(|pooling| pooling.name()).collect();
            config.insert("pooling_mode".into(), names);
        }
        config.insert("include_prompt".into(), self.include_prompt.into());
        replace(&dir.join("config.json"), format!("{:#}\n", Value::Object(config)).as_bytes())
    }
}

/// Returns the poolings that a name, or a list of names, stands for.
fn poolings(value: &Value) -> Option<Vec<SentencePooling>> {
    let pooling = |name: &Value| SentencePooling::ALL.into_iter().find(|pooling| name == pooling.name());
    match value {
        Value::Array(names) if !names.is_empty() => names.iter().map(pooling).collect(),
        name => pooling(name).map(|pooling| vec![pooling]),
    }
}
