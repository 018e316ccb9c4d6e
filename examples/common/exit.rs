//! How an example ends.

use std::io::Write;
use std::process::ExitCode;

/// Any error of the library is one line.
pub type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What shells call a process that SIGPIPE ended.
const BROKEN_PIPE: i32 = 128 + 13;

/// Runs an example. Says an error in its one line, and exits with 1.
pub fn code(run: impl FnOnce() -> Result) -> ExitCode {
    end_with_the_output();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Ends when what is printed cannot be written, for which `println!` panics: in silence where whoever reads it has seen
/// enough, as `head` has, else with an error. Not with 0, for there may have been more to do.
fn end_with_the_output() {
    let other = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| match panic.payload().downcast_ref::<String>() {
        Some(said) if said.starts_with("failed printing to std") => {
            if said.contains("Broken pipe") {
                std::process::exit(BROKEN_PIPE);
            }
            // The stream for errors may be the one that failed.
            let _ = writeln!(std::io::stderr(), "error: {said}");
            std::process::exit(1);
        }
        _ => other(panic),
    }));
}
