//! Files of tensors: safetensors, what `torch.save` writes, and checkpoints in several such files.
//!
//! Files are mapped into memory. Each format's reader makes of a file's bytes a list of where its tensors are and
//! says what is wrong as a text; what is common to all, from opening to the tensor, is in `mapped`. Whatever a file
//! says of itself is compared with what it has before anything of that size is allocated.

mod cursor;
mod index;
mod mapped;
mod pickle;
mod pytorch;
mod replace;
mod safetensors;
mod zip;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use mapped::{Entries, Entry, MappedFile, shown, shown_list};

pub use replace::{replace_with, write_file_atomically};
pub use safetensors::save_safetensors;

use crate::{DType, Device, Error, Result, Tensor};

/// The tensors of an open file, by name.
///
/// Three kinds of files are told apart by what is in them, whatever they are called:
/// - safetensors;
/// - what `torch.save` makes of a state dict (`pytorch_model.bin`), in its format since PyTorch 1.6 and in the one
///   before. These are pickles, programs that can run anything; here only those are read that make tensors out of
///   bytes of the file, and anything else is refused by name. A dictionary that has the state dict under `state_dict`
///   or `model` will do; values that are not tensors are passed over;
/// - the index of a checkpoint in several such files (`model.safetensors.index.json`), which are then seen as one.
///
/// Files are mapped into memory: a tensor is a view of its file where its bytes lie row-major and are aligned for its
/// type, as they are in all files of `save_safetensors` and most of `torch.save` since 1.6, and a copy otherwise.
/// The files must not be changed while a `TensorFile` or a tensor of it lives; replacing one by renaming another over
/// it, as everything here writes, is safe.
pub struct TensorFile {
    path: PathBuf,
    files: Vec<MappedFile>,
    /// For each tensor the number of its file, and where it is there.
    tensors: BTreeMap<String, (usize, Entry)>,
}

enum Content {
    Tensors(Entries),
    /// For each tensor the name of its file.
    Index(BTreeMap<String, String>),
}

impl TensorFile {
    /// Opens a file of tensors; shards of an index are looked for beside it.
    ///
    /// # Errors
    /// When the file or a shard cannot be read, is none of these, is cut short or contradicts itself; when it holds
    /// anything but tensors and plain values; when a shard lacks a tensor that the index says it has, or two have the
    /// same. A tensor's type is no matter until it is asked for.
    pub fn open(path: impl AsRef<Path>) -> Result<TensorFile> {
        let path = path.as_ref();
        TensorFile::open_with(path, |shard| Ok(path.with_file_name(shard)))
    }

    /// As [`TensorFile::open`], with shards from where `shard` says: it is called once for each file that an index
    /// names, with the name (never a path), and gives the path of the file, which it may first have to fetch.
    ///
    /// # Errors
    /// As [`TensorFile::open`], and whatever `shard` gives.
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
        let missing = names.iter().zip(&paths).filter(|(_, path)| !path.exists()).map(|(name, _)| name.as_str());
        let missing = shown_list(missing);
        if !missing.is_empty() {
            return Err(index_file.wrong(format!("names shards that are not there: {missing}")).into());
        }
        let mut files = Vec::with_capacity(paths.len());
        let mut tensors: BTreeMap<String, (usize, Entry)> = BTreeMap::new();
        for path in &paths {
            let file = MappedFile::open(path)?;
            let Content::Tensors(entries) = content(&file)? else {
                return Err(file.wrong(format!("is an index itself, named by {}", index_file.path().display())).into());
            };
            files.push(file);
            for (name, entry) in entries {
                let number = files.len() - 1;
                if let Some((other, _)) = tensors.get(&name) {
                    let (name, other) = (shown(&name), paths[*other].display());
                    return Err(index_file
                        .wrong(format!("{name} is in two shards, {other} and {}", path.display()))
                        .into());
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
                let reason = format!("lacks what {} says it has: {lacking}", index_file.path().display());
                return Err(Error::format(&paths[number], reason).into());
            }
        }
        Ok(TensorFile { path: index_file.path().to_path_buf(), files, tensors })
    }

    /// The file that was opened: the index of a checkpoint in shards.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    /// The file that tensor `name` is in, if there is such a tensor.
    pub fn path_of(&self, name: &str) -> Option<&Path> {
        self.find(name).map(|(file, _)| file.path())
    }

    /// The shape of tensor `name`, if there is one.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.find(name).map(|(_, entry)| entry.shape.as_slice())
    }

    /// The type of tensor `name`; `None` too where it is not one of [`DType`].
    pub fn dtype(&self, name: &str) -> Option<DType> {
        self.find(name).and_then(|(_, entry)| entry.file_type.dtype)
    }

    /// Tensor `name`, row-major: a view of the file where that can be.
    ///
    /// # Errors
    /// When there is no such tensor, its type is not one of [`DType`], or it has more than
    /// [`MAX_RANK`](crate::MAX_RANK) dimensions.
    pub fn tensor(&self, name: &str, device: &Device) -> Result<Tensor> {
        match self.find(name) {
            Some((file, entry)) => file.tensor(name, entry, device),
            None => Err(Error::format(&self.path, format!("has no tensor {}", shown(name)))),
        }
    }

    fn find(&self, name: &str) -> Option<(&MappedFile, &Entry)> {
        let (file, entry) = self.tensors.get(name)?;
        Some((self.files.get(*file)?, entry))
    }
}

/// Reads a file by what it begins with.
fn content(file: &MappedFile) -> Result<Content> {
    let bytes = file.bytes();
    let content = if zip::is_archive(bytes) {
        pytorch::read_archive(bytes).map(Content::Tensors)
    } else if pytorch::is_legacy(bytes) {
        pytorch::read_legacy(bytes).map(Content::Tensors)
    } else if bytes.starts_with(b"version https://git-lfs") {
        Err("is a pointer of Git LFS, not the file itself: `git lfs pull` fetches it".to_string())
    } else if matches!(bytes, [0x80, 2..=5, ..]) && bytes.get(8) != Some(&b'{') {
        Err("is a pickle, but not one that torch.save writes unless told otherwise".to_string())
    } else if bytes.trim_ascii_start().starts_with(b"{") && !has_header_length(bytes) {
        index::read(bytes).map(Content::Index)
    } else if has_header_length(bytes) {
        safetensors::read(bytes).map(Content::Tensors)
    } else {
        Err("is neither a safetensors file, nor one of torch.save, nor an index of shards".to_string())
    };
    content.map_err(|reason| file.wrong(reason))
}

/// Whether a file begins with a length below 2^32, as a safetensors file does and no text.
fn has_header_length(bytes: &[u8]) -> bool {
    bytes.get(4..8) == Some(&[0; 4])
}
