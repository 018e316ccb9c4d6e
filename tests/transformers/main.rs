//! With transformers beside us: what one writes the other opens, and both say the same. These tests run where the
//! environment variable CLOZE_PYTHON names a Python that has the packages of `tests/parity/requirements.txt`; elsewhere
//! they print that they were skipped.

mod adapters;
mod models;
mod python;
mod sentences;
mod tokenizers;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;
