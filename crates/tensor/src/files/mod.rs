//! Tensor files: safetensors, PyTorch files written by `torch.save`, and checkpoints in several shards.
//!
//! Files are mapped into memory. The reader of each format finds the position, type and shape of each tensor in the
//! bytes of a file, and reports what is wrong as text. The code shared by all formats, from opening a file to making a
//! tensor, is in `mapped`. Every size that a file states is checked against its actual size before anything of that
//! size is allocated.

mod claim;
mod cursor;
mod index;
mod mapped;
mod pickle;
mod pytorch;
mod replace;
mod retry;
mod safetensors;
mod zip;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub(crate) use mapped::FileMap;
use mapped::{MappedFile, TensorEntries, TensorEntry, shown, shown_list};

pub use claim::{claim_abandoned, create_claimed, try_lock};
pub use replace::{remove_all_abandoned, replace_with, write_file_atomically};
pub use retry::{create_folders, entries, exists, metadata, retry, sync_directory};
pub use safetensors::save_safetensors;

use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// An open file of named tensors.
///
/// Three kinds of files are recognised by their content, whatever their name:
/// - safetensors;
/// - a state dict written by `torch.save` (`pytorch_model.bin`), in the format since PyTorch 1.6 or the one before it.
///   Both contain pickles, programs that can execute arbitrary code. The reader here accepts only programs that build
///   tensors from the bytes of the file, and names anything else in an error. The state dict may be nested under
///   `state_dict` or `model`, and values that are not tensors are skipped;
/// - the index of a sharded checkpoint (`model.safetensors.index.json`). Its shards are presented as one file.
///
/// Files are mapped into memory. A tensor is a view of its file if its bytes are row-major and aligned for its type,
/// which holds for all files written by `save_safetensors` and most written by `torch.save` since 1.6. Otherwise it is
/// a copy. The files must not be modified while a `TensorFile` or one of its tensors exists. Replacing a file by
/// renaming another over it is safe, and is how all functions of this crate write.
pub struct TensorFile {
    path: PathBuf,
    files: Vec<MappedFile>,
    /// The index of each tensor's file, and its position there.
    tensors: BTreeMap<String, (usize, TensorEntry)>,
}

enum Content {
    Tensors(TensorEntries),
    /// The name of each tensor's file.
    Index(BTreeMap<String, String>),
}

impl TensorFile {
    /// Opens a file of tensors. The shards of an index are looked for in its directory.
    ///
    /// # Errors
    /// Returns an error if the file or a shard cannot be read, has another format, is truncated or inconsistent, or
    /// contains anything but tensors and plain values; or if a shard lacks a tensor that the index assigns to it, or
    /// two shards have the same tensor. Tensors of unsupported types are an error only when they are read.
    pub fn open(path: impl AsRef<Path>) -> Result<TensorFile> {
        let path = path.as_ref();
        TensorFile::open_with(path, |shard| Ok(path.with_file_name(shard)))
    }

    /// Opens a file of tensors like [`TensorFile::open`], and calls `shard` to locate the shards of an index. It is
    /// called once with the name of each shard (never a path) and returns the path of the file, which it may download
    /// first.
    ///
    /// # Errors
    /// Returns the errors of [`TensorFile::open`] and those of `shard`.
    pub fn open_with<E: From<Error>>(
        path: impl AsRef<Path>,
        shard: impl FnMut(&str) -> Result<PathBuf, E>,
    ) -> Result<TensorFile, E> {
        let path = path.as_ref();
        let file = MappedFile::open(path)?;
        match content(&file)? {
            Content::Tensors(entries) => {
                let tensors = entries.into_iter().map(|(name, entry)| (name, (0, entry))).collect();
                Ok(TensorFile { path: path.to_path_buf(), files: vec![file], tensors })
            }
            Content::Index(index) => TensorFile::open_shards(&file, &index, shard),
        }
    }

