//! The error type of this crate.

use std::fmt;
use std::path::{Path, PathBuf};

use cloze_tensor::Inside;

cloze_tensor::boxed_error!(ErrorKind, from ErrorKind, cloze_tensor::Error);

/// The kinds of [`Error`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file or folder that cannot be read or written.
    #[error("{}: {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The action that failed: `cannot read`, `cannot write`.
        action: &'static str,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A file with invalid content.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The problem, and its place in the file.
        reason: String,
    },
    /// An invalid configuration, or one that does not fit the model.
    #[error("{}{reason}", prefix(path.as_deref()))]
    Config {
        /// The file that the configuration was read from, if any.
        path: Option<PathBuf>,
        /// The field, its value and the limit.
        reason: String,
    },
    /// An invalid vocabulary, a corpus that no vocabulary can be trained on, or an id that is out of range.
    #[error("tokenizer: {reason}")]
    Tokenizer {
        /// The problem.
        reason: String,
    },
    /// A text with more tokens than fit.
    #[error("{}", too_long(*text, *tokens, *limit))]
    TooLong {
        /// The index of the text among those given to a pipeline.
        text: Option<usize>,
        /// The number of tokens, special tokens included.
        tokens: usize,
        /// The number of tokens that fit.
        limit: usize,
    },
    /// Sequences that do not form a valid batch, or do not fit the model.
    #[error("batch: {reason}")]
    Batch {
        /// The value and the limit.
        reason: String,
    },
    /// An input that a pipeline cannot answer.
    #[error("{reason}")]
    Input {
        /// Which text, and why.
        reason: String,
    },
    /// An error of the tensor library.
    #[error(transparent)]
    Tensor(#[from] cloze_tensor::Error),
}

fn too_long(text: Option<usize>, tokens: usize, limit: usize) -> String {
    let (text, way_out) = match text {
        None => ("the text".to_string(), "set a truncation"),
        Some(index) => (format!("text {index}"), "choose to truncate it or to read it in windows"),
    };
    format!("{text} has {tokens} tokens with its special tokens, {limit} fit: shorten it, or {way_out}")
}

fn prefix(path: Option<&Path>) -> String {
    path.map_or_else(String::new, |path| format!("{}: ", path.display()))
}

impl Error {
    /// Returns the kind of error, to match on.
    pub fn kind(&self) -> &ErrorKind {
        &self.0
    }

    /// Returns an error about a file with invalid content.
    pub fn format(path: impl Into<PathBuf>, reason: impl Into<String>) -> Error {
        ErrorKind::Format { path: path.into(), reason: reason.into() }.into()
    }

    /// Returns an error about an invalid configuration. `reason` names the field, its value and the limit.
    pub fn config(reason: impl Into<String>) -> Error {
        ErrorKind::Config { path: None, reason: reason.into() }.into()
    }

    /// Returns an error about an invalid batch. `reason` names the value and the limit.
    pub fn batch(reason: impl Into<String>) -> Error {
        ErrorKind::Batch { reason: reason.into() }.into()
    }

    /// Returns an error about an input that a pipeline cannot answer. `reason` says which text, and why.
    pub fn input(reason: impl Into<String>) -> Error {
        ErrorKind::Input { reason: reason.into() }.into()
    }

    /// Returns an error about an invalid vocabulary, corpus or id.
    pub fn tokenizer(reason: impl Into<String>) -> Error {
        ErrorKind::Tokenizer { reason: reason.into() }.into()
    }

    /// Adds the index of a text to an error about it.
    pub(crate) fn in_text(self, index: usize) -> Error {
        match *self.0 {
            ErrorKind::TooLong { tokens, limit, .. } => ErrorKind::TooLong { text: Some(index), tokens, limit }.into(),
            ErrorKind::Input { reason } => Error::input(format!("text {index}: {reason}")),
            other => other.into(),
        }
    }

    /// Adds the file `path` to an error about a configuration or a vocabulary.
    pub(crate) fn in_file(self, path: &Path) -> Error {
        match *self.0 {
            ErrorKind::Config { path: None, reason } => ErrorKind::Config { path: Some(path.into()), reason }.into(),
            ErrorKind::Tokenizer { reason } => Error::format(path, reason),
            other => other.into(),
        }
    }
}

/// Errors of the tensor library carry the module path; the others name the field or the file that they are about.
impl Inside for Error {
    fn inside(self, name: impl fmt::Display) -> Error {
        match *self.0 {
            ErrorKind::Tensor(error) => error.inside(name).into(),
            other => other.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_one_line_with_a_source() {
        let error = Error::io("a/config.json", "cannot read", std::io::Error::other("disk on fire"));
        assert_eq!(error.to_string(), "a/config.json: cannot read: disk on fire");
        assert!(std::error::Error::source(&error).is_some());
        let error = Error::config("hidden_size is 0: must be at least 1").in_file(Path::new("m/config.json"));
        assert_eq!(error.to_string(), "m/config.json: hidden_size is 0: must be at least 1");
        assert!(matches!(error.kind(), ErrorKind::Config { path: Some(_), .. }));
        let error = Error::from(cloze_tensor::Error::invalid("dropout", "probability 2 is not in [0, 1)"));
        assert_eq!(error.to_string(), "dropout: probability 2 is not in [0, 1)");
        assert_eq!(
            error.inside("self").inside("layer.3").to_string(),
            "layer.3.self: dropout: probability 2 is not in [0, 1)"
        );
    }

    #[test]
    fn errors_cross_threads_and_are_one_pointer() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Error>();
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
