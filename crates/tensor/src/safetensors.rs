//! Reading and writing safetensors files.
//!
//! Files are memory-mapped: a tensor read is a view of the file where its bytes are aligned for its type,
//! and a copy otherwise. Files are written under a temporary name in the same folder, synced, and renamed,
//! so that a reader never sees half of one and a full disk leaves the old one whole.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::safetensors::tensor::{Dtype, Metadata, SafeTensors, View};
use memmap2::Mmap;

use crate::layout::Layout;
use crate::memory::Buffer;
use crate::ops::element;
use crate::storage::Storage;
use crate::tensor::Origin;
use crate::{DType, Device, Error, Result, Tensor};

/// An open safetensors file.
pub struct SafetensorsFile {
    path: PathBuf,
    map: Arc<Mmap>,
    metadata: Metadata,
    /// Where the tensors' bytes begin.
    start: usize,
}

impl SafetensorsFile {
    /// Maps the file at `path` and reads its header.
    ///
    /// The file must not be changed while tensors made from it live; replacing it by renaming another
    /// over it, as everything here writes, is safe.
    ///
    /// # Errors
    /// When the file cannot be read, is not a safetensors file, or ends before its header says.
    pub fn open(path: impl AsRef<Path>) -> Result<SafetensorsFile> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|error| Error::io(path, "cannot read", error))?;
        // SAFETY: mapped files can change under us; the documentation asks callers not to do that.
        let map = unsafe { Mmap::map(&file) }.map_err(|error| Error::io(path, "cannot map", error))?;
        let foreign = |error| Error::format(path, format!("not a whole safetensors file: {error}"));
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(foreign)?;
        // The check that the header's ranges cover the file exactly is part of this.
        SafeTensors::deserialize(&map).map_err(foreign)?;
        Ok(SafetensorsFile { path: path.to_path_buf(), map: Arc::new(map), metadata, start: header + 8 })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.metadata.tensors().into_keys().collect();
        names.sort();
        names
    }

    /// The shape of tensor `name`, if there is one.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.metadata.info(name).map(|info| info.shape.clone())
    }

    /// Tensor `name`, as a view of the file where that can be.
    ///
    /// # Errors
    /// When there is no such tensor or its type is not one of [`DType`].
    pub fn tensor(&self, name: &str, device: &Device) -> Result<Tensor> {
        let info = self.metadata.info(name);
        let info = info.ok_or_else(|| Error::format(&self.path, format!("has no tensor {name}")))?;
        let dtype = from_file(info.dtype)
            .ok_or_else(|| Error::format(&self.path, format!("{name}: type {:?} is not supported", info.dtype)))?;
        let (from, to) = info.data_offsets;
        let range = self.start + from..self.start + to;
        let mapped = Buffer::mapped(self.map.clone(), range)
            .filter(|buffer| buffer.as_bytes().as_ptr().align_offset(dtype.size()) == 0);
        let layout = Layout::contiguous("safetensors", &info.shape)?;
        if let (Some(buffer), Device::Cpu) = (mapped, device) {
            return Ok(Tensor::from_parts(Storage::Cpu(Arc::new(buffer)), layout, dtype, Origin::Constant));
        }
        element!("safetensors", dtype, T => {
            let bytes = &self.map[self.start + from..self.start + to];
            Tensor::build("safetensors", &info.shape, device, |to: &mut [T]| {
                bytemuck::cast_slice_mut(to).copy_from_slice(bytes);
            })
        })
    }
}

fn from_file(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        Dtype::BF16 => DType::BF16,
        Dtype::F16 => DType::F16,
        Dtype::U32 => DType::U32,
        Dtype::I64 => DType::I64,
        _ => return None,
    })
}

struct Written {
    dtype: Dtype,
    tensor: Tensor,
}

impl View for Written {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        self.tensor.shape()
    }

    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        let start = self.tensor.layout().offset * self.tensor.dtype().size();
        // An empty view may start past the end.
        self.tensor.storage().cpu::<u8>().get(start..start + self.data_len()).unwrap_or_default().into()
    }

    fn data_len(&self) -> usize {
        self.tensor.elements() * self.tensor.dtype().size()
    }
}

/// Writes tensors to a safetensors file at `path`, with `metadata` in its header.
///
/// # Errors
/// When the file cannot be written; an older one at `path` is then left as it was.
pub fn save_safetensors(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (String, Tensor)>,
    metadata: &[(&str, &str)],
) -> Result<()> {
    let path = path.as_ref();
    let mut written = BTreeMap::new();
    for (name, tensor) in tensors {
        let dtype = match tensor.dtype() {
            DType::F32 => Dtype::F32,
            DType::F64 => Dtype::F64,
            DType::BF16 => Dtype::BF16,
            DType::F16 => Dtype::F16,
            DType::U32 => Dtype::U32,
            DType::I64 => Dtype::I64,
        };
        written.insert(name, Written { dtype, tensor: tensor.values()? });
    }
    let bytes = ::safetensors::serialize(written, None)
        .map_err(|error| Error::format(path, format!("cannot be written: {error}")))?;
    let bytes = with_metadata(bytes, metadata).ok_or_else(|| Error::format(path, "cannot be written: no header"))?;
    write_file_atomically(path, &bytes).map_err(|error| Error::io(path, "cannot write", error))
}

