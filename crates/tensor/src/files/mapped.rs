//! Files mapped into memory, and the tensors in them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::device::Device;
use crate::dtype::DType;
use crate::element::element;
use crate::error::{Error, Result};
use crate::files::retry;
use crate::layout::{Dims, Layout, MAX_RANK};
use crate::memory::Buffer;
use crate::storage::Storage;
use crate::tensor::Origin;
use crate::tensor::Tensor;

/// An element type of a file format.
#[derive(Clone, Copy)]
pub(super) struct FileType {
    pub(super) name: &'static str,
    /// Number of bits per element.
    pub(super) bits: usize,
    /// `None` for types that this crate does not support.
    pub(super) dtype: Option<DType>,
}

impl FileType {
    /// Returns the size of `elements` elements in bytes, or `None` if it is not an integer or overflows.
    pub(super) fn bytes(self, elements: usize) -> Option<usize> {
        let bits = elements.checked_mul(self.bits)?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }
}

/// Position, type and shape of a tensor in a file. Its bounds are checked when the tensor is read.
pub(super) struct TensorEntry {
    /// Offset of the first element in bytes.
    pub(super) start: usize,
    pub(super) file_type: FileType,
    pub(super) shape: Vec<usize>,
    /// Strides in elements, or `None` for row-major.
    pub(super) strides: Option<Vec<usize>>,
}

/// The tensors of a file, by name.
pub(super) type TensorEntries = BTreeMap<String, TensorEntry>;

/// Returns the number of elements of a tensor with the given shape, or `None` if the product of the sizes overflows, from the
/// first to the last: before a size of 0 too, as in the reference implementation of safetensors.
pub(super) fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))
}

impl TensorEntry {
    /// Returns the number of elements of storage from the first to the last element, or `None` if it overflows.
    pub(super) fn span(&self) -> Option<usize> {
        let Some(strides) = &self.strides else { return elements(&self.shape) };
        if self.shape.contains(&0) {
            return Some(0);
        }
        self.shape
            .iter()
            .zip(strides)
            .try_fold(1usize, |span, (&size, &stride)| span.checked_add(size.checked_sub(1)?.checked_mul(stride)?))
    }
}

/// A file in memory. Miri cannot map files, so it reads them.
#[cfg(not(miri))]
pub(crate) type FileMap = memmap2::Mmap;
/// The bytes of a file, in memory of the process.
#[cfg(miri)]
pub(crate) type FileMap = memmap2::MmapMut;

/// A file mapped into memory.
pub(super) struct MappedFile {
    path: PathBuf,
    map: Arc<FileMap>,
}

/// Maps a file, which no process may modify as long as the map lives.
#[cfg(not(miri))]
fn map(file: &File) -> std::io::Result<FileMap> {
    // SAFETY: a mapping is sound as long as no process modifies the file, which the documentation of `TensorFile` requires.
    // Writers of this crate replace files by renaming and never modify them.
    unsafe { FileMap::map(file) }
}

#[cfg(miri)]
fn map(mut file: &File) -> std::io::Result<FileMap> {
    let mut map = FileMap::map_anon(file.metadata()?.len() as usize)?;
    std::io::Read::read_exact(&mut file, &mut map)?;
    Ok(map)
}

