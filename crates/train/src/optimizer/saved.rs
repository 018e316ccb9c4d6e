//! The tensors of a checkpoint. Each is whole in one file, or consists of the pieces that the ranks of a job have written.
//!
//! A piece of the flat tensor `mean.bert.pooler.dense.weight` is named `mean.bert.pooler.dense.weight[4096..8192]`. Whoever
//! reads it thus needs to know neither how many ranks there were nor how they cut the parameters.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use cloze_tensor::{Device, ParameterRange, TensorFile};

use super::sharded::parts;
use crate::{Error, Result};

/// The open files of a checkpoint.
pub(crate) struct SavedTensors {
    folder: PathBuf,
    files: Vec<TensorFile>,
    /// The pieces of each tensor, by their first element: their end, and their file.
    pieces: BTreeMap<String, BTreeMap<usize, (usize, usize)>>,
}

/// Returns the name of a piece of tensor `name`.
pub(super) fn piece_name(name: &str, elements: &Range<usize>) -> String {
    format!("{name}[{}..{}]", elements.start, elements.end)
}

/// Returns the tensor and the elements of a piece, or `None` if this is the name of a whole tensor.
fn parse(name: &str) -> Option<(&str, Range<usize>)> {
    let (tensor, elements) = name.strip_suffix(']')?.rsplit_once('[')?;
    let (start, end) = elements.split_once("..")?;
    Some((tensor, start.parse().ok()?..end.parse().ok()?))
}

impl SavedTensors {
    /// Opens the files of a checkpoint.
    ///
    /// # Errors
    /// Returns the errors of [`TensorFile::open`].
    pub(crate) fn open(folder: &Path, files: &[PathBuf]) -> Result<SavedTensors> {
        let files = files.iter().map(TensorFile::open).collect::<cloze_tensor::Result<Vec<_>>>()?;
        let mut pieces: BTreeMap<String, BTreeMap<usize, (usize, usize)>> = BTreeMap::new();
        for (number, file) in files.iter().enumerate() {
            for name in file.names() {
                if let Some((tensor, elements)) = parse(&name) {
                    pieces.entry(tensor.to_string()).or_default().insert(elements.start, (elements.end, number));
                }
            }
        }
        Ok(SavedTensors { folder: folder.to_path_buf(), files, pieces })
    }

    /// Reads a part of the flat values of `parameters`, whose tensors have names that begin with `kind`.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing, or has another shape or too few elements.
    pub(super) fn read(
        &self,
        kind: &str,
        parameters: &[ParameterRange],
        flat: Range<usize>,
        values: &mut [f32],
    ) -> Result<()> {
        for (at, part) in parts(parameters, &flat) {
            let parameter = &parameters[at];
            let to = &mut values[part.start - flat.start..part.end - flat.start];
            let elements = part.start - parameter.range.start..part.end - parameter.range.start;
            self.read_parameter(&format!("{kind}{}", parameter.name), &parameter.shape, elements, to)?;
        }
        Ok(())
    }

    fn read_parameter(&self, name: &str, shape: &[usize], elements: Range<usize>, values: &mut [f32]) -> Result<()> {
        let Some(pieces) = self.pieces.get(name) else { return self.read_whole(name, shape, elements, values) };
        let mut next = elements.start;
        while next < elements.end {
            let piece = pieces.range(..=next).next_back().filter(|(_, (end, _))| *end > next);
            let Some((&start, &(end, file))) = piece else {
                let why = format!("{name} lacks the elements from {next}: the file of a rank is missing");
                return Err(Error::data_in(&self.folder, "checkpoint", why));
            };
            let (last, file) = (end.min(elements.end), &self.files[file]);
            let tensor = file.tensor(&piece_name(name, &(start..end)), &Device::Cpu)?;
            if tensor.shape() != [end - start] {
                let why = format!("{} has shape {:?}", piece_name(name, &(start..end)), tensor.shape());
                return Err(Error::data_in(file.path(), "checkpoint", why));
            }
            let found = tensor.narrow(0, next - start, last - next)?.to_vec::<f32>()?;
            values[next - elements.start..last - elements.start].copy_from_slice(&found);
            next = last;
        }
        Ok(())
    }

    fn read_whole(&self, name: &str, shape: &[usize], elements: Range<usize>, values: &mut [f32]) -> Result<()> {
        let file = self.files.iter().find(|file| file.shape(name).is_some());
        let Some(file) = file else {
            return Err(Error::data_in(&self.folder, "checkpoint", format!("has no tensor {name}")));
        };
        let tensor = file.tensor(name, &Device::Cpu)?;
        if tensor.shape() != shape {
            let why = format!("{name} has shape {:?}, expected {shape:?}", tensor.shape());
            return Err(Error::data_in(file.path(), "checkpoint", why));
        }
        let flat = tensor.reshape(&[tensor.elements()])?;
        values.copy_from_slice(&flat.narrow(0, elements.start, elements.len())?.to_vec::<f32>()?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pieces_say_what_they_are() {
        assert_eq!(parse(&piece_name("mean.a.b", &(3..70))), Some(("mean.a.b", 3..70)));
        for whole in ["mean.a.b", "mean.a[3]", "mean.a[b..c]", "mean.a[3..70].b"] {
            assert_eq!(parse(whole), None, "{whole}");
        }
    }
}
