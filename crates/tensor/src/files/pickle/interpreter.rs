//! The stack machine that interprets a pickle.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::super::cursor::Cursor;
use super::super::mapped::shown;
use super::{Contents, GLOBALS, Global, Items, Pickle, PickledStorage, Rebuilt, Value, opcode};

/// Limit of executed operations. A tensor takes about forty, so this allows a hundred thousand tensors.
const MAX_OPERATIONS: usize = 1 << 22;
/// The protocol that `torch.save` writes by default, and the only one that its own restricted reader accepts.
const PROTOCOL: u8 = 2;
/// Longest module or global name that is read. All accepted names are much shorter.
const MAX_NAME: usize = 256;

/// The state of an interpreter.
pub(super) struct Interpreter<'a> {
    cursor: Cursor<'a>,
    /// The current opcode.
    opcode: u8,
    /// Offset of the current opcode.
    at: usize,
    stack: Vec<Value<'a>>,
    /// Heights of the stack at the marks.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Value<'a>>,
    contents: Contents<'a>,
}

impl<'a> Interpreter<'a> {
    pub(super) fn new(bytes: &'a [u8], start: usize) -> Interpreter<'a> {
        let cursor = Cursor::new(bytes, start);
        let (stack, marks, memo, contents) = Default::default();
        Interpreter { cursor, opcode: opcode::STOP, at: start, stack, marks, memo, contents }
    }

    pub(super) fn run(mut self) -> Result<Pickle<'a>, String> {
        for _ in 0..MAX_OPERATIONS {
            self.at = self.cursor.at;
            self.opcode =
                self.cursor.byte().ok_or_else(|| format!("is truncated: it ends at byte {} in a pickle", self.at))?;
            if self.opcode == opcode::STOP {
                let root = self.pop()?;
                return Ok(Pickle { root, end: self.cursor.at, contents: self.contents });
            }
            self.step()?;
        }
        Err(format!("needs more than {MAX_OPERATIONS} pickle operations, too many for a dictionary of tensors"))
    }

    fn step(&mut self) -> Result<(), String> {
        let value = match self.opcode {
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
        self.stack.push(value);
        Ok(())
    }

    /// Returns an error that names the current operation and its position.
    fn wrong(&self, what: impl Display) -> String {
        format!("{} at byte {}: {what}", opcode::name(self.opcode), self.at)
    }

    /// Returns the error for a supported operation with operands that are not accepted.
    fn refused(&self, why: &str) -> String {
        format!("{} at byte {} is refused: {why}", opcode::name(self.opcode), self.at)
    }

    fn operand<T>(&mut self, read: impl FnOnce(&mut Cursor<'a>) -> Option<T>) -> Result<T, String> {
        read(&mut self.cursor).ok_or_else(|| self.wrong("its operand is truncated"))
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
            other => Err(self.wrong(format!("protocol {other} is not supported, expected {PROTOCOL}"))),
        }
    }

    fn long(&mut self) -> Result<Value<'a>, String> {
        let count = self.byte()?;
        let bytes = self.operand(|cursor| cursor.take(count.into()))?;
        let is_negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut number = [if is_negative { 0xff } else { 0 }; 8];
        let Some(low) = number.get_mut(..bytes.len()) else {
            return Err(self.wrong(format!("an integer of {count} bytes is too long, at most 8 are supported")));
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
        let (module, name) = names.ok_or_else(|| self.wrong("the name of the global is invalid"))?;
        match GLOBALS.iter().find(|known| (known.0, known.1) == (module, name)) {
            Some(&(.., global)) => Ok(Value::Global(global)),
            None => {
                let name = shown(&format!("{module}.{name}"));
                Err(format!("global {name} at byte {} is refused: only tensors are read", self.at))
            }
        }
    }

    /// Returns the height of the stack below the last `count` values, which must be above the last mark.
    fn above(&self, count: usize) -> Result<usize, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let start = self.stack.len().checked_sub(count).filter(|&start| start >= floor);
        start.ok_or_else(|| self.wrong("too few values are on the stack"))
    }

