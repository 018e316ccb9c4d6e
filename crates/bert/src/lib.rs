//! BERT of cloze: its configuration and its tokenizer.

mod config;
mod error;
mod files;
pub mod tokenizer;

pub use config::{BertConfig, HiddenAct, ParameterCounts};
pub use error::{Error, ErrorKind, Result};
pub use tokenizer::{EncodeOptions, Encoding, Tokenizer, TokenizerOptions, TrainOptions, Truncation};