    fn open_shards<E: From<Error>>(
        index_file: &MappedFile,
        index: &BTreeMap<String, String>,
        mut shard: impl FnMut(&str) -> Result<PathBuf, E>,
    ) -> Result<TensorFile, E> {
        let names: BTreeSet<&String> = index.values().collect();
        let paths = names.iter().map(|name| shard(name)).collect::<Result<Vec<_>, E>>()?;
        let mut missing = Vec::new();
        for (name, path) in names.iter().zip(&paths) {
            if !exists(path).map_err(|error| Error::io(path, "cannot read", error))? {
                missing.push(name.as_str());
            }
        }
        let missing = shown_list(missing);
        if !missing.is_empty() {
            return Err(index_file.wrong(format!("missing shards: {missing}")).into());
        }
        let mut files = Vec::with_capacity(paths.len());
        let mut tensors: BTreeMap<String, (usize, TensorEntry)> = BTreeMap::new();
        for path in &paths {
            let file = MappedFile::open(path)?;
            let Content::Tensors(entries) = content(&file)? else {
                let reason = format!("is listed as a shard in {}, but is an index itself", index_file.path().display());
                return Err(file.wrong(reason).into());
            };
            files.push(file);
            for (name, entry) in entries {
                let number = files.len() - 1;
                if let Some((other, _)) = tensors.get(&name) {
                    let (name, other) = (shown(&name), paths[*other].display());
                    let reason = format!("tensor {name} is in two shards, {other} and {}", path.display());
                    return Err(index_file.wrong(reason).into());
                }
                tensors.insert(name, (number, entry));
            }
        }
        for (number, shard) in names.into_iter().enumerate() {
            let has = |name: &String| tensors.get(name).is_some_and(|(file, _)| *file == number);
            let lacking =
                index.iter().filter(|(name, file)| *file == shard && !has(name)).map(|(name, _)| name.as_str());
            let lacking = shown_list(lacking);
            if !lacking.is_empty() {
                let reason = format!("missing tensors, which {} lists: {lacking}", index_file.path().display());
                return Err(Error::format(&paths[number], reason).into());
            }
        }
        Ok(TensorFile { path: index_file.path().to_path_buf(), files, tensors })
    }

    /// Returns the path of the file that was opened, which is the index of a sharded checkpoint.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the sorted names of the tensors.
    pub fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    /// Returns the path of the file that contains tensor `name`, or `None` if there is no such tensor.
    pub fn path_of(&self, name: &str) -> Option<&Path> {
        self.find(name).map(|(file, _)| file.path())
    }

    /// Returns the shape of tensor `name`, or `None` if there is no such tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.find(name).map(|(_, entry)| entry.shape.as_slice())
    }

    /// Returns the dtype of tensor `name`, or `None` if there is no such tensor or its type is not a [`DType`].
    pub fn dtype(&self, name: &str) -> Option<DType> {
        self.find(name).and_then(|(_, entry)| entry.file_type.dtype)
    }

    /// Returns tensor `name`, row-major. It is a view of the file if possible.
    ///
    /// # Errors
    /// Returns an error if there is no such tensor, its type is not a [`DType`], or it has more than
    /// [`MAX_RANK`](crate::MAX_RANK) dimensions.
    pub fn tensor(&self, name: &str, device: &Device) -> Result<Tensor> {
        match self.find(name) {
            Some((file, entry)) => file.tensor(name, entry, device),
            None => Err(Error::format(&self.path, format!("has no tensor {}", shown(name)))),
        }
    }

    fn find(&self, name: &str) -> Option<(&MappedFile, &TensorEntry)> {
        let (file, entry) = self.tensors.get(name)?;
        Some((self.files.get(*file)?, entry))
    }
}

/// Recognises the format of a file by its first bytes and reads its directory.
fn content(file: &MappedFile) -> Result<Content> {
    let bytes = file.bytes();
    let content = if zip::is_archive(bytes) {
        pytorch::read_archive(bytes).map(Content::Tensors)
    } else if pytorch::is_legacy(bytes) {
        pytorch::read_legacy(bytes).map(Content::Tensors)
    } else if bytes.starts_with(b"version https://git-lfs") {
        Err("is a Git LFS pointer, not the file itself: run `git lfs pull`".to_string())
    } else if matches!(bytes, [0x80, 2..=5, ..]) && bytes.get(8) != Some(&b'{') {
        Err("is a pickle, but not in a format that torch.save writes by default".to_string())
    } else if bytes.trim_ascii_start().starts_with(b"{") && !has_header_length(bytes) {
        index::read(bytes).map(Content::Index)
    } else if has_header_length(bytes) {
        safetensors::read(bytes).map(Content::Tensors)
    } else {
        Err("is not a safetensors file, a torch.save file or an index of shards".to_string())
    };
    content.map_err(|reason| file.wrong(reason))
}

/// Returns whether a file begins with a length below 2^32, as safetensors files do. Text files do not.
fn has_header_length(bytes: &[u8]) -> bool {
    bytes.get(4..8) == Some(&[0; 4])
}
