//! The model, part by part. Module names mirror the Hugging Face state dict.
//!
//! Shapes: T tokens of a packed batch, B sequences, N heads, D head size, H = N D hidden size, I
//! intermediate size, V vocabulary, M masked tokens.

mod attention;
mod bert;
mod embeddings;
mod encoder;
mod layers;
mod mode;
mod pre_training;
mod rows;

pub use attention::{Attention, AttentionOutput, SelfAttention};
pub use bert::{BertModel, Hidden, Pooler};
pub use embeddings::Embeddings;
pub use encoder::{Encoder, Intermediate, Layer, Output};
pub use layers::{Embedding, LayerNorm, Linear};
pub use mode::Mode;
pub use pre_training::{
    BertForPreTraining, LmPredictionHead, PreTrainingHeads, PreTrainingLoss, PreTrainingTargets, Transform,
};
pub use rows::Rows;
