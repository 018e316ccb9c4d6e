//! Pipelines: text in, answers out.
//!
//! A pipeline is a model with its tokenizer. All pipelines are opened in the same way ([`Pipeline`]), accept many texts
//! per call, and can be shared between threads.

mod answers;
mod cross_encoder;
mod fill_mask;
mod long_text;
mod next_sentence;
mod output;
mod pipeline;
mod quantized;
mod question_answering;
mod runner;
mod score_function;
mod sentence_embedder;
mod similarity;
pub mod spans;
mod text_classification;
mod token_classification;

pub use cross_encoder::CrossEncoder;
pub use fill_mask::{FillMask, FilledMask, Guess};
pub use long_text::{LongText, LongTextReport, Reported};
pub use next_sentence::NextSentence;
pub use pipeline::Pipeline;
pub use quantized::{Int8Ranges, to_bits};
pub use question_answering::{Answer, QuestionAnswering};
pub use sentence_embedder::SentenceEmbedder;
pub use similarity::{Similarity, cosine_similarity};
pub use text_classification::{Classification, TextClassification};
pub use token_classification::{Aggregation, Entity, LabelledWord, TokenClassification};
