//! Parsers of argument values, and arguments that mean the same in every example.

use cloze::prelude::*;

use crate::Result;

/// Returns the texts given on the command line, or `default` if there are none.
pub fn texts<'a>(given: &'a [String], default: &[&'a str]) -> Vec<&'a str> {
    if given.is_empty() { default.to_vec() } else { given.iter().map(String::as_str).collect() }
}

/// Parses a finite number above 0.
///
/// # Errors
/// Returns an error if the text is not such a number.
pub fn positive(text: &str) -> std::result::Result<f32, String> {
    let number = text.parse().map_err(|error| format!("{error}"))?;
    if number > 0.0 && f32::is_finite(number) { Ok(number) } else { Err("must be above 0, and finite".into()) }
}

/// Parses a dropout probability that a model accepts.
///
/// # Errors
/// Returns an error if the text is not a number or the model rejects it.
pub fn dropout(text: &str) -> std::result::Result<f64, String> {
    let p = text.parse().map_err(|error| format!("{error}"))?;
    let config = BertConfig { hidden_dropout_prob: p, ..BertConfig::tiny(100) };
    config.validate().map(|()| p).map_err(|error| error.to_string())
}

/// A bound against typing errors, above the core count of any machine.
const MAX_THREADS: usize = 1024;

/// Sets the number of threads of the process, if one is given.
///
/// # Errors
/// Returns an error if the number is out of range, or if the thread pool already exists.
pub fn set_threads(threads: Option<usize>) -> Result {
    if let Some(threads) = threads {
        if !(1..=MAX_THREADS).contains(&threads) {
            return Err(format!("--threads is {threads}: must be from 1 to {MAX_THREADS}").into());
        }
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    Ok(())
}
