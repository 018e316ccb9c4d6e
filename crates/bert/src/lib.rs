//! BERT for [cloze](https://docs.rs/cloze): configuration, tokenizer, models, checkpoints, pipelines.
//!
//! - [`Tokenizer`]: a WordPiece tokenizer, trained or opened from a model folder.
//! - [`BertConfig`]: the configuration, Hugging Face's `config.json`.
//! - [`PreTrainedModel`]: creates, opens and saves every model: [`BertModel`] without a head, [`BertForPreTraining`],
//!   [`BertForMaskedLM`], [`BertForNextSentencePrediction`], [`BertForSequenceClassification`],
//!   [`BertForTokenClassification`], [`BertForQuestionAnswering`], [`BertForMultipleChoice`], and [`SentenceEncoder`]
//!   for sentence embeddings.
//! - [`Batch`]: packed sequences. Models only see real tokens; there is no padding and no mask.
//! - [`Pipeline`]: text in, answers out: [`FillMask`], [`NextSentence`], [`TextClassification`],
//!   [`TokenClassification`], [`QuestionAnswering`], [`SentenceEmbedder`], [`Similarity`], [`CrossEncoder`].
//!   Texts that are too long are cut, refused or read in windows ([`LongText`]), and [`Reported`].
//! - [`Index`]: the vectors that are nearest to another.
//! - [`tags`]: the tags of words, such as `B-PER`, in every scheme and notation, and the spans that they form.
//!
//! # Models by name
//!
//! With the cargo feature `hub`, every function that opens a folder also accepts the name of a repository on the
//! Hugging Face hub: `bert-base-uncased`, `owner/name`, or `owner/name@revision` for a branch, tag or commit. A folder
//! of the same name takes precedence. Files are downloaded when they are first needed, into the cache of
//! `huggingface_hub`, which `transformers` shares. All files of a model come from one commit. Cached files are not
//! requested again, even if the repository has changed: name the new commit, or remove the repository from the cache.
//!
//! These environment variables apply:
//!
//! - `HF_HOME`, `HF_HUB_CACHE` (or `HUGGINGFACE_HUB_CACHE`): the cache is the folder `HF_HUB_CACHE`, or else `hub` in
//!   `HF_HOME`, which is `~/.cache/huggingface` by default.
//! - `HF_TOKEN`: the token for private and gated repositories, by default the one that `hf auth login` stored.
//! - `HF_HUB_OFFLINE=1`, or `TRANSFORMERS_OFFLINE=1`: uses only the cache.
//! - `HF_ENDPOINT`: the address of the hub, `https://huggingface.co` by default. The token is sent to no other address.
//! - `HF_HUB_DOWNLOAD_TIMEOUT`: the time in seconds to wait for an answer or for more data, 30 by default.
//! - `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`: the proxy.

#![forbid(unsafe_code)]

mod batch;
mod characters;
mod checkpoint;
mod config;
mod error;
mod files;
mod folder;
mod index;
mod model;
mod pipelines;
mod room;
mod side_file;
pub mod tags;
pub mod tokenizer;
mod weights;

pub use batch::Batch;
pub use checkpoint::{LoadReport, SaveOptions, WEIGHTS_FILE, WEIGHTS_INDEX_FILE};
pub use index::Index;
pub use model::*;
pub use pipelines::*;

pub use config::{BertConfig, ClassifierPooling, HiddenAct, Labels, ModelType, ParameterCounts, ProblemType};
pub use error::{Error, ErrorKind, Result};
pub use tokenizer::{EncodeOptions, Encoding, Tokenizer, TokenizerOptions, TrainOptions, Truncation, Windows};
pub use weights::{Init, Weights};
