//! Getting the peers: a Python with the packages of `requirements.txt`, and candle's program.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// This folder.
fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command to its end; what it says last is its error.
fn done(command: &mut Command, what: &str) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("{what}: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let wrong = said.lines().find(|line| line.to_lowercase().starts_with("error"));
    let last = wrong.or_else(|| said.lines().rfind(|line| !line.trim().is_empty())).unwrap_or("no message");
    Err(format!("{what} failed: {last}"))
}

/// A Python of our own in `folder`, with what can be installed. A contestant whose packages are missing says so.
///
/// # Errors
/// When there is no Python.
pub fn python(folder: &Path) -> Result<PathBuf, String> {
    let folder = folder.join("python");
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    if !python.is_file() {
        done(Command::new("python3").args(["-m", "venv"]).arg(&folder), "python3 -m venv")?;
    }
    let requirements = std::fs::read_to_string(here().join("requirements.txt")).map_err(|error| error.to_string())?;
    for requirement in requirements.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        eprintln!("pip install {requirement}");
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement];
        if let Err(why) = done(Command::new(&python).args(install), requirement) {
            eprintln!("  {why}");
        }
    }
    Ok(python)
}

/// candle's program, built into `folder`.
///
/// # Errors
/// When it cannot be built.
pub fn candle(folder: &Path) -> Result<PathBuf, String> {
    let target = folder.join("candle");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--locked", "--manifest-path"]).arg(here().join("candle/Cargo.toml"));
    eprintln!("building candle's program");
    done(command.arg("--target-dir").arg(&target), "cargo build of candle's program")?;
    Ok(target.join("release").join(format!("candle-peer{}", std::env::consts::EXE_SUFFIX)))
}
