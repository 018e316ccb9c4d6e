//! Files written by `torch.save`: a zip archive since PyTorch 1.6, and before that a sequence of pickles followed by
//! the bytes of the storages.
//!
//! In both formats a pickle describes each tensor as a view of a storage. The reader accepts a dictionary of tensors,
//! as `model.state_dict()` returns it, or a dictionary that contains one under a well-known key.

use std::collections::BTreeMap;

use super::cursor::Cursor;
use super::mapped::{TensorEntries, TensorEntry, elements, shown, shown_list};
use super::pickle::{Pickle, PickledStorage, StorageView, Value};
use super::zip::Archive;

/// Keys under which training scripts save the state dict of the model.
const WRAPPERS: [&str; 2] = ["state_dict", "model"];

/// The first bytes of the older format: the number 0x1950a86a20f9469cfc6c as a pickle.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
const VERSION: i64 = 1001;

/// Returns whether a file begins like one of the older format.
pub(super) fn is_legacy(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Reads the tensors of an archive.
pub(super) fn read_archive(bytes: &[u8]) -> Result<TensorEntries, String> {
    const PICKLE: &str = "/data.pkl";
    let archive = Archive::open(bytes)?;
    // The folder is named after the original file, so find it by the pickle in it.
    let mut folders = archive.names().filter_map(|name| name.strip_suffix(PICKLE)).filter(|name| !name.contains('/'));
    let folder = folders.next().ok_or("is a zip archive, but not from torch.save: it has no data.pkl")?;
    if let Some(other) = folders.next() {
        return Err(format!("has two pickles, {} and {}{PICKLE}", shown(folder) + PICKLE, shown(other)));
    }
    let of_entry = |name: &str| Ok::<_, String>(archive.find(name)?.and_then(|range| bytes.get(range)));
    if let Some(order) = of_entry(&format!("{folder}/byteorder"))?
        && order != b"little"
    {
        return Err(format!("has byte order {:?}, expected \"little\"", shown(&String::from_utf8_lossy(order))));
    }
    let name = format!("{folder}{PICKLE}");
    let in_pickle = |reason| format!("{}: {reason}", shown(&name));
    let pickle = Pickle::read(of_entry(&name)?.unwrap_or_default(), 0).map_err(in_pickle)?;
    state_dict(&pickle, |storage| {
        let name = format!("{folder}/data/{}", storage.key);
        let range = archive.find(&name)?.ok_or_else(|| format!("has no entry {}", shown(&name)))?;
        match size(storage)? {
            bytes if bytes == range.len() => Ok(range.start),
            bytes => Err(format!("entry {} has {} bytes, its tensors need {bytes}", shown(&name), range.len())),
        }
    })
}

/// Reads the tensors of a file of the older format.
pub(super) fn read_legacy(bytes: &[u8]) -> Result<TensorEntries, String> {
    let version = Pickle::read(bytes, MAGIC.len())?;
    if !matches!(version.root, Value::Int(VERSION)) {
        return Err(format!("has an unknown version of torch.save's older format, expected {VERSION}"));
    }
    let system = Pickle::read(bytes, version.end)?;
    if !system.entries(system.root).any(|entry| matches!(entry, ("little_endian", Value::Bool(true)))) {
        return Err("does not have little-endian byte order, the only one supported".to_string());
    }
    let pickle = Pickle::read(bytes, system.end)?;
    let keys = Pickle::read(bytes, pickle.end)?;
    let storages = storages(bytes, &pickle, &keys)?;
    state_dict(&pickle, |storage| {
        let (described, start) =
            storages.get(storage.key).ok_or_else(|| format!("has no storage {}", shown(storage.key)))?;
        if size(storage)? != size(described)? {
            return Err(format!("gives two different sizes for storage {}", shown(storage.key)));
        }
        Ok(*start)
    })
}

/// Returns the storages of a file of the older format, with their offsets. They follow the list of their keys, in its
/// order, and each is preceded by its number of elements.
fn storages<'a>(
    bytes: &'a [u8],
    pickle: &Pickle<'a>,
    keys: &Pickle<'a>,
) -> Result<BTreeMap<&'a str, (PickledStorage<'a>, usize)>, String> {
    let described: BTreeMap<&str, PickledStorage<'_>> =
        pickle.storages().iter().map(|storage| (storage.key, *storage)).collect();
    let mut storages = BTreeMap::new();
    let mut cursor = Cursor::new(bytes, keys.end);
    for key in keys.items(keys.root) {
        let Value::Text(key) = key else { return Err("has a storage whose name is not a string".to_string()) };
        let storage = *described.get(key).ok_or_else(|| format!("has a storage {} without tensors", shown(key)))?;
        let elements = cursor.u64().ok_or_else(|| format!("ends before storage {}", shown(key)))?;
        if u64::try_from(storage.elements) != Ok(elements) {
            let (key, expected) = (shown(key), storage.elements);
            return Err(format!("storage {key} has {elements} elements, its tensors need {expected}"));
        }
        let start = cursor.at;
        cursor.take(size(&storage)?).ok_or_else(|| format!("ends inside storage {}", shown(key)))?;
        if storages.insert(key, (storage, start)).is_some() {
            return Err(format!("has two storages named {}", shown(key)));
        }
    }
    Ok(storages)
}

