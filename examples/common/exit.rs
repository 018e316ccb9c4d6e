//! How an example ends.

use std::process::ExitCode;

/// Any error of the library is one line.
pub type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Runs an example. Says an error in its one line, and exits with 1.
pub fn code(run: impl FnOnce() -> Result) -> ExitCode {
    end_with_the_reader();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Ends in silence when whoever reads the output has seen enough of it, as `head` has: `println!` panics then.
fn end_with_the_reader() {
    let other = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload().downcast_ref::<String>().is_some_and(|said| said.contains("Broken pipe")) {
            std::process::exit(0);
        }
        other(panic);
    }));
}
