//! BERT from scratch in Rust: pre-train it, fine-tune it, ask it.
#![doc = include_str!("../README.md")]

pub use cloze_bert as bert;
pub use cloze_tensor as tensor;
pub use cloze_train as train;

/// What most programs need.
pub mod prelude {
    pub use cloze_bert::{
        Batch, BertConfig, BertForMaskedLM, BertForMultipleChoice, BertForNextSentencePrediction, BertForPreTraining,
        BertForQuestionAnswering, BertForSequenceClassification, BertForTokenClassification, BertModel, EncodeOptions,
        Encoding, FillMask, LoraConfig, Mode, NextSentence, OpenOptions, Pipeline, PreTrainedModel, QuestionAnswering,
        SaveOptions, SentenceEmbedder, SentenceEncoder, SequenceLabels, Similarity, TextClassification,
        TokenClassification, Tokenizer, TokenizerOptions, TrainOptions, Truncation,
    };
    pub use cloze_tensor::{DType, Device, Gradients, Module, Precision, Tensor, no_grad, profile};
    pub use cloze_train::{
        AdamW, ClassificationEvaluation, Columns, Corpus, Evaluation, Every, LabelledData, Masking, PairSampler,
        PreTraining, PreTrainingEvaluation, Schedule, Trainer, Unigram, label_names, read_rows, sanitize,
    };
}
