//! Exchanges models with transformers: each opens what the other saves, with the same outputs. These tests run if the
//! environment variable CLOZE_PYTHON names a Python with the packages of `tests/parity/requirements.txt`. Otherwise
//! they print that they are skipped.

mod adapters;
mod cross_encoders;
mod fields;
mod long_texts;
mod models;
mod padding;
mod python;
mod sentences;
mod settings;
mod shards;
mod tokenizers;
mod whole_words;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;
