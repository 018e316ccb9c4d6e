//! Installs the peers: a Python environment with the packages of `requirements.txt`, and the program that uses candle.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Returns the folder of this package.
fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command. If it fails, the error contains its last message.
fn run(command: &mut Command, what: &str) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("{what}: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    let wrong = messages.lines().find(|line| line.to_lowercase().starts_with("error"));
    let last = wrong.or_else(|| messages.lines().rfind(|line| !line.trim().is_empty())).unwrap_or("no message");
    Err(format!("{what} failed: {last}"))
}

/// Creates a Python environment in `folder` and installs the packages. A package that cannot be installed is skipped;
/// its contestant then reports that it is missing.
///
/// # Errors
/// Returns an error if there is no Python.
pub fn python(folder: &Path) -> Result<PathBuf, String> {
    let folder = folder.join("python");
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    if !python.is_file() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder), "python3 -m venv")?;
    }
    let requirements = std::fs::read_to_string(here().join("requirements.txt")).map_err(|error| error.to_string())?;
    for requirement in requirements.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        eprintln!("pip install {requirement}");
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement];
        if let Err(why) = run(Command::new(&python).args(install), requirement) {
            eprintln!("  {why}");
        }
    }
    Ok(python)
}

/// Builds the program that uses candle into `folder`, and returns its path.
///
/// # Errors
/// Returns an error if it cannot be built.
pub fn candle(folder: &Path) -> Result<PathBuf, String> {
    let target = folder.join("candle");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--locked", "--manifest-path"]).arg(here().join("candle/Cargo.toml"));
    eprintln!("building the program that uses candle");
    run(command.arg("--target-dir").arg(&target), "cargo build of the program that uses candle")?;
    Ok(target.join("release").join(format!("candle-peer{}", std::env::consts::EXE_SUFFIX)))
}
