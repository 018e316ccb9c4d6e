//! The library against transformers: fixtures that `generate.py` computed in f64 with PyTorch, and those of its
//! tokenizers. `models.py`, `heads.py` and `wordpiece.py` say what the files hold.
//!
//! With `-- --nocapture` the tests print how far they are from each fixture.

mod encoder;
mod fixture;
mod heads;
mod pre_training;
mod tokenizer;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;
