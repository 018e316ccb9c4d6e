//! A reader of pickles that knows what the state dicts of PyTorch are made of, and nothing more.
//!
//! A pickle is a program for a machine with a stack. Of its opcodes those that `torch.save` writes for dictionaries
//! of tensors are known, of the globals that it may name those of [`Global`]; everything else is refused by name.
//! Globals are never looked up and nothing is called: what `REDUCE` of the known ones makes is spelled out.
//!
//! Containers are numbers, and what is in them lies in flat lists. So nothing recurses, however deep a file nests,
//! and memory grows by a few words an operation, of which a limited number is run.

mod machine;
mod opcode;

use machine::Machine;

use super::mapped::FileType;
use crate::DType;
use crate::layout::MAX_RANK;

/// What a pickle makes.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// A number whose value nobody needs.
    Float,
    Text(&'a str),
    Tuple(Items),
    List(u32),
    Dict(u32),
    /// A dictionary that can have attributes: `state_dict()` gives one with the versions of the modules.
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

/// Where the items of a tuple are among those of all tuples.
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

/// Memory that tensors view, under the name by which the file has its bytes.
#[derive(Clone, Copy)]
pub(super) struct Storage<'a> {
    pub(super) key: &'a str,
    pub(super) file_type: FileType,
    pub(super) elements: usize,
}

/// A tensor as a view of a storage. Nothing is checked but that the numbers are not negative.
pub(super) struct StorageView<'a> {
    pub(super) storage: Storage<'a>,
    /// In elements, like the strides.
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// A [`StorageView`] as long as it is in the pickle.
struct Rebuilt {
    storage: u32,
    offset: usize,
    shape: Items,
    strides: Items,
}

/// What a pickle made.
pub(super) struct Pickle<'a> {
    pub(super) root: Value<'a>,
    /// The byte after it.
    pub(super) end: usize,
    made: Made<'a>,
}

/// The contents of all that the machine makes.
#[derive(Default)]
struct Made<'a> {
    /// Items of all tuples, one tuple after the other.
    tuples: Vec<Value<'a>>,
    /// Items of all lists, each with the list.
    lists: Vec<(u32, Value<'a>)>,
    /// Entries of all dictionaries whose key is a text, each with the dictionary.
    dicts: Vec<(u32, &'a str, Value<'a>)>,
    storages: Vec<Storage<'a>>,
    tensors: Vec<Rebuilt>,
    /// How many lists and dictionaries there are.
    containers: u32,
}

impl<'a> Made<'a> {
    fn tuple(&self, items: Items) -> &[Value<'a>] {
        let start = items.start as usize;
        self.tuples.get(start..start + items.count as usize).unwrap_or_default()
    }
}

impl<'a> Pickle<'a> {
    /// Runs the pickle that begins at byte `start`.
    pub(super) fn read(bytes: &'a [u8], start: usize) -> Result<Pickle<'a>, String> {
        Machine::new(bytes, start).run()
    }

    /// The entries of a dictionary whose keys are texts; nothing for other values.
    pub(super) fn entries(&self, dict: Value<'a>) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        let id = match dict {
            Value::Dict(id) | Value::OrderedDict(id) => Some(id),
            _ => None,
        };
        self.made.dicts.iter().filter(move |(owner, ..)| Some(*owner) == id).map(|&(_, key, value)| (key, value))
    }

    /// The items of a list; nothing for other values.
    pub(super) fn items(&self, list: Value<'a>) -> impl Iterator<Item = Value<'a>> {
        let id = if let Value::List(id) = list { Some(id) } else { None };
        self.made.lists.iter().filter(move |(owner, _)| Some(*owner) == id).map(|&(_, value)| value)
    }

    /// All storages that are named; one that several tensors view, several times.
    pub(super) fn storages(&self) -> &[Storage<'a>] {
        &self.made.storages
    }

    /// The tensor of a [`Value::Tensor`].
    ///
    /// # Errors
    /// When its sizes are none, or more than a tensor can have: a file may name one long list many times.
    pub(super) fn view(&self, tensor: u32) -> Result<StorageView<'a>, String> {
        let Made { tensors, storages, .. } = &self.made;
        let known = tensors.get(tensor as usize).and_then(|view| Some((view, *storages.get(view.storage as usize)?)));
        let (view, storage) = known.ok_or("is not in the file")?;
        if view.shape.count as usize > MAX_RANK {
            return Err(format!("has {} dimensions, at most {MAX_RANK} are supported", view.shape.count));
        }
        if view.shape.count != view.strides.count {
            return Err(format!("has {} sizes and {} strides", view.shape.count, view.strides.count));
        }
        let sizes = |items| self.made.tuple(items).iter().map(|item| item.size()).collect::<Option<Vec<_>>>();
        let sizes = sizes(view.shape).zip(sizes(view.strides));
        let (shape, strides) = sizes.ok_or("has a size or stride that is not a number from 0 up")?;
        Ok(StorageView { storage, offset: view.offset, shape, strides })
    }
}
