//! BERT of [cloze](https://docs.rs/cloze): configuration, tokenizer, model, checkpoints.
//!
//! - [`Tokenizer`]: WordPiece, trained here or read from a model folder.
//! - [`BertConfig`]: Hugging Face's `config.json`.
//! - [`PreTrainedModel`]: how every model is built, opened and saved: [`BertModel`] without a head, and with one
//!   [`BertForPreTraining`], [`BertForMaskedLM`], [`BertForNextSentencePrediction`],
//!   [`BertForSequenceClassification`], [`BertForTokenClassification`], [`BertForQuestionAnswering`],
//!   [`BertForMultipleChoice`]; [`SentenceEncoder`] for vectors of sentences.
//! - [`Batch`]: packed sequences. Only real tokens enter the model; there is no padding and no mask.
//! - [`Pipeline`]: ask a model, text in, answers out: [`FillMask`], [`NextSentence`], [`TextClassification`],
//!   [`TokenClassification`], [`QuestionAnswering`], [`SentenceEmbedder`], [`Similarity`].

mod batch;
mod checkpoint;
mod config;
mod error;
mod files;
mod folder;
mod model;
mod pipelines;
pub mod tokenizer;
mod weights;

pub use batch::Batch;
pub use checkpoint::{LoadReport, WEIGHTS_FILE, WEIGHTS_INDEX_FILE};
pub use model::*;
pub use pipelines::*;

pub use config::{BertConfig, HiddenAct, ModelType, ParameterCounts, ProblemType};
pub use error::{Error, ErrorKind, Result};
pub use tokenizer::{EncodeOptions, Encoding, Tokenizer, TokenizerOptions, TrainOptions, Truncation};
pub use weights::{Init, Weights};