    fn pop(&mut self) -> Result<Value<'a>, String> {
        self.above(1)?;
        self.stack.pop().ok_or_else(|| self.wrong("the stack is empty"))
    }

    /// Removes the last mark and returns its height of the stack.
    fn mark(&mut self) -> Result<usize, String> {
        self.marks.pop().ok_or_else(|| self.wrong("no mark is on the stack"))
    }

    fn put(&mut self, index: u32) -> Result<(), String> {
        let value = *self.stack.last().ok_or_else(|| self.wrong("the stack is empty"))?;
        self.memo.insert(index, value);
        Ok(())
    }

    fn get(&self, index: u32) -> Result<Value<'a>, String> {
        self.memo.get(&index).copied().ok_or_else(|| self.wrong(format!("the memo has no entry {index}")))
    }

    /// Returns the number of a new list or dictionary. Numbers cannot overflow, here and below, because each operation
    /// pushes at most one value.
    fn container(&mut self) -> u32 {
        self.contents.containers += 1;
        self.contents.containers
    }

    /// Makes a tuple of the values on the stack above `start`.
    fn tuple(&mut self, start: usize) -> Value<'a> {
        let first = self.contents.tuples.len() as u32;
        self.contents.tuples.extend(self.stack.drain(start..));
        Value::Tuple(Items { start: first, count: self.contents.tuples.len() as u32 - first })
    }

    /// Returns the list or dictionary below `start`.
    fn owner(&self, start: usize) -> Option<Value<'a>> {
        self.stack.get(start.checked_sub(1)?).copied()
    }

    fn append(&mut self, start: usize) -> Result<(), String> {
        let Some(Value::List(id)) = self.owner(start) else { return Err(self.refused("its target is not a list")) };
        self.contents.lists.extend(self.stack.drain(start..).map(|item| (id, item)));
        Ok(())
    }

    fn set_items(&mut self, start: usize) -> Result<(), String> {
        let Some(Value::Dict(id) | Value::OrderedDict(id)) = self.owner(start) else {
            return Err(self.refused("its target is not a dictionary"));
        };
        let (pairs, rest) = self.stack.get(start..).unwrap_or_default().as_chunks();
        if !rest.is_empty() {
            return Err(self.wrong("a key has no value"));
        }
        for &[key, value] in pairs {
            if let Value::Text(key) = key {
                self.contents.dicts.push((id, key, value));
            }
        }
        self.stack.truncate(start);
        Ok(())
    }

    fn build(&mut self) -> Result<(), String> {
        self.pop()?;
        match self.stack.last() {
            // Attributes of a state dict are the versions of the modules, which are ignored.
            Some(Value::OrderedDict(_)) => Ok(()),
            _ => Err(self.refused("only tensors are read, and they have no attributes")),
        }
    }

    fn storage(&mut self) -> Result<Value<'a>, String> {
        let id = self.pop()?;
        let items = if let Value::Tuple(items) = id { self.contents.tuple(items) } else { &[] };
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
            ] => elements.size().map(|elements| PickledStorage { key, file_type, elements }),
            _ => None,
        };
        let storage = storage.ok_or_else(|| self.refused("only storages of tensors are read"))?;
        self.contents.storages.push(storage);
        Ok(Value::Storage(self.contents.storages.len() as u32 - 1))
    }

    fn reduce(&mut self) -> Result<Value<'a>, String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Value::Tuple(items) = arguments else { return Err(self.wrong("its arguments are not a tuple")) };
        let arguments = self.contents.tuple(items);
        Ok(match (function, arguments) {
            (Value::Global(Global::OrderedDict), []) => Value::OrderedDict(self.container()),
            (Value::Global(Global::Size), &[sizes @ Value::Tuple(_)]) => sizes,
            (Value::Global(Global::RebuildParameter), &[tensor @ Value::Tensor(_), _, _]) => tensor,
            (
                Value::Global(Global::RebuildTensor),
                &[Value::Storage(storage), offset, Value::Tuple(shape), Value::Tuple(strides), _, _],
            ) => {
                let offset = offset.size().ok_or_else(|| self.wrong("the offset is not a non-negative integer"))?;
                self.contents.tensors.push(Rebuilt { storage, offset, shape, strides });
                Value::Tensor(self.contents.tensors.len() as u32 - 1)
            }
            _ => return Err(self.refused("only tensors are read, and these arguments do not make one")),
        })
    }
}
