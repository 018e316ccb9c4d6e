//! The opcodes of pickles, with the names of Python's `pickletools`.

macro_rules! opcodes {
    (known { $($known:ident = $code:literal),* $(,)? } refused { $($refused:ident = $other:literal),* $(,)? }) => {
        $(pub(super) const $known: u8 = $code;)*

        const NAMES: &[(u8, &str)] = &[$(($code, stringify!($known)),)* $(($other, stringify!($refused)),)*];
    };
}

opcodes! {
    known {
        MARK = b'(', STOP = b'.', PROTO = 0x80,
        NONE = b'N', NEWTRUE = 0x88, NEWFALSE = 0x89,
        BININT = b'J', BININT1 = b'K', BININT2 = b'M', LONG1 = 0x8a, BINFLOAT = b'G', BINUNICODE = b'X',
        EMPTY_TUPLE = b')', TUPLE1 = 0x85, TUPLE2 = 0x86, TUPLE3 = 0x87, TUPLE = b't',
        EMPTY_LIST = b']', APPEND = b'a', APPENDS = b'e',
        EMPTY_DICT = b'}', SETITEM = b's', SETITEMS = b'u',
        BINPUT = b'q', LONG_BINPUT = b'r', BINGET = b'h', LONG_BINGET = b'j',
        GLOBAL = b'c', BINPERSID = b'Q', REDUCE = b'R', BUILD = b'b',
    }
    refused {
        POP = b'0', POP_MARK = b'1', DUP = b'2',
        INT = b'I', LONG = b'L', LONG4 = 0x8b, FLOAT = b'F',
        STRING = b'S', BINSTRING = b'T', SHORT_BINSTRING = b'U', UNICODE = b'V',
        SHORT_BINUNICODE = 0x8c, BINUNICODE8 = 0x8d,
        BINBYTES = b'B', SHORT_BINBYTES = b'C', BINBYTES8 = 0x8e, BYTEARRAY8 = 0x96,
        NEXT_BUFFER = 0x97, READONLY_BUFFER = 0x98,
        LIST = b'l', DICT = b'd', EMPTY_SET = 0x8f, ADDITEMS = 0x90, FROZENSET = 0x91,
        PUT = b'p', GET = b'g', MEMOIZE = 0x94, FRAME = 0x95,
        INST = b'i', OBJ = b'o', NEWOBJ = 0x81, NEWOBJ_EX = 0x92, STACK_GLOBAL = 0x93,
        EXT1 = 0x82, EXT2 = 0x83, EXT4 = 0x84, PERSID = b'P',
    }
}

/// Returns the name of an opcode, or its value in hexadecimal if it is unknown.
pub(super) fn name(opcode: u8) -> String {
    match NAMES.iter().find(|(code, _)| *code == opcode) {
        Some((_, name)) => (*name).to_string(),
        None => format!("{opcode:#04x}"),
    }
}
