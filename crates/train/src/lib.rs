//! Training of BERT: corpora, sentence pairs, masking, AdamW, the trainer.

pub mod corpus;
mod error;
mod evaluation;
mod length_warmup;
mod masking;
mod optimizer;
mod pairs;
mod pretraining_data;
mod schedule;
mod trainer;
mod unigram;

pub use corpus::{Corpus, TokenizedCorpus};
pub use error::{Error, ErrorKind, Result};
pub use evaluation::PreTrainingEvaluation;
pub use length_warmup::LengthWarmup;
pub use masking::{Masking, Selection, Target, TargetKind, VocabularyTable};
pub use optimizer::{AdamW, Optimizer};
pub use pairs::{IS_NEXT, NOT_NEXT, PairExample, PairSampler};
pub use pretraining_data::{MaskedExample, PackedExamples, PreTraining};
pub use schedule::Schedule;
pub use trainer::{Budget, DataSet, Learn, Step, Trainer, TrainingReport};
pub use unigram::Unigram;
