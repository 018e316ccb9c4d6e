//! Safetensors files: eight bytes with the length of a header, the header in JSON, and the bytes of the tensors. The
//! format is described at <https://huggingface.co/docs/safetensors>.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::fmt;
use std::io::Write;
use std::path::Path;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::cursor::Cursor;
use super::mapped::{FileType, TensorEntries, TensorEntry, elements, shown};
use super::replace::replace_with;
use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The key in the header that has metadata instead of a tensor.
const METADATA: &str = "__metadata__";
/// The longest header that the format allows, in bytes.
const MAX_HEADER: usize = 100_000_000;
/// Headers are padded with spaces to a multiple of this. Tensors are written in the order of [`FILE_TYPES`], so that
/// each is aligned for its type.
const ALIGNMENT: usize = 8;

/// The types of the format, in order of decreasing alignment.
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
struct TensorInfo<'a> {
    #[serde(borrow)]
    dtype: Cow<'a, str>,
    shape: Vec<usize>,
    /// Begin and end of the tensor's bytes, counted from the end of the header.
    data_offsets: (usize, usize),
}

/// A header that was read.
struct Header<'a>(BTreeMap<String, TensorInfo<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Header<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Names;

        impl<'de> Visitor<'de> for Names {
            type Value = Header<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a tensor under each name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header<'de>, A::Error> {
                let (mut tensors, mut has_metadata) = (BTreeMap::new(), false);
                while let Some(name) = map.next_key::<String>()? {
                    if name == METADATA {
                        if std::mem::replace(&mut has_metadata, true) {
                            return Err(A::Error::custom(format!("duplicate {METADATA}")));
                        }
                        map.next_value::<Option<Metadata>>()?;
                        continue;
                    }
                    match tensors.entry(name) {
                        Slot::Vacant(slot) => {
                            slot.insert(map.next_value()?);
                        }
                        Slot::Occupied(slot) => {
                            return Err(A::Error::custom(format!("duplicate tensor {}", shown(slot.key()))));
                        }
                    }
                }
                Ok(Header(tensors))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// Metadata, which are only checked: a string under each name.
struct Metadata;

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Strings;

        impl<'de> Visitor<'de> for Strings {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an object with a string under each name in {METADATA}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Metadata, A::Error> {
                while map.next_entry::<Cow<'de, str>, Cow<'de, str>>()?.is_some() {}
                Ok(Metadata)
            }
        }
        deserializer.deserialize_map(Strings)
    }
}

/// Reads the tensors of a file.
pub(super) fn read(bytes: &[u8]) -> std::result::Result<TensorEntries, String> {
    let mut cursor = Cursor::new(bytes, 0);
    let length = cursor.u64().ok_or("is too short for a safetensors file")?;
    let size = usize::try_from(length).ok().filter(|&size| size <= MAX_HEADER);
    let size = size.ok_or_else(|| format!("states a header of {length} bytes, the format allows {MAX_HEADER}"))?;
    let header = cursor.take(size);
    let header =
        header.ok_or_else(|| format!("is truncated: its header has {length} bytes, the whole file {}", bytes.len()))?;
    let header = std::str::from_utf8(header).map_err(|error| format!("invalid header: not UTF-8: {error}"))?;
    let Header(header) = serde_json::from_str(header).map_err(|error| format!("invalid header: {error}"))?;

    // Tensors must be contiguous and fill the rest of the file.
    let mut in_order: Vec<(&String, &TensorInfo<'_>)> = header.iter().collect();
    in_order.sort_by_key(|(_, info)| info.data_offsets);
    let data = bytes.len() - cursor.at;
    let mut end = 0;
    let mut entries = TensorEntries::new();
    for (name, info) in in_order {
        let (from, to) = info.data_offsets;
        let wrong = |reason: String| format!("{}: {reason}", shown(name));
        let file_type = FILE_TYPES.iter().find(|known| known.name == info.dtype);
        let file_type = *file_type.ok_or_else(|| wrong(format!("unknown type {}", shown(&info.dtype))))?;
        if from != end {
            let what = if from < end { "overlaps" } else { "leaves a gap after" };
            return Err(wrong(format!("begins at byte {from} and {what} the previous tensor, which ends at {end}")));
        }
        if to < from || to > data {
            return Err(wrong(format!("byte range {from} to {to} is out of range: the data has {data} bytes")));
        }
        if elements(&info.shape).and_then(|elements| file_type.bytes(elements)) != Some(to - from) {
            let (dtype, shape) = (file_type.name, &info.shape);
            return Err(wrong(format!("{} bytes do not match type {dtype} and shape {shape:?}", to - from)));
        }
        end = to;
        let entry = TensorEntry { start: cursor.at + from, file_type, shape: info.shape.clone(), strides: None };
        entries.insert(name.clone(), entry);
    }
    if end != data {
        return Err(format!("has {data} bytes of data, but its tensors need {end}"));
    }
    Ok(entries)
}

/// A header to write. Its order is fixed, so that equal models make equal files.
struct NewHeader<'a> {
    metadata: BTreeMap<&'a str, &'a str>,
    tensors: Vec<(String, TensorInfo<'a>)>,
}

impl Serialize for NewHeader<'_> {
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

/// Writes tensors to a safetensors file at `path`, with `metadata` in its header. Bytes are written directly from the
/// tensors. Only those that are not row-major are copied first, one at a time.
///
/// An existing file at `path` is replaced atomically, and the tensors may be views of it.
///
/// # Errors
/// Returns an error if two tensors have the same name, a name is `__metadata__`, or the file cannot be written. An
/// existing file at `path` is then unchanged.
pub fn save_safetensors(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (String, Tensor)>,
    metadata: &[(&str, &str)],
) -> Result<()> {
    let path = path.as_ref();
    let cannot = |reason| Error::format(path, format!("cannot write: {reason}"));
    let mut by_name = BTreeMap::new();
    for (name, tensor) in tensors {
        if name == METADATA || by_name.contains_key(&name) {
            let reason = if name == METADATA { "no tensor can be" } else { "two tensors are" };
            return Err(cannot(format!("{reason} named {}", shown(&name))));
        }
        by_name.insert(name, tensor);
    }
    let mut tensors = Vec::new();
    let mut header = NewHeader { metadata: metadata.iter().copied().collect(), tensors: Vec::new() };
    let mut end = 0;
    for file_type in FILE_TYPES {
        for (name, tensor) in by_name.iter().filter(|(_, tensor)| Some(tensor.dtype()) == file_type.dtype) {
            let start = end;
            end += tensor.elements() * tensor.dtype().size();
            let (dtype, shape) = (file_type.name.into(), tensor.shape().to_vec());
            header.tensors.push((name.clone(), TensorInfo { dtype, shape, data_offsets: (start, end) }));
            tensors.push(tensor);
        }
    }
    let mut header = serde_json::to_vec(&header).map_err(|error| cannot(error.to_string()))?;
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
    if header.len() > MAX_HEADER {
        return Err(cannot(format!("the header needs {} bytes, the format allows {MAX_HEADER}", header.len())));
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
