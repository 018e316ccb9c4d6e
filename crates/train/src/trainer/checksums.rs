//! Checksums of the files in a folder, in a list that `xxh128sum --check` reads too.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use cloze_tensor::{entries, write_file_atomically};
use twox_hash::XxHash3_128;

use crate::{Error, Result};

const LIST: &str = "checksums.xxh128";
/// Bytes that are read at once.
const BLOCK: usize = 1 << 20;

/// Adds a list with the checksum of each file to a folder. Those in `known` are not computed again.
pub(super) fn write(folder: &Path, known: BTreeMap<String, String>) -> Result<()> {
    let path = folder.join(LIST);
    let written = checksums(folder, known).and_then(|sums| {
        let list: String = sums.iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect();
        write_file_atomically(&path, list.as_bytes())
    });
    written.map_err(|error| Error::io(path, "cannot write", error))
}

/// Compares the files of a folder with its list.
///
/// # Errors
/// Returns an error that names the first file that is damaged, missing or not listed.
pub(super) fn check(folder: &Path) -> Result<()> {
    let damaged = |name: &str, why: String| Error::data_in(folder.join(name), "checkpoint", why);
    let list = match fs::read(folder.join(LIST)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damaged(LIST, "is missing: the checkpoint is incomplete".into()));
        }
        list => list.map_err(|error| Error::io(folder.join(LIST), "cannot read", error))?,
    };
    let list = String::from_utf8_lossy(&list);
    let listed: BTreeMap<&str, &str> =
        list.lines().map(|line| line.split_once("  ").map_or((line, ""), |(sum, name)| (name, sum))).collect();
    let found = checksums(folder, BTreeMap::new()).map_err(|error| Error::io(folder, "cannot read", error))?;
    for (name, sum) in &found {
        match listed.get(name.as_str()) {
            Some(listed) if listed == sum => {}
            Some(listed) => {
                return Err(damaged(name, format!("is damaged: its checksum is {sum}, {LIST} has {listed}")));
            }
            None => return Err(damaged(LIST, format!("is damaged: it does not list {name}"))),
        }
    }
    match listed.keys().find(|name| !found.contains_key(**name)) {
        Some(missing) => Err(damaged(LIST, format!("lists {}, which is missing", missing.escape_debug()))),
        None => Ok(()),
    }
}

/// Returns the checksum of each file in a folder except the list and hidden files, and those in `known`.
fn checksums(folder: &Path, known: BTreeMap<String, String>) -> io::Result<BTreeMap<String, String>> {
    let mut sums = known;
    for entry in entries(folder)? {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != LIST && !name.starts_with('.') && !sums.contains_key(&name) {
            sums.insert(name, checksum(&entry.path())?);
        }
    }
    Ok(sums)
}

/// Returns the checksum of a file: XXH3 with 128 bits, in hexadecimal.
pub(super) fn checksum(path: &Path) -> io::Result<String> {
    let (mut file, mut block, mut hash) = (File::open(path)?, vec![0; BLOCK], XxHash3_128::new());
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok(format!("{:032x}", hash.finish_128())),
            Ok(read) => hash.write(&block[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
