//! Files of `torch.save`: an archive (since PyTorch 1.6) or several pickles in a row with the bytes of the storages
//! after them (before that).
//!
//! Either way a pickle says which part of which storage every tensor is, and the rest are the storages' bytes. What
//! is read is a dictionary of tensors, `model.state_dict()`, or a dictionary that has one under a well-known name.

use std::collections::BTreeMap;

use super::cursor::Cursor;
use super::mapped::{Entries, Entry, elements, shown, shown_list};
use super::pickle::{Pickle, Storage, StorageView, Value};
use super::zip::Archive;

/// The names under which training scripts keep the state dict of the model.
const WRAPPERS: [&str; 2] = ["state_dict", "model"];

/// How a file of the older format begins: the number 0x1950a86a20f9469cfc6c as a pickle.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
const VERSION: i64 = 1001;

/// Whether a file begins as one of the older format.
pub(super) fn is_legacy(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// The tensors of an archive.
pub(super) fn read_archive(bytes: &[u8]) -> Result<Entries, String> {
    const PICKLE: &str = "/data.pkl";
    let archive = Archive::open(bytes)?;
    // The folder has the name that the file had when it was written.
    let mut folders = archive.names().filter_map(|name| name.strip_suffix(PICKLE)).filter(|name| !name.contains('/'));
    let folder = folders.next().ok_or("is an archive, but not one of torch.save: it has no data.pkl")?;
    if let Some(other) = folders.next() {
        return Err(format!("has two pickles, {} and {}{PICKLE}", shown(folder) + PICKLE, shown(other)));
    }
    let of_entry = |name: &str| Ok::<_, String>(archive.find(name)?.and_then(|range| bytes.get(range)));
    if let Some(order) = of_entry(&format!("{folder}/byteorder"))?
        && order != b"little"
    {
        return Err(format!("has byte order {:?}, only little is read", shown(&String::from_utf8_lossy(order))));
    }
    let name = format!("{folder}{PICKLE}");
    let in_pickle = |reason| format!("{}: {reason}", shown(&name));
    let pickle = Pickle::read(of_entry(&name)?.unwrap_or_default(), 0).map_err(in_pickle)?;
    state_dict(&pickle, |storage| {
        let name = format!("{folder}/data/{}", storage.key);
        let range = archive.find(&name)?.ok_or_else(|| format!("has no entry {}", shown(&name)))?;
        match size(storage)? {
            bytes if bytes == range.len() => Ok(range.start),
            bytes => Err(format!("entry {} has {} bytes, its tensors say {bytes}", shown(&name), range.len())),
        }
    })
}

/// The tensors of a file of the older format.
pub(super) fn read_legacy(bytes: &[u8]) -> Result<Entries, String> {
    let version = Pickle::read(bytes, MAGIC.len())?;
    if !matches!(version.root, Value::Int(VERSION)) {
        return Err(format!("is not of version {VERSION} of torch.save's older format, the only one there was"));
    }
    let system = Pickle::read(bytes, version.end)?;
    if !system.entries(system.root).any(|entry| matches!(entry, ("little_endian", Value::Bool(true)))) {
        return Err("does not say that its byte order is little, only that is read".to_string());
    }
    let pickle = Pickle::read(bytes, system.end)?;
    let keys = Pickle::read(bytes, pickle.end)?;
    let places = places(bytes, &pickle, &keys)?;
    state_dict(&pickle, |storage| {
        let (described, start) =
            places.get(storage.key).ok_or_else(|| format!("has no storage {}", shown(storage.key)))?;
        if size(storage)? != size(described)? {
            return Err(format!("says two sizes of storage {}", shown(storage.key)));
        }
        Ok(*start)
    })
}

/// Where the storages of a file of the older format are: after the list of their keys, in its order, each after its
/// number of elements.
fn places<'a>(
    bytes: &'a [u8],
    pickle: &Pickle<'a>,
    keys: &Pickle<'a>,
) -> Result<BTreeMap<&'a str, (Storage<'a>, usize)>, String> {
    let described: BTreeMap<&str, Storage<'_>> =
        pickle.storages().iter().map(|storage| (storage.key, *storage)).collect();
    let mut places = BTreeMap::new();
    let mut cursor = Cursor::new(bytes, keys.end);
    for key in keys.items(keys.root) {
        let Value::Text(key) = key else { return Err("has a list of storages that are not named by text".to_string()) };
        let storage = *described.get(key).ok_or_else(|| format!("has a storage {} of no tensor", shown(key)))?;
        let elements = cursor.u64().ok_or_else(|| format!("ends before storage {}", shown(key)))?;
        if u64::try_from(storage.elements) != Ok(elements) {
            let (key, said) = (shown(key), storage.elements);
            return Err(format!("storage {key} has {elements} elements, its tensors say {said}"));
        }
        let start = cursor.at;
        cursor.take(size(&storage)?).ok_or_else(|| format!("ends inside storage {}", shown(key)))?;
        if places.insert(key, (storage, start)).is_some() {
            return Err(format!("has storage {} twice", shown(key)));
        }
    }
    Ok(places)
}

/// The bytes of a storage.
fn size(storage: &Storage<'_>) -> Result<usize, String> {
    let size = storage.file_type.bytes(storage.elements);
    size.ok_or_else(|| format!("storage {} has {} elements, too many to address", shown(storage.key), storage.elements))
}

/// The tensors of a state dict. `start` gives the byte of the file at which a storage begins.
fn state_dict<'a>(
    pickle: &Pickle<'a>,
    mut start: impl FnMut(&Storage<'a>) -> Result<usize, String>,
) -> Result<Entries, String> {
    let tensors = |dict| {
        let tensor = |(name, value)| if let Value::Tensor(tensor) = value { Some((name, tensor)) } else { None };
        pickle.entries(dict).filter_map(tensor)
    };
    let wrapped = |wrapper: &&str| pickle.entries(pickle.root).find(|(key, _)| key == wrapper).map(|(_, value)| value);
    let candidates = [pickle.root].into_iter().chain(WRAPPERS.iter().filter_map(wrapped));
    let dict = candidates.into_iter().find(|&dict| tensors(dict).next().is_some()).ok_or_else(|| {
        let keys = shown_list(pickle.entries(pickle.root).map(|(key, _)| key));
        let wrappers = WRAPPERS.join(" or ");
        format!("is no dictionary of tensors, nor has it one under {wrappers}; its keys: {keys}")
    })?;
    let mut entries = Entries::new();
    for (name, tensor) in tensors(dict) {
        let entry = pickle.view(tensor).and_then(|view| entry(&view, start(&view.storage)?));
        let entry = entry.map_err(|reason| format!("{}: {reason}", shown(name)))?;
        if entries.insert(name.to_string(), entry).is_some() {
            return Err(format!("has two tensors {}", shown(name)));
        }
    }
    Ok(entries)
}

/// A view of a storage that begins at byte `start`, as an entry of the file.
fn entry(view: &StorageView<'_>, start: usize) -> Result<Entry, String> {
    let StorageView { storage, offset, shape, strides } = view;
    let entry = Entry { start, file_type: storage.file_type, shape: shape.clone(), strides: Some(strides.clone()) };
    // A stride of 0 makes a tensor of any size out of one number.
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
        let view = format!("shape {shape:?} with strides {strides:?} from element {offset} on");
        format!("{view} leaves its storage of {} elements", storage.elements)
    })?;
    Ok(Entry { start, ..entry })
}
