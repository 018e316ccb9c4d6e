//! Training for BERT: corpora, sentence pairs and masking; labelled data for every head; AdamW, the trainer and metrics.

#![deny(unsafe_code)]

mod class_labels;
mod classification;
pub mod communicator;
mod conll;
pub mod corpus;
mod error;
mod evaluation;
mod expansion;
mod files;
mod guard;
mod heads;
mod labelled;
mod length_warmup;
mod masking;
mod memory;
pub mod metrics;
mod multi_label;
mod optimizer;
mod pairs;
pub mod plot;
mod pretraining_batch;
mod pretraining_data;
pub mod projection;
mod question_evaluation;
mod regression;
mod report;
mod rows;
mod run_log;
mod sanitize;
pub mod scaling;
mod schedule;
mod sentence_losses;
mod split;
mod squad;
mod token_evaluation;
mod trainer;
mod unigram;

pub use class_labels::{label_names, multi_label_names};
pub use classification::{ClassificationEvaluation, Classify};
pub use cloze_bert::tags::TagScheme;
pub use conll::{ConllFormat, ConllReport, read_conll};
pub use corpus::{
    CacheTrim, Corpus, CorpusFiles, CorpusStatistics, DroppedTexts, LengthStatistics, ShardOptions, Shards,
    TokenizedCorpus, trim_cache,
};
pub use error::{Error, ErrorKind, Result};
pub use evaluation::PreTrainingEvaluation;
pub use labelled::{
    AnswerSpan, ChoiceExample, ClassLabel, EncodingReport, LabelledBatch, LabelledData, QuestionExample, Sequence,
    TaggedSentence, balanced_class_weights, tag_names,
};
pub use length_warmup::LengthWarmup;
pub use masking::{Masking, MaskingRate, MaskingUnit, Selection, Target, TargetKind, VocabularyTable};
pub use memory::RankMemory;
pub use multi_label::MultiLabelEvaluation;
pub use optimizer::{AdamW, Optimizer, ParameterGroup, Waits};
pub use pairs::{ExampleStream, IS_NEXT, NOT_NEXT, PairExample, PairSampler};
pub use pretraining_batch::{MaskedExample, PreTrainingBatch};
pub use pretraining_data::PreTraining;
pub use question_evaluation::QuestionAnsweringEvaluation;
pub use regression::{Regress, RegressionEvaluation};
pub use report::{Machine, RunReport};
pub use rows::{Cell, Columns, Row, RowStream, declared_label_names, read_rows, stream_rows};
pub use run_log::{EvaluationRecord, RunLog, RunRecord, StepRecord};
pub use sanitize::{
    BadRows, DropReason, Dropped, DroppedRow, Sanitized, sanitize, sanitize_multi_label, sanitize_scores,
};
pub use schedule::Schedule;
pub use split::{split_by_class, split_by_group, split_rows};
pub use squad::{Squad, SquadExample, read_squad};
pub use token_evaluation::TokenClassificationEvaluation;
pub use trainer::{
    BatchRamp, Budget, DataSet, Evaluation, Every, Learn, LossTerm, Resumed, Size, Step, Stopped, Trainer,
    TrainingReport,
};
pub use unigram::Unigram;
