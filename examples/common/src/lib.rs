//! Shared by the examples: command-line arguments, plain-text tables, built-in data, and the fine-tuning loop.
//!
//! An example reads best from top to bottom, so this crate holds only what several of them would repeat.

#![forbid(unsafe_code)]

mod arguments;
pub mod built_in;
mod exit;
mod held_out;
mod loss;
mod model;
mod output;
mod pairs;
mod picture;
mod ranks;
mod reviews;
mod table;
mod training;
mod vocabulary;

pub use arguments::{dropout, positive, set_threads, texts};
pub use exit::{Result, exit_code, program};
pub use held_out::{HELD_OUT, HeldOutArgument};
pub use loss::ClassLossArguments;
pub use model::{DeviceArgument, ModelArgument, tiny_model};
pub use output::{check_folder, check_json, print_remarks, print_report, write_file, write_json};
pub use pairs::{Pairs, PairsArgument};
pub use picture::{PictureArgument, is_svg, new_page, remove_empty};
pub use ranks::{RankArguments, parse, ranks};
pub use reviews::{LabelledTexts, Rows, TextsArgument, rows, say_decimal_commas};
pub use table::{Table, thousands};
pub use training::{Epoch, Recipe, TrainingArguments, describe_dropout};
pub use vocabulary::VocabularyArguments;
