//! The model, one part per file. Module names mirror the Hugging Face state dict.
//!
//! Shapes: T tokens of a packed batch, B sequences, N heads, D head size, H = N D hidden size, I intermediate size,
//! V vocabulary size, M masked tokens, C labels.
//!
//! # Heads
//!
//! A head is one file. [`token_classification`] is a short one to start from. It has:
//!
//! 1. a struct with the bare model, a [`BertModel`] in the field `bert`, and the parameters of the head, usually a
//!    [`Linear`];
//! 2. [`module!`](cloze_tensor::module) with these fields, named as in the state dict;
//! 3. an implementation of [`PreTrainedModel`]: the class name in `transformers`, and `build`, which creates each field
//!    from `weights.at("name")`, with [`BertModel::with_pooler`] if the head reads a vector per sequence and
//!    [`BertModel::without_pooler`] if it reads the tokens;
//! 4. `forward`, which computes logits from a [`Batch`](crate::Batch). It starts from one of
//!    [`pooled_for_head`](BertModel::pooled_for_head) `[B, H]`, [`tokens_for_head`](BertModel::tokens_for_head)
//!    `[T, H]` and [`forward_rows`](BertModel::forward_rows), and adds the name of its layer to errors with
//!    [`inside`](cloze_tensor::Inside::inside);
//! 5. `loss`, the mean loss of a batch against its labels.
//!
//! The file is listed twice below, as `mod` and as `pub use`. Creating, opening, saving and adapters come with
//! [`PreTrainedModel`]; `cloze_train::Learn` makes the head trainable.

mod activation;
mod attention;
mod bert;
mod embeddings;
mod encoder;
mod layers;
mod lora;
mod lora_config;
mod lora_files;
mod lora_targets;
mod masked_lm;
mod mode;
mod multiple_choice;
mod next_sentence;
mod open;
mod pattern;
mod pre_trained;
mod pre_training;
mod question_answering;
mod rows;
mod sentence_dense;
mod sentence_encoder;
mod sentence_modules;
mod sentence_pooling;
mod sentence_settings;
mod sequence_classification;
mod token_classification;

pub use attention::{AttentionBlock, AttentionOutput, SelfAttention};
pub use bert::{BertModel, Hidden, Pooler};
pub use embeddings::Embeddings;
pub use encoder::{Encoder, Intermediate, Layer, Output};
pub use layers::{Adapter, Embedding, LayerNorm, Linear};
pub use lora::LoraConfig;
pub use masked_lm::{BertForMaskedLM, LmPredictionHead, MaskedLmHead, Transform};
pub use mode::Mode;
pub use multiple_choice::BertForMultipleChoice;
pub use next_sentence::{BertForNextSentencePrediction, NextSentenceHead};
pub use open::OpenOptions;
pub use pre_trained::PreTrainedModel;
pub use pre_training::{BertForPreTraining, PreTrainingHeads, PreTrainingLoss, PreTrainingTargets};
pub use question_answering::BertForQuestionAnswering;
pub use rows::Rows;
pub(crate) use sentence_dense::Activation;
pub use sentence_encoder::SentenceEncoder;
pub(crate) use sentence_modules::lists_only_encoder;
pub use sentence_pooling::SentencePooling;
pub use sentence_settings::SimilarityFunction;
pub(crate) use sentence_settings::{Settings, Task, open_tokenizer};
pub use sequence_classification::{BertForSequenceClassification, SequenceLabels};
pub use token_classification::BertForTokenClassification;
