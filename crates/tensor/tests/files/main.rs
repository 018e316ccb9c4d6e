//! Tests of tensor files: files of other libraries, our own files, and malformed ones.

mod crafted;
mod memory;
mod random;
mod refused;
mod safetensors_files;
mod shards;
mod torch_save;

use std::path::{Path, PathBuf};

use cloze_tensor::{DType, Device, TensorFile};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A temporary directory of a test.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Result<Folder> {
        Ok(Folder(tempfile::tempdir()?))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        std::fs::write(self.path(name), bytes)?;
        Ok(self.path(name))
    }

    /// Returns the error for a file with the given bytes, without the path of the directory.
    fn refused(&self, name: &str, bytes: &[u8]) -> Result<String> {
        let path = self.write(name, bytes)?;
        self.said(TensorFile::open(path))
    }

    fn said<T>(&self, result: cloze_tensor::Result<T>) -> Result<String> {
        let said = result.err().ok_or("accepted")?.to_string();
        assert!(!said.contains('\n'), "more than one line: {said}");
        let folder = format!("{}{}", self.0.path().display(), std::path::MAIN_SEPARATOR);
        Ok(said.replace(&folder, ""))
    }
}

/// Opens a file and reads all its tensors. Errors are ignored.
fn read_all(path: &Path) {
    let Ok(file) = TensorFile::open(path) else { return };
    for name in file.names() {
        let shape = file.shape(&name).expect("listed tensors have a shape").to_vec();
        if let Ok(tensor) = file.tensor(&name, &Device::Cpu) {
            assert_eq!((tensor.shape(), Some(tensor.dtype())), (&shape[..], file.dtype(&name)));
            let sum = tensor.to_dtype(DType::F64).and_then(|tensor| tensor.sum_all()).and_then(|sum| sum.item());
            sum.expect("tensors that were read can be summed");
        }
    }
}
