//! BERT from scratch in Rust: pre-training, fine-tuning and inference.
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub use cloze_bert as bert;
pub use cloze_tensor as tensor;
pub use cloze_train as train;

/// The types that most programs need.
pub mod prelude {
    pub use cloze_bert::{
        Batch, BertConfig, BertForMaskedLM, BertForMultipleChoice, BertForNextSentencePrediction, BertForPreTraining,
        BertForQuestionAnswering, BertForSequenceClassification, BertForTokenClassification, BertModel, CrossEncoder,
        EncodeOptions, Encoding, FillMask, Index, LoadReport, LongText, LoraConfig, Mode, NextSentence, OpenOptions,
        Pipeline, PreTrainedModel, ProblemType, QuestionAnswering, Reported, SaveOptions, SentenceEmbedder,
        SentenceEncoder, SequenceLabels, Similarity, TextClassification, TokenClassification, Tokenizer,
        TokenizerOptions, TrainOptions, Truncation,
    };
    pub use cloze_tensor::{
        DType, Device, Gradients, Module, Precision, Tensor, check_gradients, custom_op, no_grad, profile,
    };
    pub use cloze_train::{
        AdamW, BatchRamp, ClassificationEvaluation, Columns, Corpus, Evaluation, Every, LabelledData, Masking,
        MaskingRate, MaskingUnit, MultiLabelEvaluation, PairSampler, PreTraining, PreTrainingEvaluation, Schedule,
        Trainer, Unigram, balanced_class_weights, label_names, read_rows, sanitize, split_by_class,
    };
}

/// The code blocks of the book, as doctests.
#[cfg(doctest)]
mod book {
    macro_rules! chapters {
        ($($name:ident: $path:literal,)*) => {
            $(#[doc = include_str!(concat!("../docs/src/", $path))] mod $name {})*
        };
    }
    chapters! {
        introduction: "README.md",
        getting_started: "getting-started.md",
        course: "course.md",
        curso_arquitetura: "curso/5-1-arquitetura.md",
        curso_objetivos: "curso/5-2-objetivos.md",
        curso_embeddings: "curso/5-3-embeddings.md",
        curso_pre_treinamento: "curso/5-4-pre-treinamento.md",
        curso_cls: "curso/5-5-cls.md",
        curso_classificacao: "curso/5-6-classificacao.md",
        curso_perguntas: "curso/5-7-perguntas.md",
        fine_tune: "how-to/fine-tune.md",
        pre_train: "how-to/pre-train.md",
        prepare_a_corpus: "how-to/prepare-a-corpus.md",
        embed_and_search: "how-to/embed-and-search.md",
        rerank: "how-to/rerank.md",
        long_texts: "how-to/long-texts.md",
        threads: "how-to/threads.md",
        choose_a_precision: "how-to/precision.md",
        gpu: "how-to/gpu.md",
        several_machines: "how-to/several-machines.md",
        packed_sequences: "concepts/packed-sequences.md",
        autograd: "concepts/autograd.md",
        arenas: "concepts/arenas.md",
        randomness: "concepts/randomness.md",
        precision: "concepts/precision.md",
        architecture: "architecture.md",
        decisions: "decisions.md",
        cpu_benchmarks: "benchmarks/cpu.md",
        gpu_benchmarks: "benchmarks/gpu.md",
        performance: "benchmarks/performance.md",
        build: "benchmarks/build.md",
        results: "results.md",
        scaling: "scaling.md",
        memory: "reliability/memory.md",
        fuzzing: "reliability/fuzzing.md",
        contributing: "../../CONTRIBUTING.md",
    }
}
