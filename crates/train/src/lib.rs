//! Training of BERT: corpora, sentence pairs, masking; labelled data for every head; AdamW, the trainer, metrics.

mod class_labels;
mod classification;
pub mod corpus;
mod error;
mod evaluation;
mod files;
mod heads;
mod labelled;
mod length_warmup;
mod masking;
pub mod metrics;
mod optimizer;
mod pairs;
mod pretraining_data;
mod rows;
mod sanitize;
mod schedule;
mod trainer;
mod unigram;

pub use class_labels::label_names;
pub use classification::{ClassificationEvaluation, Classify};
pub use corpus::{Corpus, CorpusFiles, TokenizedCorpus};
pub use error::{Error, ErrorKind, Result};
pub use evaluation::PreTrainingEvaluation;
pub use labelled::{
    AnswerSpan, ChoiceExample, EncodingReport, LabelledBatch, LabelledData, QuestionExample, Sequence, TaggedSentence,
    tag_names,
};
pub use length_warmup::LengthWarmup;
pub use masking::{Masking, Selection, Target, TargetKind, VocabularyTable};
pub use optimizer::{AdamW, Optimizer};
pub use pairs::{ExampleStream, IS_NEXT, NOT_NEXT, PairExample, PairSampler};
pub use pretraining_data::{MaskedExample, PackedExamples, PreTraining};
pub use rows::{Cell, Columns, Row, read_rows};
pub use sanitize::{DropReason, Dropped, DroppedRow, Sanitized, sanitize};
pub use schedule::Schedule;
pub use trainer::{Budget, DataSet, Learn, Step, Trainer, TrainingReport};
pub use unigram::Unigram;
