//! The model, part by part. Module names mirror the Hugging Face state dict.
//!
//! Shapes: T tokens of a packed batch, B sequences, N heads, D head size, H = N D hidden size, I
//! intermediate size, V vocabulary, M masked tokens.

mod attention;
mod bert;
mod embeddings;
mod encoder;
mod layers;
mod lora;
mod masked_lm;
mod mode;
mod multiple_choice;
mod next_sentence;
mod pre_trained;
mod pre_training;
mod question_answering;
mod rows;
mod sentence_encoder;
mod sentence_modules;
mod sequence_classification;
mod token_classification;

pub use attention::{Attention, AttentionOutput, SelfAttention};
pub use bert::{BertModel, Hidden, Pooler};
pub use embeddings::Embeddings;
pub use encoder::{Encoder, Intermediate, Layer, Output};
pub use layers::{Embedding, LayerNorm, Linear};
pub(crate) use lora::check_merged;
pub use lora::{Adapter, LoraConfig};
pub use masked_lm::{BertForMaskedLM, LmPredictionHead, MaskedLmHead, Transform};
pub use mode::Mode;
pub use multiple_choice::BertForMultipleChoice;
pub use next_sentence::{BertForNextSentencePrediction, NextSentenceHead};
pub use pre_trained::{OpenOptions, PreTrainedModel, SaveOptions};
pub use pre_training::{BertForPreTraining, PreTrainingHeads, PreTrainingLoss, PreTrainingTargets};
pub use question_answering::BertForQuestionAnswering;
pub use rows::Rows;
pub use sentence_encoder::SentenceEncoder;
pub use sentence_modules::SentencePooling;
pub use sequence_classification::{BertForSequenceClassification, SequenceLabels};
pub use token_classification::BertForTokenClassification;
