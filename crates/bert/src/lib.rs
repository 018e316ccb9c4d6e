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
//!
//! # Models by name
//!
//! What opens a folder also takes, with the cargo feature `hub`, the name of a repository of the Hugging Face hub:
//! `bert-base-uncased`, `owner/name`, or `owner/name@revision` for a branch, a tag or a commit. A folder of that name comes
//! first. Each file is downloaded when it is first needed, into the cache of `huggingface_hub`, so that `transformers`
//! finds what was downloaded here, and the other way round. What is in the cache is not asked for again, even if the
//! repository has changed: name the new commit, or remove the repository's folder from the cache. All files of a model
//! are of one commit.
//!
//! These variables of the environment have a say:
//!
//! - `HF_HOME`, `HF_HUB_CACHE` (or `HUGGINGFACE_HUB_CACHE`): the cache is in the folder `HF_HUB_CACHE`, or else in `hub` in
//!   `HF_HOME`, which is `~/.cache/huggingface` if not set.
//! - `HF_TOKEN`: what private and gated repositories ask for; if it is not set, what `hf auth login` stored.
//! - `HF_HUB_OFFLINE=1`: nothing is downloaded, only the cache counts.
//! - `HF_ENDPOINT`: another hub than `https://huggingface.co`. The token is sent to no other address than this.
//! - `HF_HUB_DOWNLOAD_TIMEOUT`: seconds to wait for an answer, or for more of one; 30 if not set.
//! - `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`.

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
pub use checkpoint::{LoadReport, SaveOptions, WEIGHTS_FILE, WEIGHTS_INDEX_FILE};
pub use model::*;
pub use pipelines::*;

pub use config::{BertConfig, ClassifierPooling, HiddenAct, ModelType, ParameterCounts, ProblemType};
pub use error::{Error, ErrorKind, Result};
pub use tokenizer::{EncodeOptions, Encoding, Tokenizer, TokenizerOptions, TrainOptions, Truncation};
pub use weights::{Init, Weights};
