//! The settings of the hub: the environment variables of `huggingface_hub`.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

pub(super) struct Environment {
    /// The address of the hub.
    pub(super) endpoint: String,
    /// The folder of downloaded repositories.
    pub(super) cache: PathBuf,
    pub(super) token: Option<String>,
    /// The variable that forbids the use of the network, if one does.
    pub(super) offline: Option<&'static str>,
    /// The time to wait for an answer, or for more data.
    pub(super) patience: Duration,
}

impl Environment {
    /// Reads `HF_ENDPOINT`; `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE` or `hub` in `HF_HOME`; `HF_TOKEN` or the file that
    /// `hf auth login` writes; `HF_HUB_OFFLINE` or, where it is not set, `TRANSFORMERS_OFFLINE`; and
    /// `HF_HUB_DOWNLOAD_TIMEOUT` in seconds.
    pub(super) fn read() -> Environment {
        let home = path("HF_HOME")
            .or_else(|| Some(path("XDG_CACHE_HOME")?.join("huggingface")))
            .unwrap_or_else(|| expand("~/.cache/huggingface".into()));
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let stored = || trimmed(fs::read_to_string(token_file).ok()?);
        let seconds = text("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|seconds| seconds.parse().ok());
        Environment {
            endpoint: text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into()),
            cache: cache.unwrap_or_else(|| home.join("hub")),
            token: text("HF_TOKEN").or_else(stored),
            offline: ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
                .into_iter()
                .find_map(|name| Some((name, text(name)?)))
                .filter(|(_, value)| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str()))
                .map(|(name, _)| name),
            patience: Duration::from_secs(seconds.unwrap_or(30)),
        }
    }
}

/// Returns the value of a variable that is set and not empty.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

fn text(name: &str) -> Option<String> {
    trimmed(variable(name)?.into_string().ok()?)
}

fn trimmed(text: String) -> Option<String> {
    Some(text.trim().to_string()).filter(|text| !text.is_empty())
}

fn path(name: &str) -> Option<PathBuf> {
    variable(name).map(|value| expand(value.into()))
}

/// Replaces a leading `~` by the home directory.
fn expand(path: PathBuf) -> PathBuf {
    match (path.strip_prefix("~"), env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}
