//! The error type of this crate, and the parts that the error types of the crates above share with it.

use std::fmt;
use std::path::PathBuf;

use crate::dtype::DType;
use crate::watch::{self, NotFinite};

/// Declares a crate's `Result` and its `Error`: one pointer to `$inner`, which holds the details. `$inner` converts
/// from every `$source`, and `ErrorKind` has a variant `Io`.
#[doc(hidden)]
#[macro_export]
macro_rules! boxed_error {
    ($inner:ty, from $($source:ty),+) => {
        /// A `Result` with this crate's [`Error`].
        pub type Result<T, E = Error> = std::result::Result<T, E>;

        /// An error of this crate: a one-line message, and a [kind](Error::kind) to match on.
        pub struct Error(Box<$inner>);

        impl Error {
            /// Returns an error about a file or folder that cannot be read or written. `action` says what failed:
            /// `cannot read`.
            pub fn io(path: impl Into<std::path::PathBuf>, action: &'static str, source: std::io::Error) -> Error {
                ErrorKind::Io { path: path.into(), action, source }.into()
            }
        }

        $(impl From<$source> for Error {
            fn from(source: $source) -> Error {
                Error(Box::new(source.into()))
            }
        })+

        impl std::fmt::Display for Error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Write::write_fmt(&mut $crate::OneLine(f), format_args!("{}", self.0))
            }
        }

        /// The same line as [`Display`](std::fmt::Display), so that a `main` that returns an error prints it readably.
        impl std::fmt::Debug for Error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }

        impl std::error::Error for Error {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                std::error::Error::source(&*self.0)
            }
        }
    };
}

/// Escapes the control characters of what is written to it, and all other ends of lines: names in files may have them, and
/// an error is a line.
#[doc(hidden)]
pub struct OneLine<'f, 'b>(pub &'f mut fmt::Formatter<'b>);

impl fmt::Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let escaped = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        for part in text.split_inclusive(escaped) {
            let mut start = part.chars();
            match start.next_back().filter(|&c| escaped(c)) {
                Some(last) => write!(self.0, "{}{}", start.as_str(), last.escape_debug())?,
                None => self.0.write_str(part)?,
            }
        }
        Ok(())
    }
}

boxed_error!(Located, from ErrorKind);

/// A kind of error and the module that it occurred in.
#[derive(Debug)]
struct Located {
    kind: ErrorKind,
    /// Outermost module first: `bert.encoder.layer.3.attention.self`.
    path: String,
}

