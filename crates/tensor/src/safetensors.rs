//! Reading and writing safetensors files.
//!
//! Files are memory-mapped: a tensor read is a view of the file where its bytes are aligned for its type,
//! and a copy otherwise. Files are written under a temporary name in the same folder, synced, and renamed,
//! so that a reader never sees half of one and a full disk leaves the old one whole.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
        self.tensor.storage().cpu::<u8>()[start..start + self.data_len()].into()
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
            DType::Bool => Dtype::BOOL,
        };
        written.insert(name, Written { dtype, tensor: tensor.detach().contiguous()? });
    }
    let metadata: HashMap<String, String> =
        metadata.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let metadata = Some(metadata).filter(|metadata| !metadata.is_empty());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|error| Error::io(path, "cannot write", error))?;
    let written = ::safetensors::serialize(written, metadata)
        .map_err(|error| Error::format(path, format!("cannot be written: {error}")))?;
    let write = file.write_all(&written).and_then(|()| file.as_file().sync_all());
    write.map_err(|error| Error::io(path, "cannot write", error))?;
    make_readable(file.as_file());
    file.persist(path).map_err(|error| Error::io(path, "cannot write", error.error))?;
    Ok(())
}

/// Temporary files are private; a model is not.
fn make_readable(file: &File) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A file that stays private is still a good file.
        let _ = file.set_permissions(std::fs::Permissions::from_mode(0o644));
    }
    #[cfg(not(unix))]
    let _ = file;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_of_every_type_and_layout() -> Result<()> {
        let folder = tempfile::tempdir().map_err(|error| Error::io("", "cannot create", error))?;
        let path = folder.path().join("t.safetensors");
        let x = Tensor::new(&[[1f32, 2.0, 3.0], [4.0, 5.0, 6.5]], &Device::Cpu)?;
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
    fn a_folder_that_is_not_there_is_an_error() -> Result<()> {
        let x = Tensor::zeros(&[1], DType::F32, &Device::Cpu)?;
        let Err(error) = save_safetensors("/no/such/folder/x.safetensors", [("x".to_string(), x)], &[]) else {
            panic!("it was written")
        };
        assert!(error.to_string().starts_with("/no/such/folder/x.safetensors: cannot write"), "{error}");
        Ok(())
    }
}
