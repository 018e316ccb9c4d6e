//! Training of BERT: corpora, sentence pairs, masking.

pub mod corpus;
mod error;
mod masking;
mod pairs;
mod pretraining_data;
mod unigram;

pub use corpus::{Corpus, TokenizedCorpus};
pub use error::{Error, ErrorKind, Result};
pub use masking::{Masking, Selection, Target, TargetKind, VocabularyTable};
pub use pairs::{IS_NEXT, NOT_NEXT, PairExample, PairSampler};
pub use pretraining_data::{MaskedExample, PackedExamples, PreTraining};
pub use unigram::Unigram;
