//! What can go wrong, and how it is said.

use std::fmt;
use std::path::PathBuf;

/// A `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong: one readable line, and a [kind](Error::kind) to match on.
pub struct Error(Box<ErrorKind>);

/// The kinds of [`Error`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file or folder that could not be read or written.
    #[error("{}: {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done: `cannot read`, `cannot write`.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A text file that is not UTF-8.
    #[error("{}: not UTF-8: the byte at offset {offset} cannot stand there; convert the file first", path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
        /// Offset, from the file's beginning, of the first byte that is not part of a character.
        offset: usize,
    },
    /// Data that cannot be used.
    #[error("{}{what}: {why}", place(path, line))]
    Data {
        /// What was looked at: `corpus`, `targets`.
        what: &'static str,
        /// What is wrong with it.
        why: String,
        /// The file or folder it came from, where known.
        path: Option<PathBuf>,
        /// The line, from 1, where known.
        line: Option<usize>,
    },
    /// A setting that makes no sense.
    #[error("{setting} is {value}, must be {limit}")]
    Invalid {
        /// The setting's name.
        setting: &'static str,
        /// What it was set to.
        value: String,
        /// What would do.
        limit: String,
    },
    /// An error of the tensor library.
    #[error(transparent)]
    Tensor(#[from] cloze_tensor::Error),
    /// An error of the model or tokenizer.
    #[error(transparent)]
    Bert(#[from] cloze_bert::Error),
}

fn place(path: &Option<PathBuf>, line: &Option<usize>) -> String {
    match (path, line) {
        (Some(path), Some(line)) => format!("{}:{line}: ", path.display()),
        (Some(path), None) => format!("{}: ", path.display()),
        (None, Some(line)) => format!("line {line}: "),
        (None, None) => String::new(),
    }
}

impl Error {
    /// What went wrong, to match on.
    pub fn kind(&self) -> &ErrorKind {
        &self.0
    }

    /// A file or folder that could not be read or written.
    pub fn io(path: impl Into<PathBuf>, action: &'static str, source: std::io::Error) -> Error {
        ErrorKind::Io { path: path.into(), action, source }.into()
    }

    /// Data, from no file in particular, that cannot be used.
    pub fn data(what: &'static str, why: impl Into<String>) -> Error {
        ErrorKind::Data { what, why: why.into(), path: None, line: None }.into()
    }

    /// Data of a file or folder that cannot be used.
    pub fn data_in(path: impl Into<PathBuf>, what: &'static str, why: impl Into<String>) -> Error {
        ErrorKind::Data { what, why: why.into(), path: Some(path.into()), line: None }.into()
    }

    /// The same error, with something more to know where it is one of data.
    pub(crate) fn with_note(mut self, note: impl fmt::Display) -> Error {
        if let ErrorKind::Data { why, .. } = &mut *self.0 {
            why.push_str(&format!("; {note}"));
        }
        self
    }

    /// A setting that makes no sense.
    pub fn invalid(setting: &'static str, value: impl fmt::Display, limit: impl Into<String>) -> Error {
        ErrorKind::Invalid { setting, value: value.to_string(), limit: limit.into() }.into()
    }
}

impl<E: Into<ErrorKind>> From<E> for Error {
    fn from(kind: E) -> Error {
        Error(Box::new(kind.into()))
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
        std::error::Error::source(self.kind())
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn says_one_line_with_place_and_source() {
        let error = Error::io("a/b.txt", "cannot read", std::io::Error::other("disk on fire"));
        assert_eq!(error.to_string(), "a/b.txt: cannot read: disk on fire");
        assert_eq!(error.source().map(|source| source.to_string()).as_deref(), Some("disk on fire"));

        let kind = ErrorKind::Data { what: "corpus", why: "odd".into(), path: Some("c.txt".into()), line: Some(3) };
        assert_eq!(Error::from(kind).to_string(), "c.txt:3: corpus: odd");
        assert_eq!(Error::data("corpus", "is empty").to_string(), "corpus: is empty");
        assert_eq!(Error::invalid("seq_len", 4, "at least 5").to_string(), "seq_len is 4, must be at least 5");
    }

    #[test]
    fn errors_of_the_tensor_library_pass_through() {
        let error: Error = cloze_tensor::Error::invalid("dropout", "why").into();
        assert_eq!(error.to_string(), "dropout: why");
        assert!(matches!(error.kind(), ErrorKind::Tensor(_)));
    }
}
