//! Safetensors files: eight bytes with the length of a header, the header in JSON, and the tensors' bytes. The format
//! is described at <https://huggingface.co/docs/safetensors>.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::fmt;
use std::io::Write;
use std::path::Path;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::cursor::Cursor;
use super::mapped::{Entries, Entry, FileType, elements, shown};
use super::replace::replace_with;
use crate::{DType, Device, Error, Result, Tensor};

/// The name in the header under which texts are kept, not a tensor.
const METADATA: &str = "__metadata__";
/// The longest header that the format allows.
const MAX_HEADER: usize = 100_000_000;
/// Headers are filled up with spaces to a multiple of this. With the tensors in the order of [`FILE_TYPES`], each is
/// aligned for its type.
const ALIGNMENT: usize = 8;

/// The format's types, those of larger alignment first.
const FILE_TYPES: [FileType; 22] = [
    FileType { name: "U64", bits: 64, dtype: None },
    FileType { name: "I64", bits: 64, dtype: Some(DType::I64) },
    FileType { name: "F64", bits: 64, dtype: Some(DType::F64) },
    FileType { name: "C64", bits: 64, dtype: None },
    FileType { name: "F32", bits: 32, dtype: Some(DType::F32) },
    FileType { name: "U32", bits: 32, dtype: Some(DType::U32) },
    FileType { name: "I32", bits: 32, dtype: None },
    FileType { name: "BF16", bits: 16, dtype: Some(DType::BF16) },
    FileType { name: "F16", bits: 16, dtype: Some(DType::F16) },
    FileType { name: "U16", bits: 16, dtype: None },
    FileType { name: "I16", bits: 16, dtype: None },
    FileType { name: "F8_E5M2FNUZ", bits: 8, dtype: None },
    FileType { name: "F8_E4M3FNUZ", bits: 8, dtype: None },
    FileType { name: "F8_E8M0", bits: 8, dtype: None },
    FileType { name: "F8_E4M3", bits: 8, dtype: None },
    FileType { name: "F8_E5M2", bits: 8, dtype: None },
    FileType { name: "I8", bits: 8, dtype: None },
    FileType { name: "U8", bits: 8, dtype: None },
    FileType { name: "F6_E3M2", bits: 6, dtype: None },
    FileType { name: "F6_E2M3", bits: 6, dtype: None },
    FileType { name: "F4", bits: 4, dtype: None },
    FileType { name: "BOOL", bits: 8, dtype: None },
];

/// A tensor in the header.
#[derive(Serialize, Deserialize)]
struct Info<'a> {
    #[serde(borrow)]
    dtype: Cow<'a, str>,
    shape: Vec<usize>,
    /// From and to, counted from the end of the header.
    data_offsets: (usize, usize),
}