/// Returns the size of a storage in bytes.
fn size(storage: &PickledStorage<'_>) -> Result<usize, String> {
    let size = storage.file_type.bytes(storage.elements);
    size.ok_or_else(|| format!("storage {} has {} elements, too many to address", shown(storage.key), storage.elements))
}

/// Reads the tensors of a state dict. `start` returns the offset of a storage in the file.
fn state_dict<'a>(
    pickle: &Pickle<'a>,
    mut start: impl FnMut(&PickledStorage<'a>) -> Result<usize, String>,
) -> Result<TensorEntries, String> {
    let tensors = |dict| {
        let tensor = |(name, value)| if let Value::Tensor(tensor) = value { Some((name, tensor)) } else { None };
        pickle.entries(dict).filter_map(tensor)
    };
    let wrapped = |wrapper: &&str| pickle.entries(pickle.root).find(|(key, _)| key == wrapper).map(|(_, value)| value);
    let candidates = [pickle.root].into_iter().chain(WRAPPERS.iter().filter_map(wrapped));
    let dict = candidates.into_iter().find(|&dict| tensors(dict).next().is_some()).ok_or_else(|| {
        let keys = shown_list(pickle.entries(pickle.root).map(|(key, _)| key));
        let keys = if keys.is_empty() { keys } else { format!("; its keys are {keys}") };
        format!("does not contain a dictionary of tensors, at the top level or under {}{keys}", WRAPPERS.join(" or "))
    })?;
    let mut entries = TensorEntries::new();
    for (name, tensor) in tensors(dict) {
        let entry = pickle.view(tensor).and_then(|view| entry(&view, start(&view.storage)?));
        let entry = entry.map_err(|reason| format!("{}: {reason}", shown(name)))?;
        if entries.insert(name.to_string(), entry).is_some() {
            return Err(format!("has two tensors named {}", shown(name)));
        }
    }
    Ok(entries)
}

/// Converts a view of a storage, whose offset in the file is `start`, to an entry of the file.
fn entry(view: &StorageView<'_>, start: usize) -> Result<TensorEntry, String> {
    let StorageView { storage, offset, shape, strides } = view;
    let file_type = storage.file_type;
    let entry = TensorEntry { start, file_type, shape: shape.clone(), strides: Some(strides.clone()) };
    // With strides of 0, a tensor of any size could be made from a single number.
    if elements(shape).is_none_or(|elements| elements > storage.elements) {
        return Err(format!("shape {shape:?} has more elements than its storage, which has {}", storage.elements));
    }
    let span = entry.span();
    if span == Some(0) {
        return Ok(entry);
    }
    let end = span.and_then(|span| span.checked_add(*offset)).filter(|&end| end <= storage.elements);
    let skipped = end.and_then(|_| storage.file_type.bytes(*offset)).and_then(|skipped| start.checked_add(skipped));
    let start = skipped.ok_or_else(|| {
        let view = format!("shape {shape:?} with strides {strides:?} and offset {offset}");
        format!("{view} exceeds its storage of {} elements", storage.elements)
    })?;
    Ok(TensorEntry { start, ..entry })
}
