//! What is in a folder.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The contents of a folder, by relative path.
#[derive(Debug)]
pub struct State(BTreeMap<String, Content>);

#[derive(Debug, PartialEq, Eq)]
enum Content {
    Folder,
    Link(PathBuf),
    Bytes(Vec<u8>),
    /// A file with times in it: its number of lines, if that is fixed, or what is wrong with it.
    Varies(Result<usize, String>),
}

impl State {
    pub fn of(folder: &Path) -> io::Result<State> {
        let mut state = State(BTreeMap::new());
        state.add(folder, "")?;
        Ok(state)
    }

    fn add(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            // A run has one event file for each time it was started.
            let events = "events.out.tfevents.";
            let key = format!("{prefix}{}", if name.starts_with(events) { events } else { &name });
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.0.insert(key.clone(), Content::Folder);
                self.add(&path, &(key + "/"))?;
            } else if kind.is_symlink() {
                self.0.insert(key, Content::Link(fs::read_link(path)?));
            } else {
                let bytes = fs::read(path)?;
                let bytes = if name == "index.json" { without_paths(bytes) } else { bytes };
                self.0.insert(key, varying(&name, &bytes).map_or_else(|| Content::Bytes(bytes), Content::Varies));
            }
        }
        Ok(())
    }

    /// Returns the first difference to what is `expected`, of which some may be missing.
    pub fn difference(&self, expected: &State, may_be_missing: impl Fn(&str) -> bool) -> Option<String> {
        for (path, content) in &self.0 {
            match expected.0.get(path) {
                None => return Some(format!("{path} is left over")),
                Some(Content::Varies(Ok(_))) if matches!(content, Content::Varies(Err(_))) => {
                    return Some(format!("{path}: {content:?}"));
                }
                Some(other) if other != content => return Some(format!("{path} differs")),
                Some(_) => {}
            }
        }
        let mut missing = expected.0.keys().filter(|path| !self.0.contains_key(*path));
        missing.find(|path| !may_be_missing(path)).map(|path| format!("{path} is missing"))
    }

    /// Returns the first file that was there `before` and is neither the same nor what it should become. A folder that is
    /// being replaced may have the name that it is deleted under.
    pub fn lost(&self, before: &State, after: &State) -> Option<String> {
        let is_whole = |path: &str, content: &Content| {
            let found = self.0.get(path);
            found == Some(content) || found.is_some() && found == after.0.get(path)
        };
        let is_set_aside = |path: &str, content: &Content| {
            let name = path.rsplit('/').next();
            let same = |(other, found): (&String, &Content)| {
                other.contains(".deleted-") && other.rsplit('/').next() == name && found == content
            };
            !self.0.contains_key(path) && self.0.iter().any(same)
        };
        let lost = before.0.iter().filter(|(_, content)| matches!(content, Content::Bytes(_)));
        let mut lost = lost.filter(|(path, content)| !is_whole(path, content) && !is_set_aside(path, content));
        lost.next().map(|(path, _)| format!("{path} was whole before"))
    }

    /// Returns the first path with a temporary name.
    pub fn left_over(&self) -> Option<&str> {
        let mut names = self.0.keys().map(|path| (path, path.rsplit('/').next().unwrap_or(path)));
        // What programs name their files and folders until they are whole, and while they delete them. `.locks` belongs to the
        // cache of the hub.
        let is_temporary = |name: &str| {
            let is_folder = name.starts_with(".unfinished-") || name.starts_with(".deleted-");
            is_folder || name.starts_with('.') && name.ends_with(".tmp")
        };
        names.find(|(_, name)| is_temporary(name)).map(|(path, _)| path.as_str())
    }
}

/// Returns the index of a cached corpus without the paths of its text, which lies elsewhere in each run, and the checksum over them.
fn without_paths(index: Vec<u8>) -> Vec<u8> {
    let Ok(serde_json::Value::Object(mut fields)) = serde_json::from_slice(&index) else { return index };
    fields.remove("source");
    fields.remove("checksum");
    serde_json::to_vec(&fields).unwrap_or(index)
}

/// Returns whether a file that varies from run to run is whole, or `None` if the file does not vary.
fn varying(name: &str, bytes: &[u8]) -> Option<Result<usize, String>> {
    let text = String::from_utf8_lossy(bytes);
    let json =
        |text: &str| serde_json::from_str::<serde_json::Value>(text).map(|_| ()).map_err(|error| error.to_string());
    match name {
        "metrics.jsonl" => Some(text.lines().try_for_each(json).map(|()| text.lines().count())),
        "state.json" | "results.json" => Some(json(&text).map(|()| 0)),
        "checksums.xxh128" => Some(Ok(text.lines().count())),
        "report.html" if text.trim_end().ends_with("</html>") => Some(Ok(0)),
        "report.html" => Some(Err("is cut".to_string())),
        _ if name.starts_with("events.out.tfevents.") => Some(Ok(0)),
        _ => None,
    }
}

/// Copies a folder.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() { copy(&from, &to)? } else { fs::copy(&from, &to).map(drop)? }
    }
    Ok(())
}
