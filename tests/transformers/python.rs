//! Runs the scripts of this folder.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, Output};

use crate::Result;

pub struct Python {
    program: OsString,
}

impl Python {
    /// Returns the Python named by CLOZE_PYTHON, or prints that `test` is skipped.
    pub fn of(test: &str) -> Option<Python> {
        let program = std::env::var_os("CLOZE_PYTHON").filter(|program| !program.is_empty());
        if program.is_none() {
            eprintln!(
                "SKIPPED {test}: CLOZE_PYTHON is not set to a Python with the packages of \
                 tests/parity/requirements.txt"
            );
        }
        program.map(|program| Python { program })
    }

    /// Runs `script` and returns its output, even if it fails.
    pub fn output<A: AsRef<OsStr>>(&self, script: &str, arguments: &[A]) -> Result<Output> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transformers").join(script);
        let mut command = Command::new(&self.program);
        // `-B` keeps Python from writing a cache into the repository; HF_HUB_OFFLINE prevents downloads.
        command.args(["-B".as_ref(), path.as_os_str()]).args(arguments).env("HF_HUB_OFFLINE", "1");
        let failed = |error| format!("CLOZE_PYTHON: cannot run {}: {error}", self.program.display());
        Ok(command.output().map_err(failed)?)
    }

    /// Runs `script` and prints its output.
    ///
    /// # Errors
    /// Returns an error if the script fails.
    pub fn run<A: AsRef<OsStr>>(&self, script: &str, arguments: &[A]) -> Result {
        let output = self.output(script, arguments)?;
        print!("{}", String::from_utf8_lossy(&output.stdout));
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("{script}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)).into()),
        }
    }
}
