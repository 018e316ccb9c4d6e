//! How an example ends.

use std::process::ExitCode;

/// Any error of the library is one line.
pub type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Says an error in its one line, and exits with 1.
pub fn code(result: Result) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
