//! BERT of cloze: its configuration and its tokenizer.

mod batch;
mod checkpoint;
mod config;
mod error;
mod files;
mod model;
pub mod tokenizer;
mod weights;

pub use batch::Batch;
pub use checkpoint::{LoadReport, WEIGHTS_FILE};
pub use model::*;

pub use config::{BertConfig, HiddenAct, ParameterCounts};
pub use error::{Error, ErrorKind, Result};
pub use tokenizer::{EncodeOptions, Encoding, Tokenizer, TokenizerOptions, TrainOptions, Truncation};