/// The header as it is read.
struct Header<'a>(BTreeMap<String, Info<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Header<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Names;

        impl<'de> Visitor<'de> for Names {
            type Value = Header<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a tensor under each name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header<'de>, A::Error> {
                let mut tensors = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == METADATA {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    match tensors.entry(name) {
                        Slot::Vacant(slot) => {
                            slot.insert(map.next_value()?);
                        }
                        Slot::Occupied(slot) => {
                            return Err(A::Error::custom(format!("{} is there twice", shown(slot.key()))));
                        }
                    }
                }
                Ok(Header(tensors))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// The tensors of a file.
pub(super) fn read(bytes: &[u8]) -> std::result::Result<Entries, String> {
    let mut cursor = Cursor::new(bytes, 0);
    let length = cursor.u64().ok_or("is shorter than the length of a header")?;
    let size = usize::try_from(length).ok().filter(|&size| size <= MAX_HEADER);
    let size =
        size.ok_or_else(|| format!("says that its header has {length} bytes, the format allows {MAX_HEADER}"))?;
    let header = cursor.take(size);
    let header = header.ok_or_else(|| format!("says that its header has {length} bytes, but has {}", bytes.len()))?;
    let Header(header) = serde_json::from_slice(header).map_err(|error| format!("its header is broken: {error}"))?;

    // Tensors must lie one after the other and fill the file.
    let mut in_order: Vec<(&String, &Info<'_>)> = header.iter().collect();
    in_order.sort_by_key(|(_, info)| info.data_offsets);
    let data = bytes.len() - cursor.at;
    let mut end = 0;
    let mut entries = Entries::new();
    for (name, info) in in_order {
        let (from, to) = info.data_offsets;
        let wrong = |reason: String| format!("{}: {reason}", shown(name));
        let file_type = FILE_TYPES.iter().find(|known| known.name == info.dtype);
        let file_type = *file_type.ok_or_else(|| wrong(format!("{} is no type of safetensors", shown(&info.dtype))))?;
        if from != end {
            let what = if from < end { "overlaps the tensor before it" } else { "leaves a gap before it" };
            return Err(wrong(format!("begins at byte {from} of the data and {what}, which ends at {end}")));
        }
        if to < from || to > data {
            return Err(wrong(format!("is said to be bytes {from} to {to} of the data, which has {data}")));
        }
        if elements(&info.shape).and_then(|elements| file_type.bytes(elements)) != Some(to - from) {
            let (dtype, shape) = (file_type.name, &info.shape);
            return Err(wrong(format!("has {} bytes, not what {dtype} of shape {shape:?} takes", to - from)));
        }
        end = to;
        let entry = Entry { start: cursor.at + from, file_type, shape: info.shape.clone(), strides: None };
        entries.insert(name.clone(), entry);
    }
    if end != data {
        return Err(format!("has {data} bytes of data, its tensors take {end}"));
    }
    Ok(entries)
}

/// The header as it is written: equal models are equal files.
struct Written<'a> {
    metadata: BTreeMap<&'a str, &'a str>,
    tensors: Vec<(String, Info<'a>)>,
}

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.metadata.is_empty() {
            map.serialize_entry(METADATA, &self.metadata)?;
        }
        for (name, info) in &self.tensors {
            map.serialize_entry(name, info)?;
        }
        map.end()
    }
}

/// Writes tensors to a safetensors file at `path`, with `metadata` in its header. The bytes go from the tensors to
/// the disk: what it takes in memory is a row-major copy of one tensor, and that only of one that is not row-major.
///
/// A file that is at `path` is replaced as a whole, and may be the one that these tensors are views of.
///
/// # Errors
/// When two tensors have one name, or a name is `__metadata__`; when the file cannot be written. What was at `path`
/// is then left as it was.
pub fn save_safetensors(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (String, Tensor)>,
    metadata: &[(&str, &str)],
) -> Result<()> {
    let path = path.as_ref();
    let cannot = |reason| Error::format(path, format!("cannot be written: {reason}"));
    let mut by_name = BTreeMap::new();
    for (name, tensor) in tensors {
        if name == METADATA || by_name.contains_key(&name) {
            let reason = if name == METADATA { "no tensor can have" } else { "two tensors have" };
            return Err(cannot(format!("{reason} the name {}", shown(&name))));
        }
        by_name.insert(name, tensor);
    }
    let mut tensors = Vec::new();
    let mut header = Written { metadata: metadata.iter().copied().collect(), tensors: Vec::new() };
    let mut end = 0;
    for file_type in FILE_TYPES {
        for (name, tensor) in by_name.iter().filter(|(_, tensor)| Some(tensor.dtype()) == file_type.dtype) {
            let start = end;
            end += tensor.elements() * tensor.dtype().size();
            let (dtype, shape) = (file_type.name.into(), tensor.shape().to_vec());
            header.tensors.push((name.clone(), Info { dtype, shape, data_offsets: (start, end) }));
            tensors.push(tensor);
        }
    }
    let mut header = serde_json::to_vec(&header).map_err(|error| cannot(error.to_string()))?;
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
    if header.len() > MAX_HEADER {
        return Err(cannot(format!("its header has {} bytes, the format allows {MAX_HEADER}", header.len())));
    }
    let written = replace_with(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for tensor in tensors {
            let tensor =
                tensor.values().and_then(|tensor| tensor.to_device(&Device::Cpu)).map_err(std::io::Error::other)?;
            file.write_all(tensor.bytes())?;
        }
        Ok(())
    });
    written.map_err(|error| Error::io(path, "cannot write", error))
}
