//! The files of a checkpoint that the ranks of a job write: each its share of the optimizer's running means.
//!
//! A rank that does not see the folder of rank 0, because the machines share no file system, sends its share to rank 0, which
//! writes the same file for it. So the files are the same in either case, and rank 0 holds one share at a time.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cloze_tensor::{entries, retry, save_safetensors};

use super::checksums::checksum;
use crate::communicator::{Communicator, gather_bytes, gather_values};
use crate::{Error, Optimizer, Result};

const PREFIX: &str = "optimizer-";
/// By this file, which rank 0 writes, the others recognise its folder.
const MARK: &str = ".rank-0";

fn file_name(rank: usize, ranks: usize) -> String {
    format!("{PREFIX}{:05}-of-{ranks:05}.safetensors", rank + 1)
}

/// Returns the files that the ranks of a job wrote to a checkpoint. A process on its own writes none.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = entries(folder).map_err(|error| Error::io(folder, "cannot read", error))?;
    let mut files: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    files.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)));
    files.sort();
    Ok(files)
}

/// Writes the shares of all ranks to the unfinished checkpoint in `folder`, which rank 0 has created, and returns the
/// checksum of each file on rank 0. All ranks must call this.
///
/// # Errors
/// Returns an error if this rank cannot write its file, or if another one has left the job.
pub(super) fn write(
    folder: &Path,
    optimizer: &Optimizer,
    ranks: &dyn Communicator,
) -> Result<BTreeMap<String, String>> {
    if ranks.size() == 1 {
        return Ok(BTreeMap::new());
    }
    let sees = sees_folder(folder, ranks)?;
    let mut sums = String::new();
    if sees[ranks.rank()] {
        write_share(folder, ranks.rank(), ranks.size(), optimizer.share()?, &mut sums)?;
    }
    for (rank, _) in sees.iter().enumerate().filter(|(_, sees)| !**sees) {
        if let Some(share) = optimizer.share_of(rank)? {
            write_share(folder, rank, ranks.size(), share, &mut sums)?;
        }
    }
    // Rank 0 might not list files yet that another machine has just written.
    let all = gather_bytes(ranks, sums.as_bytes())?.concat();
    let line = |line: &str| line.split_once(' ').map(|(name, sum)| (name.to_string(), sum.to_string()));
    Ok(String::from_utf8_lossy(&all).lines().filter_map(line).collect())
}

fn write_share(
    folder: &Path,
    rank: usize,
    ranks: usize,
    share: Vec<(String, cloze_tensor::Tensor)>,
    sums: &mut String,
) -> Result<()> {
    let name = file_name(rank, ranks);
    let path = folder.join(&name);
    save_safetensors(&path, share, &[])?;
    let sum = checksum(&path).map_err(|error| Error::io(&path, "cannot read", error))?;
    sums.push_str(&format!("{name} {sum}\n"));
    Ok(())
}

/// Returns which ranks have the folder of rank 0 under this path.
fn sees_folder(folder: &Path, ranks: &dyn Communicator) -> Result<Vec<bool>> {
    let path = folder.join(MARK);
    // The start of a process and of this call are different everywhere: another folder of the same name has another mark.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut mark = (now.as_nanos() as u64 ^ u64::from(std::process::id()) << 40).to_le_bytes();
    if ranks.rank() == 0 {
        fs::write(&path, mark).map_err(|error| Error::io(&path, "cannot write", error))?;
    }
    ranks.broadcast(&mut mark, 0)?;
    let sees = fs::read(&path).is_ok_and(|found| found == mark);
    let all = gather_values(ranks, u8::from(sees))?;
    if ranks.rank() == 0 {
        retry(|| fs::remove_file(&path)).map_err(|error| Error::io(&path, "cannot remove", error))?;
    }
    Ok(all.into_iter().map(|sees| sees == 1).collect())
}