impl MappedFile {
    pub(super) fn open(path: &Path) -> Result<MappedFile> {
        let cannot_read = |error| Error::io(path, "cannot read", error);
        // Pipes cannot be mapped, and opening one blocks until there is a writer.
        if !retry(|| fs::metadata(path)).map_err(cannot_read)?.is_file() {
            return Err(Error::format(path, "is not a file"));
        }
        let file = File::open(path).map_err(cannot_read)?;
        let map = retry(|| map(&file)).map_err(|error| Error::io(path, "cannot map", error))?;
        Ok(MappedFile { path: path.to_path_buf(), map: Arc::new(map) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Returns an error that names this file.
    pub(super) fn wrong(&self, reason: impl Into<String>) -> Error {
        Error::format(&self.path, reason)
    }

    /// Returns the tensor described by `entry`, row-major. It is a view of the file if its bytes are row-major and
    /// aligned for its type, otherwise a copy.
    pub(super) fn tensor(&self, name: &str, entry: &TensorEntry, device: &Device) -> Result<Tensor> {
        const OP: &str = "read";
        let name = shown(name);
        let Some(dtype) = entry.file_type.dtype else {
            return Err(self.wrong(format!("{name}: type {} is not supported", entry.file_type.name)));
        };
        if entry.shape.len() > MAX_RANK {
            let reason = format!("{name} has {} dimensions, at most {MAX_RANK} are supported", entry.shape.len());
            return Err(self.wrong(reason));
        }
        let row_major = Layout::contiguous(OP, &entry.shape)
            .map_err(|_| self.wrong(format!("{name}: shape {:?} has too many elements to address", entry.shape)))?;
        let layout = match &entry.strides {
            Some(strides) => Layout { strides: Dims::new(OP, strides)?, ..row_major },
            None => row_major,
        };
        let buffer = entry.span().and_then(|span| span.checked_mul(dtype.size())).and_then(|bytes| {
            // Files may state any offset for an empty tensor.
            let start = if bytes == 0 { 0 } else { entry.start };
            Buffer::mapped(self.map.clone(), start..start.checked_add(bytes)?)
        });
        let buffer = buffer.ok_or_else(|| self.wrong(format!("is truncated: it ends inside tensor {name}")))?;
        let is_aligned = element!(OP, dtype, T => buffer.is_aligned_for::<T>());
        let storage = match is_aligned {
            true => Storage::Cpu(Arc::new(buffer)),
            false => element!(OP, dtype, T => {
                let bytes = buffer.slice::<u8>(0..buffer.len());
                let copy = Tensor::build(OP, &[bytes.len() / dtype.size()], &Device::Cpu, |to: &mut [T]| {
                    bytemuck::cast_slice_mut(to).copy_from_slice(bytes);
                })?;
                copy.storage().clone()
            }),
        };
        let tensor = |layout| Tensor::from_parts(storage, layout, dtype, Origin::Constant);
        let tensor = if layout.is_contiguous() { tensor(row_major) } else { tensor(layout).copied()? };
        tensor.to_device(device)
    }
}

/// Escapes and shortens text from a file to show it on one line of an error.
pub(super) fn shown(text: &str) -> String {
    const LENGTH: usize = 120;
    match text.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("{}...", text[..end].escape_debug()),
        None => text.escape_debug().to_string(),
    }
}

/// Lists the first few texts, as [`shown`] formats them, and the number of others.
pub(super) fn shown_list<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    const FEW: usize = 5;
    let mut texts = texts.into_iter();
    let mut list: Vec<String> = texts.by_ref().take(FEW).map(shown).collect();
    match texts.count() {
        0 => {}
        more => list.push(format!("and {more} more")),
    }
    list.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_view(tensor: &Tensor) -> bool {
        match tensor.storage() {
            Storage::Cpu(buffer) => buffer.is_mapped(),
            #[cfg(feature = "cuda")]
            Storage::Cuda(_) => false,
        }
    }

    #[test]
    fn aligned_row_major_tensors_are_views_and_others_are_copied() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("numbers");
        let file_type = FileType { name: "F32", bits: 32, dtype: Some(DType::F32) };
        for shift in 0..8u8 {
            let numbers = (0..12).flat_map(|i| (i as f32).to_le_bytes());
            std::fs::write(&path, (0..shift).map(|_| 7).chain(numbers).collect::<Vec<u8>>()).unwrap();
            let file = MappedFile::open(&path).unwrap();
            let check = |first: usize, shape: &[usize], strides: Option<&[usize]>, rows: bool, expected: &[f32]| {
                let (start, strides) = (usize::from(shift) + 4 * first, strides.map(<[usize]>::to_vec));
                let entry = TensorEntry { start, file_type, shape: shape.to_vec(), strides };
                let tensor = file.tensor("x", &entry, &Device::Cpu).unwrap();
                assert_eq!((tensor.shape(), tensor.to_vec::<f32>().unwrap().as_slice()), (shape, expected));
                assert_eq!(is_view(&tensor), rows && shift % 4 == 0, "{shape:?} from byte {start}");
            };
            check(1, &[2, 3], None, true, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
            check(1, &[2, 3], Some(&[3, 1]), true, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
            check(1, &[1, 3], Some(&[99, 1]), true, &[1.0, 2.0, 3.0]);
            check(11, &[], Some(&[]), true, &[11.0]);
            check(0, &[3, 2], Some(&[1, 3]), false, &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
            check(2, &[3], Some(&[4]), false, &[2.0, 6.0, 10.0]);
            check(3, &[2, 2], Some(&[0, 5]), false, &[3.0, 8.0, 3.0, 8.0]);
            let beyond = TensorEntry { start: usize::from(shift) + 4, file_type, shape: vec![12], strides: None };
            let said = file.tensor("x", &beyond, &Device::Cpu).err().unwrap().to_string();
            assert!(said.ends_with("numbers: is truncated: it ends inside tensor x"), "{said}");
        }
    }

    #[test]
    fn text_of_files_is_escaped_and_shortened() {
        assert_eq!(shown("a\nção"), "a\\nção");
        assert_eq!(shown(&"\n".repeat(500)), "\\n".repeat(120) + "...");
        assert_eq!(shown_list(["a", "b"]), "a, b");
        assert_eq!(shown_list(["\n"; 7]), "\\n, \\n, \\n, \\n, \\n, and 2 more");
    }

    #[test]
    fn spans_that_overflow_are_none() {
        let entry = |shape: &[usize], strides: &[usize]| TensorEntry {
            start: 0,
            file_type: FileType { name: "F32", bits: 32, dtype: Some(DType::F32) },
            shape: shape.to_vec(),
            strides: Some(strides.to_vec()),
        };
        assert_eq!(entry(&[3, 4], &[10, 2]).span(), Some(27));
        assert_eq!(entry(&[3, 0], &[usize::MAX, 1]).span(), Some(0));
        assert_eq!(entry(&[3, 2], &[usize::MAX, 1]).span(), None);
        assert_eq!(entry(&[3, 2], &[usize::MAX / 2, usize::MAX / 2]).span(), None);
        assert_eq!(elements(&[usize::MAX, 0, usize::MAX]), Some(0));
        assert_eq!(elements(&[1 << 32, 1 << 32]), None);
        assert_eq!(elements(&[usize::MAX, 24, 0]), None);
    }
}