/// A safetensors file with `metadata` put into its header, sorted: the crate writes them in random order, and
/// equal models should be equal files.
fn with_metadata(file: Vec<u8>, metadata: &[(&str, &str)]) -> Option<Vec<u8>> {
    if metadata.is_empty() {
        return Some(file);
    }
    let (length, rest) = file.split_first_chunk::<8>()?;
    let (header, data) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let entries = header.trim_ascii_end().strip_prefix(b"{")?;
    let sorted: BTreeMap<&str, &str> = metadata.iter().copied().collect();
    let pairs: Vec<String> =
        sorted.iter().map(|(key, value)| format!("{}:{}", json_string(key), json_string(value))).collect();
    let comma = if entries == b"}" { "" } else { "," };
    let mut header = format!("{{\"__metadata__\":{{{}}}{comma}", pairs.join(",")).into_bytes();
    header.extend_from_slice(entries);
    // Tensors start at a multiple of 8 bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    Some([&(header.len() as u64).to_le_bytes()[..], &header, data].concat())
}

fn json_string(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c < ' ' => quoted.push_str(&format!("\\u{:04x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// Replaces the file at `path` by one with these bytes: a reader sees the old one or the new one, never half of
/// one, and a full disk leaves the old one whole. The bytes go to a file beside it, with the permissions that any
/// new file gets, which is synced and takes the name.
///
/// # Errors
/// When the system refuses.
#[doc(hidden)]
pub fn write_file_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> std::io::Result<()> {
    replace_with(path.as_ref(), |file| file.write_all(bytes))
}

/// As [`write_file_atomically`], with what `write` writes.
///
/// # Errors
/// When `write` fails or the system refuses.
#[doc(hidden)]
pub fn replace_with(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> std::io::Result<()> {
    static UNIQUE: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_string_lossy();
    let unique = UNIQUE.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_file_name(format!(".{name}.{}.{unique}.tmp", std::process::id()));
    let written = (|| {
        let mut file = BufWriter::new(File::create_new(&temporary)?);
        write(&mut file)?;
        file.into_inner()?.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // The first failure is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_of_every_type_and_layout() -> Result<()> {
        let folder = tempfile::tempdir().map_err(|error| Error::io("", "cannot create", error))?;
        let path = folder.path().join("t.safetensors");
        let x = Tensor::new([[1f32, 2.0, 3.0], [4.0, 5.0, 6.5]], &Device::Cpu)?;
        let all = [DType::F32, DType::F64, DType::BF16, DType::F16, DType::U32, DType::I64];
        let tensors =
            all.iter().map(|&dtype| Ok((dtype.to_string(), x.to_dtype(dtype)?.t()?))).collect::<Result<Vec<_>>>()?;
        save_safetensors(&path, tensors, &[("format", "pt")])?;
        let file = SafetensorsFile::open(&path)?;
        assert_eq!(file.names().len(), all.len());
        for dtype in all {
            let read = file.tensor(&dtype.to_string(), &Device::Cpu)?;
            assert_eq!((read.shape(), read.dtype()), (&[3, 2][..], dtype));
            let expected = x.to_dtype(dtype)?.to_dtype(DType::F64)?.t()?.to_vec::<f64>()?;
            assert_eq!(read.to_dtype(DType::F64)?.to_vec::<f64>()?, expected);
        }
        Ok(())
    }

    #[test]
    fn foreign_and_truncated_files_are_named() -> Result<()> {
        let folder = tempfile::tempdir().map_err(|error| Error::io("", "cannot create", error))?;
        let path = folder.path().join("model.safetensors");
        save_safetensors(&path, [("x".to_string(), Tensor::zeros(&[64], DType::F32, &Device::Cpu)?)], &[])?;
        let whole = std::fs::read(&path).expect("just written");
        let hostile: [&[u8]; 5] =
            [b"", b"PK\x03\x04 not safetensors", &whole[..whole.len() - 1], &whole[..20], &[0xff; 16]];
        for bytes in hostile {
            std::fs::write(&path, bytes).expect("a temporary folder can be written");
            let Err(error) = SafetensorsFile::open(&path) else { panic!("{} bytes were accepted", bytes.len()) };
            assert!(error.to_string().contains("model.safetensors"), "{error}");
        }
        Ok(())
    }

    #[test]
    fn metadata_are_sorted_and_quoted_and_empty_views_are_written() -> Result<()> {
        let folder = tempfile::tempdir().map_err(|error| Error::io("", "cannot create", error))?;
        let path = folder.path().join("t.safetensors");
        let x = Tensor::new([[1f32, 2.0], [3.0, 4.0]], &Device::Cpu)?;
        let tensors = || [("empty".to_string(), x.narrow(0, 2, 0).expect("nothing")), ("x".to_string(), x.clone())];
        let keys: Vec<String> = (0..9).map(|i| format!("key {i}")).collect();
        let mut metadata: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "a \"\\\n")).collect();
        save_safetensors(&path, tensors(), &metadata)?;
        let first = std::fs::read(&path).expect("just written");
        metadata.reverse();
        save_safetensors(&path, tensors(), &metadata)?;
        assert_eq!(std::fs::read(&path).expect("just written"), first);
        let file = SafetensorsFile::open(&path)?;
        assert_eq!(
            file.metadata.metadata().as_ref().and_then(|all| all.get("key 3")).map(String::as_str),
            Some("a \"\\\n")
        );
        assert_eq!(file.tensor("empty", &Device::Cpu)?.shape(), [0, 2]);
        assert_eq!(file.tensor("x", &Device::Cpu)?.to_vec::<f32>()?, [1.0, 2.0, 3.0, 4.0]);
        save_safetensors(&path, [], &[("a", "b")])?;
        assert!(SafetensorsFile::open(&path)?.names().is_empty());
        assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 1);
        Ok(())
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() -> Result<()> {
        let x = Tensor::zeros(&[1], DType::F32, &Device::Cpu)?;
        let Err(error) = save_safetensors("/no/such/folder/x.safetensors", [("x".to_string(), x)], &[]) else {
            panic!("it was written")
        };
        assert!(error.to_string().starts_with("/no/such/folder/x.safetensors: cannot write"), "{error}");
        Ok(())
    }
}
