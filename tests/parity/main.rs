//! Compares the library with transformers: with fixtures that `generate.py` computed in f64 with PyTorch, and with
//! those of its tokenizers. `models.py`, `heads.py` and `wordpiece.py` describe the files.
//!
//! With `-- --nocapture` the tests print their distance from each fixture.

mod encoder;
mod fixture;
mod heads;
mod pre_training;
mod tokenizer;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;
