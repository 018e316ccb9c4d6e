//! The machine that runs a pickle.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::super::cursor::Cursor;
use super::super::mapped::shown;
use super::{GLOBALS, Global, Items, Made, Pickle, Rebuilt, Storage, Value, opcode};

/// About forty of these make a tensor, so this is a file of a hundred thousand.
const MAX_OPERATIONS: usize = 1 << 22;
/// What `torch.save` writes unless told otherwise, and what its own restricted reader takes.
const PROTOCOL: u8 = 2;
/// The longest name of a module or global that is looked at; those that are known are far shorter.
const MAX_NAME: usize = 256;

/// The state of a run.
pub(super) struct Machine<'a> {
    cursor: Cursor<'a>,
    /// The opcode that is being run, and where it is.
    opcode: u8,
    at: usize,
    stack: Vec<Value<'a>>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Value<'a>>,
    made: Made<'a>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8], start: usize) -> Machine<'a> {
        let (stack, marks, memo, made) = Default::default();
        Machine { cursor: Cursor::new(bytes, start), opcode: opcode::STOP, at: start, stack, marks, memo, made }
    }

    pub(super) fn run(mut self) -> Result<Pickle<'a>, String> {
        for _ in 0..MAX_OPERATIONS {
            self.at = self.cursor.at;
            self.opcode = self.cursor.byte().ok_or_else(|| format!("ends at byte {} inside a pickle", self.at))?;
            if self.opcode == opcode::STOP {
                let root = self.pop()?;
                return Ok(Pickle { root, end: self.cursor.at, made: self.made });
            }
            self.step()?;
        }
        Err(format!("takes more than {MAX_OPERATIONS} pickle operations, too many for a dictionary of tensors"))
    }

    fn step(&mut self) -> Result<(), String> {
        let made = match self.opcode {
            opcode::PROTO => return self.protocol(),
            opcode::MARK => {
                self.marks.push(self.stack.len());
                return Ok(());
            }
            opcode::BINPUT => return self.byte().and_then(|index| self.put(index.into())),
            opcode::LONG_BINPUT => return self.u32().and_then(|index| self.put(index)),
            opcode::APPEND => return self.above(1).and_then(|start| self.append(start)),
            opcode::APPENDS => return self.mark().and_then(|start| self.append(start)),
            opcode::SETITEM => return self.above(2).and_then(|start| self.set_items(start)),
            opcode::SETITEMS => return self.mark().and_then(|start| self.set_items(start)),
            opcode::BUILD => return self.build(),
            opcode::BINGET => self.byte().and_then(|index| self.get(index.into()))?,
            opcode::LONG_BINGET => self.u32().and_then(|index| self.get(index))?,
            opcode::NONE => Value::None,
            opcode::NEWTRUE => Value::Bool(true),
            opcode::NEWFALSE => Value::Bool(false),
            opcode::BININT1 => Value::Int(self.byte()?.into()),
            opcode::BININT2 => Value::Int(self.operand(|cursor| cursor.u16())?.into()),
            opcode::BININT => Value::Int(self.u32()?.cast_signed().into()),
            opcode::LONG1 => self.long()?,
            opcode::BINFLOAT => self.operand(|cursor| cursor.u64()).map(|_| Value::Float)?,
            opcode::BINUNICODE => self.text()?,
            opcode::EMPTY_TUPLE => self.tuple(self.stack.len()),
            opcode::TUPLE1 => self.above(1).map(|start| self.tuple(start))?,
            opcode::TUPLE2 => self.above(2).map(|start| self.tuple(start))?,
            opcode::TUPLE3 => self.above(3).map(|start| self.tuple(start))?,
            opcode::TUPLE => self.mark().map(|start| self.tuple(start))?,
            opcode::EMPTY_LIST => Value::List(self.container()),
            opcode::EMPTY_DICT => Value::Dict(self.container()),
            opcode::GLOBAL => self.global()?,
            opcode::BINPERSID => self.storage()?,
            opcode::REDUCE => self.reduce()?,
            _ => {
                let name = opcode::name(self.opcode);
                return Err(format!("opcode {name} at byte {} is refused: only tensors are read", self.at));
            }
        };
        self.stack.push(made);
        Ok(())
    }

    /// An error that says where.
    fn wrong(&self, what: impl Display) -> String {
        format!("{} at byte {}: {what}", opcode::name(self.opcode), self.at)
    }

    fn operand<T>(&mut self, read: impl FnOnce(&mut Cursor<'a>) -> Option<T>) -> Result<T, String> {
        read(&mut self.cursor).ok_or_else(|| self.wrong("what belongs to it ends before it should"))
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.operand(|cursor| cursor.byte())
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.operand(|cursor| cursor.u32())
    }

    fn protocol(&mut self) -> Result<(), String> {
        match self.byte()? {
            PROTOCOL => Ok(()),
            other => Err(self.wrong(format!("protocol {other} is refused: torch.save writes {PROTOCOL}"))),
        }
    }

    fn long(&mut self) -> Result<Value<'a>, String> {
        let count = self.byte()?;
        let bytes = self.operand(|cursor| cursor.take(count.into()))?;
        let is_negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut number = [if is_negative { 0xff } else { 0 }; 8];
        let Some(low) = number.get_mut(..bytes.len()) else {
            return Err(self.wrong(format!("a number of {count} bytes is refused, at most 8 are read")));
        };
        low.copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(number)))
    }

    fn text(&mut self) -> Result<Value<'a>, String> {
        let count = self.u32()?;
        let bytes = self.operand(|cursor| cursor.take(usize::try_from(count).ok()?))?;
        str::from_utf8(bytes).map(Value::Text).map_err(|_| self.wrong("its text is not UTF-8"))
    }

    fn global(&mut self) -> Result<Value<'a>, String> {
        let mut line = || {
            let rest = self.cursor.bytes.get(self.cursor.at..)?;
            let length = rest.iter().take(MAX_NAME).position(|&byte| byte == b'\n')?;
            let line = self.cursor.take(length)?;
            self.cursor.take(1)?;
            str::from_utf8(line).ok()
        };
        let names = line().zip(line());
        let (module, name) = names.ok_or_else(|| self.wrong("no name of a global follows"))?;
        match GLOBALS.iter().find(|known| (known.0, known.1) == (module, name)) {
            Some(&(.., global)) => Ok(Value::Global(global)),
            None => {
                let name = shown(&format!("{module}.{name}"));
                Err(format!("global {name} at byte {} is refused: only tensors are read", self.at))
            }
        }
    }

    /// Where the last `count` values begin, which must have come after the last mark.
    fn above(&self, count: usize) -> Result<usize, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let start = self.stack.len().checked_sub(count).filter(|&start| start >= floor);
        start.ok_or_else(|| self.wrong("too little is on the stack"))
    }

    fn pop(&mut self) -> Result<Value<'a>, String> {
        self.above(1)?;
        self.stack.pop().ok_or_else(|| self.wrong("the stack is empty"))
    }

    /// The height of the stack at the last mark, which goes away.
    fn mark(&mut self) -> Result<usize, String> {
        self.marks.pop().ok_or_else(|| self.wrong("no mark is on the stack"))
    }

    fn put(&mut self, index: u32) -> Result<(), String> {
        let value = *self.stack.last().ok_or_else(|| self.wrong("the stack is empty"))?;
        self.memo.insert(index, value);
        Ok(())
    }

    fn get(&self, index: u32) -> Result<Value<'a>, String> {
        self.memo.get(&index).copied().ok_or_else(|| self.wrong(format!("nothing was put under {index}")))
    }

    /// A number for a new list or dictionary. Here and below: there are no more things than operations, so their
    /// numbers fit.
    fn container(&mut self) -> u32 {
        self.made.containers += 1;
        self.made.containers
    }

    /// A tuple of what is on the stack from `start` on.
    fn tuple(&mut self, start: usize) -> Value<'a> {
        let first = self.made.tuples.len() as u32;
        self.made.tuples.extend(self.stack.drain(start..));
        Value::Tuple(Items { start: first, count: self.made.tuples.len() as u32 - first })
    }

    /// The list or dictionary below `start`.
    fn owner(&self, start: usize) -> Option<Value<'a>> {
        self.stack.get(start.checked_sub(1)?).copied()
    }

    fn append(&mut self, start: usize) -> Result<(), String> {
        let Some(Value::List(id)) = self.owner(start) else { return Err(self.wrong("is refused: not to a list")) };
        self.made.lists.extend(self.stack.drain(start..).map(|item| (id, item)));
        Ok(())
    }

    fn set_items(&mut self, start: usize) -> Result<(), String> {
        let Some(Value::Dict(id) | Value::OrderedDict(id)) = self.owner(start) else {
            return Err(self.wrong("is refused: not in a dictionary"));
        };
        let (pairs, rest) = self.stack.get(start..).unwrap_or_default().as_chunks();
        if !rest.is_empty() {
            return Err(self.wrong("a key has no value"));
        }
        for &[key, value] in pairs {
            if let Value::Text(key) = key {
                self.made.dicts.push((id, key, value));
            }
        }
        self.stack.truncate(start);
        Ok(())
    }

    fn build(&mut self) -> Result<(), String> {
        self.pop()?;
        match self.stack.last() {
            // The attributes are the versions of the modules.
            Some(Value::OrderedDict(_)) => Ok(()),
            _ => Err(self.wrong("is refused: only tensors are read, which have no attributes")),
        }
    }

    fn storage(&mut self) -> Result<Value<'a>, String> {
        let id = self.pop()?;
        let items = if let Value::Tuple(items) = id { self.made.tuple(items) } else { &[] };
        let storage = match *items {
            [
                Value::Text("storage"),
                Value::Global(Global::Storage(file_type)),
                Value::Text(key),
                Value::Text(_),
                elements,
            ]
            | [
                Value::Text("storage"),
                Value::Global(Global::Storage(file_type)),
                Value::Text(key),
                Value::Text(_),
                elements,
                Value::None,
            ] => elements.size().map(|elements| Storage { key, file_type, elements }),
            _ => None,
        };
        let storage = storage.ok_or_else(|| self.wrong("is refused: only storages of tensors are read"))?;
        self.made.storages.push(storage);
        Ok(Value::Storage(self.made.storages.len() as u32 - 1))
    }

    fn reduce(&mut self) -> Result<Value<'a>, String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Value::Tuple(items) = arguments else { return Err(self.wrong("its arguments are not a tuple")) };
        let arguments = self.made.tuple(items);
        Ok(match (function, arguments) {
            (Value::Global(Global::OrderedDict), []) => Value::OrderedDict(self.container()),
            (Value::Global(Global::Size), &[sizes @ Value::Tuple(_)]) => sizes,
            (Value::Global(Global::RebuildParameter), &[tensor @ Value::Tensor(_), _, _]) => tensor,
            (
                Value::Global(Global::RebuildTensor),
                &[Value::Storage(storage), offset, Value::Tuple(shape), Value::Tuple(strides), _, _],
            ) => {
                let offset = offset.size().ok_or_else(|| self.wrong("the offset is not a number from 0 up"))?;
                self.made.tensors.push(Rebuilt { storage, offset, shape, strides });
                Value::Tensor(self.made.tensors.len() as u32 - 1)
            }
            _ => return Err(self.wrong("is refused: only tensors are read, and these arguments make none")),
        })
    }
}
