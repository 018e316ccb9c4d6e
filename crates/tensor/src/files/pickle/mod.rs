//! A pickle reader for PyTorch state dicts only.
//!
//! A pickle is a program for a stack machine. The reader implements the opcodes that `torch.save` writes for
//! dictionaries of tensors, and accepts the globals of [`Global`]. Everything else is an error that names the opcode or
//! global. No global is ever looked up or called: the result of `REDUCE` is hard-coded for each of them.
//!
//! Containers are represented by numbers, and the contents of all containers are in flat lists. So nothing recurses,
//! however deeply a file nests, and memory grows by a few words per operation, whose number is limited.

mod interpreter;
mod opcode;

use interpreter::Interpreter;

use super::mapped::FileType;
use crate::dtype::DType;
use crate::layout::MAX_RANK;

/// A value that a pickle builds.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// A floating-point number, whose value is not needed.
    Float,
    Text(&'a str),
    Tuple(Items),
    List(u32),
    Dict(u32),
    /// A dictionary that can have attributes. `state_dict()` returns one with the versions of the modules.
    OrderedDict(u32),
    Global(Global),
    Storage(u32),
    Tensor(u32),
}

impl Value<'_> {
    fn size(self) -> Option<usize> {
        match self {
            Value::Int(number) => usize::try_from(number).ok(),
            _ => None,
        }
    }
}

/// The items of a tuple, as a range of the items of all tuples.
#[derive(Clone, Copy)]
pub(super) struct Items {
    start: u32,
    count: u32,
}

/// The globals that a state dict may name.
#[derive(Clone, Copy)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Size,
    Storage(FileType),
}

const GLOBALS: [(&str, &str, Global); 14] = [
    ("collections", "OrderedDict", Global::OrderedDict),
    ("torch._utils", "_rebuild_tensor_v2", Global::RebuildTensor),
    ("torch._utils", "_rebuild_parameter", Global::RebuildParameter),
    ("torch", "Size", Global::Size),
    storage("FloatStorage", 32, Some(DType::F32)),
    storage("HalfStorage", 16, Some(DType::F16)),
    storage("BFloat16Storage", 16, Some(DType::BF16)),
    storage("DoubleStorage", 64, Some(DType::F64)),
    storage("LongStorage", 64, Some(DType::I64)),
    storage("IntStorage", 32, None),
    storage("ShortStorage", 16, None),
    storage("CharStorage", 8, None),
    storage("ByteStorage", 8, None),
    storage("BoolStorage", 8, None),
];

const fn storage(name: &'static str, bits: usize, dtype: Option<DType>) -> (&'static str, &'static str, Global) {
    ("torch", name, Global::Storage(FileType { name, bits, dtype }))
}

/// A storage, which tensors are views of, with the key of its bytes in the file.
#[derive(Clone, Copy)]
pub(super) struct PickledStorage<'a> {
    pub(super) key: &'a str,
    pub(super) file_type: FileType,
    pub(super) elements: usize,
}

/// A tensor as a view of a storage. Its numbers are not negative, but its bounds are not checked.
pub(super) struct StorageView<'a> {
    pub(super) storage: PickledStorage<'a>,
    /// Offset in elements, like the strides.
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// A [`StorageView`] before its sizes are resolved.
struct Rebuilt {
    storage: u32,
    offset: usize,
    shape: Items,
    strides: Items,
}

/// The values built by a pickle.
pub(super) struct Pickle<'a> {
    pub(super) root: Value<'a>,
    /// Offset of the byte after the pickle.
    pub(super) end: usize,
    contents: Contents<'a>,
}

/// The contents of all values.
#[derive(Default)]
struct Contents<'a> {
    /// Items of all tuples, one tuple after the other.
    tuples: Vec<Value<'a>>,
    /// Items of all lists, each with the number of its list.
    lists: Vec<(u32, Value<'a>)>,
    /// Entries with string keys of all dictionaries, each with the number of its dictionary.
    dicts: Vec<(u32, &'a str, Value<'a>)>,
    storages: Vec<PickledStorage<'a>>,
    tensors: Vec<Rebuilt>,
    /// Number of lists and dictionaries.
    containers: u32,
}

impl<'a> Contents<'a> {
    fn tuple(&self, items: Items) -> &[Value<'a>] {
        let start = items.start as usize;
        self.tuples.get(start..start + items.count as usize).unwrap_or_default()
    }
}

impl<'a> Pickle<'a> {
    /// Interprets the pickle that begins at byte `start`.
    pub(super) fn read(bytes: &'a [u8], start: usize) -> Result<Pickle<'a>, String> {
        Interpreter::new(bytes, start).run()
    }

    /// Returns the entries with string keys of a dictionary, and none for other values.
    pub(super) fn entries(&self, dict: Value<'a>) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        let id = match dict {
            Value::Dict(id) | Value::OrderedDict(id) => Some(id),
            _ => None,
        };
        self.contents.dicts.iter().filter(move |(owner, ..)| Some(*owner) == id).map(|&(_, key, value)| (key, value))
    }

    /// Returns the items of a list, and none for other values.
    pub(super) fn items(&self, list: Value<'a>) -> impl Iterator<Item = Value<'a>> {
        let id = if let Value::List(id) = list { Some(id) } else { None };
        self.contents.lists.iter().filter(move |(owner, _)| Some(*owner) == id).map(|&(_, value)| value)
    }

    /// Returns all storages, once for each tensor that views them.
    pub(super) fn storages(&self) -> &[PickledStorage<'a>] {
        &self.contents.storages
    }

    /// Returns the tensor of a [`Value::Tensor`].
    ///
    /// # Errors
    /// Returns an error if a size is invalid, or if there are more dimensions than a tensor can have. The number of
    /// dimensions is checked before they are copied, because a file may refer to one long tuple many times.
    pub(super) fn view(&self, tensor: u32) -> Result<StorageView<'a>, String> {
        let Contents { tensors, storages, .. } = &self.contents;
        let known = tensors.get(tensor as usize).and_then(|view| Some((view, *storages.get(view.storage as usize)?)));
        let (view, storage) = known.ok_or("is not in the file")?;
        if view.shape.count as usize > MAX_RANK {
            return Err(format!("has {} dimensions, at most {MAX_RANK} are supported", view.shape.count));
        }
        if view.shape.count != view.strides.count {
            return Err(format!("has {} sizes and {} strides", view.shape.count, view.strides.count));
        }
        let sizes = |items| self.contents.tuple(items).iter().map(|item| item.size()).collect::<Option<Vec<_>>>();
        let sizes = sizes(view.shape).zip(sizes(view.strides));
        let (shape, strides) = sizes.ok_or("has a size or stride that is not a non-negative integer")?;
        Ok(StorageView { storage, offset: view.offset, shape, strides })
    }
}