/// The kinds of [`Error`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Operands whose shapes do not match.
    #[error("{op}: {reason} ({})", list(operands))]
    Shape {
        /// The operation that was called.
        op: &'static str,
        /// The dimension that does not match.
        reason: String,
        /// The name and the whole shape of each operand.
        operands: Vec<(&'static str, Vec<usize>)>,
    },
    /// An operand of a dtype that the operation does not accept.
    #[error("{op}: {operand} has dtype {found}, expected {expected}")]
    DType {
        /// The operation that was called.
        op: &'static str,
        /// The name of the operand.
        operand: &'static str,
        /// Its dtype.
        found: DType,
        /// The dtypes that the operation accepts.
        expected: String,
    },
    /// An index, id or label that is out of range.
    #[error("{op}: {what} {value} at position {position} is out of range: must be below {limit}")]
    OutOfRange {
        /// The operation that was called.
        op: &'static str,
        /// The meaning of the value: `token id`, `label`, `row index`.
        what: &'static str,
        /// The value.
        value: i64,
        /// Its position in the operand.
        position: usize,
        /// The smallest value that is too large.
        limit: usize,
    },
    /// An invalid argument.
    #[error("{op}: {reason}")]
    Invalid {
        /// The operation that was called.
        op: &'static str,
        /// The argument, its value and the limit.
        reason: String,
    },
    /// A GPU that is missing, out of memory or failing.
    #[error("{op}: {reason}")]
    Device {
        /// The operation that was called.
        op: &'static str,
        /// The cause, and what to do about it.
        reason: String,
    },
    /// Gradients that cannot be computed: nothing requires one, a graph is used twice, a parameter has none.
    #[error("{op}: {reason}")]
    Gradient {
        /// The operation that was called.
        op: &'static str,
        /// The cause.
        reason: String,
    },
    /// A result that is not finite, found by [`check_finite`](crate::check_finite).
    #[error("{op}: the result has {value} at element {position}")]
    NotFinite {
        /// The operation.
        op: &'static str,
        /// NaN or an infinity.
        value: f64,
        /// The index of the first such element in the result.
        position: usize,
    },
    /// A file that cannot be read or written.
    #[error("{}: {action}: {source}", path.display())]
    Io {
        /// The file.
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
}

fn list(operands: &[(&'static str, Vec<usize>)]) -> String {
    operands.iter().map(|(name, shape)| format!("{name}: {shape:?}")).collect::<Vec<_>>().join(", ")
}

impl Error {
    /// Returns the kind of error, to match on.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// Returns the path of the module that the error occurred in (`bert.encoder.layer.3.attention.self`), or an empty
    /// string.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// Returns an error about shapes that do not match.
    pub fn shape(op: &'static str, reason: impl Into<String>, operands: &[(&'static str, &[usize])]) -> Error {
        let operands = operands.iter().map(|&(name, shape)| (name, shape.to_vec())).collect();
        ErrorKind::Shape { op, reason: reason.into(), operands }.into()
    }

    /// Returns an error about an invalid argument. `reason` names the argument, its value and the limit.
    pub fn invalid(op: &'static str, reason: impl Into<String>) -> Error {
        ErrorKind::Invalid { op, reason: reason.into() }.into()
    }

    /// Returns an error about a GPU that cannot do its work.
    pub(crate) fn device(op: &'static str, reason: impl Into<String>) -> Error {
        ErrorKind::Device { op, reason: reason.into() }.into()
    }

    /// Returns an error about gradients that cannot be computed.
    pub fn gradient(op: &'static str, reason: impl Into<String>) -> Error {
        ErrorKind::Gradient { op, reason: reason.into() }.into()
    }

    /// Returns an error about a file with invalid content.
    pub fn format(path: impl Into<PathBuf>, reason: impl Into<String>) -> Error {
        ErrorKind::Format { path: path.into(), reason: reason.into() }.into()
    }
}

impl From<ErrorKind> for Located {
    fn from(kind: ErrorKind) -> Located {
        Located { kind, path: String::new() }
    }
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        self.kind.fmt(f)
    }
}

impl std::error::Error for Located {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.kind.source()
    }
}

impl From<NotFinite> for Error {
    fn from(NotFinite { op, value, position }: NotFinite) -> Error {
        ErrorKind::NotFinite { op, value, position }.into()
    }
}

/// Adds module names to an error on its way up through the model.
///
/// A module calls it on its result: `x.linear(&w, &b).inside("dense")`. The name goes in front of those that modules
/// further in have added.
pub trait Inside: Sized {
    /// Adds the module `name` to the path of the error, if there is one.
    fn inside(self, name: impl fmt::Display) -> Self;
}

impl Inside for Error {
    fn inside(mut self, name: impl fmt::Display) -> Error {
        self.0.path = match self.0.path.as_str() {
            "" => name.to_string(),
            inner => format!("{name}.{inner}"),
        };
        self
    }
}

/// Also turns a result into an error if [`check_finite`](crate::check_finite) has found an operation in the module
/// whose result is not finite.
impl<T, E: Inside + From<Error>> Inside for Result<T, E> {
    fn inside(self, name: impl fmt::Display) -> Result<T, E> {
        let finite = self.and_then(|value| watch::found().map_or(Ok(value), |found| Err(Error::from(found).into())));
        finite.map_err(|error| error.inside(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_line_whatever_the_names_in_files() {
        let error = Error::format("a\u{1b}b", "no column x: the file has a\r\nb, \u{2028}\t, ç");
        assert_eq!(error.to_string(), r"a\u{1b}b: no column x: the file has a\r\nb, \u{2028}\t, ç");
        assert_eq!(format!("{error:?}"), error.to_string());
    }
}
