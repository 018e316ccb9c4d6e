//! BERT of [cloze](https://docs.rs/cloze): configuration, tokenizer, model, checkpoints.
//!
//! - [`Tokenizer`]: WordPiece, trained here or read from a model folder.
//! - [`BertConfig`]: Hugging Face's `config.json`.
//! - [`BertForPreTraining`]: the model with both pre-training heads; [`BertModel`] without.
//! - [`Batch`]: packed sequences. Only real tokens enter the model; there is no padding and no mask.
//! - [`FillMask`]: ask a model.

mod ask;
mod batch;
mod checkpoint;
mod config;
mod error;
mod files;
mod folder;
mod model;
pub mod tokenizer;
mod weights;

pub use ask::{FillMask, Guess};
pub use batch::Batch;
pub use checkpoint::{LoadReport, WEIGHTS_FILE, WEIGHTS_INDEX_FILE};
pub use model::*;

pub use config::{BertConfig, HiddenAct, ModelType, ParameterCounts};
pub use error::{Error, ErrorKind, Result};
pub use tokenizer::{EncodeOptions, Encoding, Tokenizer, TokenizerOptions, TrainOptions, Truncation};
pub use weights::{Init, Weights};
