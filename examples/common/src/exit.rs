//! How an example starts and ends.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The result of an example: any error ends it with one line.
pub type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The exit status that shells report for a process ended by SIGPIPE.
const BROKEN_PIPE: i32 = 128 + 13;

/// Runs an example. An error is printed in one line on standard error, and the exit status is then 1.
pub fn exit_code(run: impl FnOnce() -> Result) -> ExitCode {
    exit_when_printing_fails();
    match run() {
        Ok(()) => {
            crate::ranks::leave();
            ExitCode::SUCCESS
        }
        Err(error) => {
            crate::ranks::fail(&*error);
            ExitCode::FAILURE
        }
    }
}

/// Ends the process when standard output cannot be written, which makes `println!` panic: silently if the reader has
/// closed the pipe, as `head` does, and with an error line otherwise. The exit status is never 0, because work may be
/// left.
fn exit_when_printing_fails() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| match panic.payload().downcast_ref::<String>() {
        Some(message) if message.starts_with("failed printing to std") => {
            if message.contains("Broken pipe") {
                std::process::exit(BROKEN_PIPE);
            }
            // Standard error may be the stream that failed, so `eprintln!` could panic again.
            let _ = writeln!(std::io::stderr(), "error: {message}");
            std::process::exit(1);
        }
        _ => default(panic),
    }));
}

/// Returns the path of a compiled example, for the tests that run it: `cargo test` builds examples next to the tests.
///
/// # Errors
/// Returns an error if this program is not in a target folder.
pub fn program(example: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let target = test.parent().and_then(Path::parent).ok_or("this program is not in a target folder")?;
    Ok(target.join("examples").join(format!("{example}{}", std::env::consts::EXE_SUFFIX)))
}
