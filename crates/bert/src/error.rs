//! What can go wrong, and how it is said.

use std::fmt;
use std::path::{Path, PathBuf};

/// A `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong: one readable line, and a [kind](Error::kind) to match on.
pub struct Error(Box<ErrorKind>);

/// The kinds of [`Error`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file that could not be read or written.
    #[error("{}: {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done: `cannot read`, `cannot write`.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file whose content is not what it should be.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A configuration that describes no model.
    #[error("{}{reason}", prefix(path.as_deref()))]
    Config {
        /// The file it was read from, if it was.
        path: Option<PathBuf>,
        /// The field, its value and the limit.
        reason: String,
    },
    /// A vocabulary that does not serve, a corpus that none can be made of, an id that it does not have.
    #[error("tokenizer: {reason}")]
    Tokenizer {
        /// Why.
        reason: String,
    },
    /// A text of more tokens than there is room for.
    #[error("the text has {tokens} tokens with its special tokens, {limit} fit: shorten it or set a truncation")]
    TooLong {
        /// Its tokens, special tokens included.
        tokens: usize,
        /// How many fit.
        limit: usize,
    },
    /// Sequences that make no batch, or none that the model takes.
    #[error("batch: {reason}")]
    Batch {
        /// The value and the limit.
        reason: String,
    },
    /// A question that cannot be asked, or has no answer.
    #[error("{reason}")]
    Input {
        /// Which text, and why.
        reason: String,
    },
    /// An error of the tensor library.
    #[error(transparent)]
    Tensor(#[from] cloze_tensor::Error),
}

fn prefix(path: Option<&Path>) -> String {
    path.map_or_else(String::new, |path| format!("{}: ", path.display()))
}

impl Error {
    /// What went wrong, to match on.
    pub fn kind(&self) -> &ErrorKind {
        &self.0
    }

    /// What went wrong, taken out of the error.
    pub fn into_kind(self) -> ErrorKind {
        *self.0
    }

    /// A file that could not be read or written.
    pub fn io(path: impl Into<PathBuf>, action: &'static str, source: std::io::Error) -> Error {
        ErrorKind::Io { path: path.into(), action, source }.into()
    }

    /// A file whose content is not what it should be.
    pub fn format(path: impl Into<PathBuf>, reason: impl Into<String>) -> Error {
        ErrorKind::Format { path: path.into(), reason: reason.into() }.into()
    }

    /// A configuration that describes no model. `reason` names the field, its value and the limit.
    pub fn config(reason: impl Into<String>) -> Error {
        ErrorKind::Config { path: None, reason: reason.into() }.into()
    }

    /// Sequences that make no batch. `reason` names the value and the limit.
    pub fn batch(reason: impl Into<String>) -> Error {
        ErrorKind::Batch { reason: reason.into() }.into()
    }

    /// A question that cannot be asked, or has no answer. `reason` says which text, and why.
    pub fn input(reason: impl Into<String>) -> Error {
        ErrorKind::Input { reason: reason.into() }.into()
    }

    /// A vocabulary, corpus or id that does not serve.
    pub fn tokenizer(reason: impl Into<String>) -> Error {
        ErrorKind::Tokenizer { reason: reason.into() }.into()
    }

    /// The same error, said to come from the file `path` when it is about a configuration or a vocabulary.
    pub(crate) fn in_file(self, path: &Path) -> Error {
        match *self.0 {
            ErrorKind::Config { path: None, reason } => ErrorKind::Config { path: Some(path.into()), reason }.into(),
            ErrorKind::Tokenizer { reason } => Error::format(path, reason),
            other => other.into(),
        }
    }
}

/// Adds the module path to an error of the tensor library as it passes through a module.
pub(crate) trait Inside<T> {
    fn inside(self, name: impl fmt::Display) -> Result<T>;
}

impl<T> Inside<T> for Result<T> {
    fn inside(self, name: impl fmt::Display) -> Result<T> {
        let finite = self.and_then(|value| cloze_tensor::found().map_or(Ok(value), |error| Err(error.into())));
        finite.map_err(|error| match *error.0 {
            ErrorKind::Tensor(error) => ErrorKind::Tensor(error.inside(name)).into(),
            other => other.into(),
        })
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Error {
        Error(Box::new(kind))
    }
}

impl From<cloze_tensor::Error> for Error {
    fn from(error: cloze_tensor::Error) -> Error {
        ErrorKind::Tensor(error).into()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_and_a_source() {
        let error = Error::io("a/config.json", "cannot read", std::io::Error::other("disk on fire"));
        assert_eq!(error.to_string(), "a/config.json: cannot read: disk on fire");
        assert!(std::error::Error::source(&error).is_some());
        let error = Error::config("hidden_size is 0: must be at least 1").in_file(Path::new("m/config.json"));
        assert_eq!(error.to_string(), "m/config.json: hidden_size is 0: must be at least 1");
        assert!(matches!(error.kind(), ErrorKind::Config { path: Some(_), .. }));
        let error = Error::from(cloze_tensor::Error::invalid("dropout", "probability 2 is not in [0, 1)"));
        assert_eq!(error.to_string(), "dropout: probability 2 is not in [0, 1)");
    }

    #[test]
    fn crosses_threads() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Error>();
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
