//! Malformed and hostile pickles, archives and files of the older format, and their errors.

use std::time::{Duration, Instant};

use cloze_tensor::{Device, TensorFile};

use crate::crafted::{Entry, Pickle, View, archive, legacy, numbers, torch_archive};
use crate::memory::peak;
use crate::{Folder, Result};

/// Returns the error for a pickle, which must be the same in both formats.
fn said_of(pickle: &[u8]) -> Result<String> {
    let folder = Folder::new()?;
    let in_archive = folder.refused("model.bin", &torch_archive(pickle, &numbers(6)))?;
    let said = in_archive.strip_prefix("model.bin: m/data.pkl: ").ok_or(in_archive.clone())?;
    // In the older format, other pickles precede this one, which shifts its offsets.
    let prefix = legacy(&[], &[]).len() - Pickle::new().raw(b"](e.").0.len();
    let old = folder.refused("model.bin", &legacy(pickle, &[("0", 6, &numbers(6))]))?;
    let expected = match said.split_once(" at byte ") {
        Some((before, after)) => {
            let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            let at: usize = after[..digits].parse()?;
            format!("{before} at byte {}{}", at + prefix, &after[digits..])
        }
        None => said.to_string(),
    };
    assert_eq!(old, format!("model.bin: {expected}"));
    Ok(said.to_string())
}

/// Returns the error for an archive with these two entries.
fn said_of_archive(pickle: &[u8], storage: &[u8]) -> Result<String> {
    Folder::new()?.refused("model.bin", &torch_archive(pickle, storage))
}

fn said_of_view(view: &View) -> Result<String> {
    let said = said_of_archive(&Pickle::state_dict(view), &numbers(6))?;
    let old = Folder::new()?.refused("model.bin", &legacy(&Pickle::state_dict(view), &[("0", 6, &numbers(6))]))?;
    assert_eq!(old, said);
    Ok(said)
}

#[test]
fn code_is_never_run() -> Result {
    let marker = Folder::new()?;
    let path = marker.path("ran");
    let command = format!("touch {}", path.display());
    let reduce = |module: &str, name: &str| {
        Pickle::new().raw(b"}").text("x").global(module, name).raw(b"(").text(&command).raw(b"tRs.").0
    };
    for (module, name) in [
        ("posix", "system"),
        ("os", "system"),
        ("nt", "system"),
        ("builtins", "eval"),
        ("__builtin__", "exec"),
        ("subprocess", "Popen"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch", "FloatTensor"),
        ("torch._utils._rebuild_tensor_v2", "__globals__"),
        ("collections", "OrderedDict.__init__"),
        ("", ""),
    ] {
        let said = said_of(&reduce(module, name))?;
        assert_eq!(said, format!("global {module}.{name} at byte 9 is refused: only tensors are read"));
    }
    assert!(!path.exists());
    Ok(())
}

#[test]
fn opcodes_of_objects_are_refused() -> Result {
    let cases: [(&[u8], &str); 14] = [
        (b"(X\x02\0\0\0lsiposix\nsystem\n.", "INST at byte 10"),
        (b"(cposix\nsystem\n", "global posix.system at byte 3"),
        (b"(o.", "OBJ at byte 3"),
        (b")\x81.", "NEWOBJ at byte 3"),
        (b")}\x92.", "NEWOBJ_EX at byte 4"),
        (b"X\x05\0\0\0posixX\x06\0\0\0system\x93.", "STACK_GLOBAL at byte 23"),
        (b"\x82\x01.", "EXT1 at byte 2"),
        (b"\x83\x01\x02.", "EXT2 at byte 2"),
        (b"\x84\x01\x02\x03\x04.", "EXT4 at byte 2"),
        (b"P0\n.", "PERSID at byte 2"),
        (b"\x95\xff\xff\xff\xff\xff\xff\xff\xff}.", "FRAME at byte 2"),
        (b"S'x'\n.", "STRING at byte 2"),
        (b"\x8b\x7f\xff\xff\xff.", "LONG4 at byte 2"),
        (b"\xff.", "0xff at byte 2"),
    ];
    for (program, expected) in cases {
        let said = said_of(&Pickle::new().raw(program).0)?;
        assert!(said.contains(expected) && said.ends_with("is refused: only tensors are read"), "{said}: {expected}");
    }
    Ok(())
}

#[test]
fn only_ordered_dictionaries_may_have_attributes() -> Result {
    let ordered = |pickle: Pickle| pickle.global("collections", "OrderedDict").raw(b")R");
    // Attributes as in the result of `state_dict()`.
    let good = ordered(Pickle::new()).raw(b"(").text("x").tensor(&View::GOOD).raw(b"u}").text("_metadata").raw(b"}sb.");
    let folder = Folder::new()?;
    let path = folder.write("m.bin", &torch_archive(&good.0, &numbers(6)))?;
    assert_eq!(TensorFile::open(path)?.names(), ["x"]);

    let targets = [
        Pickle::new().raw(b"}"),
        Pickle::new().raw(b"]"),
        Pickle::new().global("collections", "OrderedDict"),
        Pickle::new().tensor(&View::GOOD),
        Pickle::new().storage("FloatStorage", "0", 6),
    ];
    for target in targets {
        let said = said_of(&target.raw(b"}b.").0)?;
        assert!(said.starts_with("BUILD at byte "), "{said}");
        assert!(said.ends_with("is refused: only tensors are read, and they have no attributes"), "{said}");
    }
    Ok(())
}

#[test]
fn known_functions_only_make_tensors() -> Result {
    let rebuild = |arguments: &[u8]| Pickle::new().global("torch._utils", "_rebuild_tensor_v2").raw(arguments).0;
    let calls = [
        rebuild(b")R."),
        rebuild(b"(NK\0))\x89NtR."),
        Pickle::new().global("torch", "FloatStorage").raw(b")R.").0,
        Pickle::new().global("torch", "Size").raw(b"K\x01\x85R.").0,
        Pickle::new().global("torch._utils", "_rebuild_parameter").raw(b"(NNNtR.").0,
        Pickle::new().global("collections", "OrderedDict").raw(b"]\x85R.").0,
        Pickle::new().text("callable").raw(b")R.").0,
    ];
    for call in calls {
        let said = said_of(&call)?;
        assert!(said.starts_with("REDUCE at byte "), "{said}");
        assert!(said.ends_with("is refused: only tensors are read, and these arguments do not make one"), "{said}");
    }
    let said = said_of(&rebuild(b"NR."))?;
    assert!(said.ends_with("its arguments are not a tuple"), "{said}");
    Ok(())
}

#[test]
fn persistent_ids_must_be_storages() -> Result {
    let float = |pickle: Pickle| pickle.global("torch", "FloatStorage");
    let view = float(Pickle::new().raw(b"(").text("storage")).text("0").text("cpu").int(6);
    let cases = [
        Pickle::new().text("0").raw(b"Q.").0,
        Pickle::new().raw(b")Q.").0,
        float(Pickle::new().raw(b"(").text("module")).text("source").text("code").raw(b"tQ.").0,
        Pickle::new().raw(b"(").text("storage").global("torch", "Size").text("0").text("cpu").int(6).raw(b"tQ.").0,
        float(Pickle::new().raw(b"(").text("storage")).text("0").text("cpu").int(-1).raw(b"tQ.").0,
        // A view of a storage, as in PyTorch before 0.4.
        view.clone().raw(b"(").text("1").int(0).int(6).raw(b"ttQ.").0,
        view.raw(b"NNtQ.").0,
    ];
    for case in cases {
        let said = said_of(&case)?;
        assert!(said.starts_with("BINPERSID at byte "), "{said}");
        assert!(said.ends_with("is refused: only storages of tensors are read"), "{said}");
    }
    Ok(())
}

#[test]
fn errors_name_operation_and_position() -> Result {
    let cases: [(&[u8], &str); 25] = [
        (b"}Na.", "APPEND at byte 4 is refused: its target is not a list"),
        (b"h\x05.", "BINGET at byte 2: the memo has no entry 5"),
        (b"j\xff\xff\xff\xff.", "LONG_BINGET at byte 2: the memo has no entry 4294967295"),
        (b"q\0.", "BINPUT at byte 2: the stack is empty"),
        (b".", "STOP at byte 2: too few values are on the stack"),
        (b"(.", "STOP at byte 3: too few values are on the stack"),
        (b"N(\x85.", "TUPLE1 at byte 4: too few values are on the stack"),
        (b"NN\x87.", "TUPLE3 at byte 4: too few values are on the stack"),
        (b"t.", "TUPLE at byte 2: no mark is on the stack"),
        (b"}u.", "SETITEMS at byte 3: no mark is on the stack"),
        (b"NNNs.", "SETITEM at byte 5 is refused: its target is not a dictionary"),
        (b"NNs.", "SETITEM at byte 4 is refused: its target is not a dictionary"),
        (b"}(Nu.", "SETITEMS at byte 5: a key has no value"),
        (b"NNa.", "APPEND at byte 4 is refused: its target is not a list"),
        (b"(e.", "APPENDS at byte 3 is refused: its target is not a list"),
        (b"N(a.", "APPEND at byte 4: too few values are on the stack"),
        (b"NR.", "REDUCE at byte 3: too few values are on the stack"),
        (b"X\xff\xff\xff\xffabc", "BINUNICODE at byte 2: its operand is truncated"),
        (b"X\x02\0\0\0\xc3\x28.", "BINUNICODE at byte 2: its text is not UTF-8"),
        (b"\x8a\xff.", "LONG1 at byte 2: its operand is truncated"),
        (
            b"\x8a\x09\0\0\0\0\0\0\0\0\x01.",
            "LONG1 at byte 2: an integer of 9 bytes is too long, at most 8 are supported",
        ),
        (b"cposix", "GLOBAL at byte 2: the name of the global is invalid"),
        (b"c\xff\n\xff\n.", "GLOBAL at byte 2: the name of the global is invalid"),
        (b"\x80\x05.", "PROTO at byte 2: protocol 5 is not supported, expected 2"),
        (b"NNN", "is truncated: it ends at byte 5 in a pickle"),
    ];
    for (program, expected) in cases {
        let pickle = Pickle::new().raw(program).0;
        // In the older format, the bytes that follow may complete a truncated pickle, so the error can differ.
        assert_eq!(said_of_archive(&pickle, b"")?, format!("model.bin: m/data.pkl: {expected}"));
        assert!(Folder::new()?.refused("model.bin", &legacy(&pickle, &[])).is_ok());
    }
    let long = Pickle::new().raw(b"c").raw(&[b'a'; 1000]).raw(b"\nb\n.").0;
    assert!(said_of(&long)?.ends_with("the name of the global is invalid"));
    let control = Pickle::new().global("\x1b[2J\u{7}", "evil\"").raw(b".").0;
    let said = said_of(&control)?;
    assert!(said.starts_with("global \\u{1b}[2J\\u{7}.evil\\\" at byte 2 is refused"), "{said}");
    Ok(())
}

#[test]
fn deeply_nested_and_long_programs_are_refused_cheaply() -> Result {
    let folder = Folder::new()?;
    let count = 8 << 20;
    let deep = |opcode: &[u8]| Pickle::new().raw(&opcode.repeat(count / opcode.len())).raw(b".").0;
    for program in [&b"("[..], b"]", b"}", b")", b"N", b"N\x85", b"]a", b"\x85", b"N(", b"h\0", b"K\0q\0"] {
        let pickle = Pickle::new().raw(b"Nq\0").raw(&deep(program)[2..]).0;
        let path = folder.write("deep.bin", &torch_archive(&pickle, b""))?;
        let start = Instant::now();
        let (opened, most) = peak(|| TensorFile::open(&path));
        let said = folder.said(opened)?;
        assert!(start.elapsed() < Duration::from_secs(20), "{program:?}");
        assert!(most < 32 * pickle.len(), "{program:?}: {most} bytes for {}", pickle.len());
        assert!(said.starts_with("deep.bin: m/data.pkl: "), "{program:?}: {said}");
    }
    // Deeply nested and complete.
    let nested = Pickle::new().raw(b"}").text("x").raw(&b"}X\x01\0\0\0a".repeat(10_000)).raw(b"N");
    let nested = nested.raw(&b"s".repeat(10_001)).raw(b".").0;
    let said = folder.refused("deep.bin", &torch_archive(&nested, b""))?;
    let none = "does not contain a dictionary of tensors, at the top level or under state_dict or model";
    assert_eq!(said, format!("deep.bin: {none}; its keys are x"));
    Ok(())
}

#[test]
fn long_shapes_that_many_tensors_share_are_not_copied() -> Result {
    let folder = Folder::new()?;
    // One tuple of many sizes, and many tensors with that shape.
    let sizes = Pickle::new().raw(b"(").raw(&b"K\x01".repeat(100_000)).raw(b"tq\x010");
    let sizes = Pickle(sizes.0[..sizes.0.len() - 1].to_vec());
    let tensor =
        Pickle::default().global("torch._utils", "_rebuild_tensor_v2").raw(b"(").storage("FloatStorage", "0", 6);
    let tensor = tensor.raw(b"K\0h\x01h\x01\x89NtRq\x02").0;
    let mut pickle = Pickle::new().raw(b"}(").text("a").raw(&sizes.0[2..]).text("x").raw(&tensor);
    for i in 0..10_000 {
        pickle = pickle.text(&i.to_string()).raw(b"h\x02");
    }
    let path = folder.write("m.bin", &torch_archive(&pickle.raw(b"u.").0, &numbers(6)))?;
    let (opened, most) = peak(|| TensorFile::open(&path));
    assert_eq!(folder.said(opened)?, "m.bin: x: has 100000 dimensions, at most 6 are supported");
    assert!(most < 32 << 20, "{most}");
    Ok(())
}

#[test]
fn views_stay_in_their_storage() -> Result {
    let good = View::GOOD;
    let exceeds = "and offset 0 exceeds its storage of 6 elements";
    let max = i64::MAX;
    let cases: [(View, String); 13] = [
        (
            View { offset: 1, ..good },
            "shape [2, 3] with strides [3, 1] and offset 1 exceeds its storage of 6 elements".into(),
        ),
        (View { offset: max, ..good }, format!("and offset {max} exceeds its storage")),
        (View { strides: &[4, 1], ..good }, format!("shape [2, 3] with strides [4, 1] {exceeds}")),
        (View { strides: &[max, max], ..good }, exceeds.into()),
        (
            View { shape: &[7], strides: &[1], ..good },
            "shape [7] has more elements than its storage, which has 6".into(),
        ),
        (View { shape: &[max, max], strides: &[0, 0], ..good }, "more elements than its storage".into()),
        (View { shape: &[7], strides: &[0], ..good }, "more elements than its storage".into()),
        (
            View { shape: &[-1], strides: &[1], ..good },
            "has a size or stride that is not a non-negative integer".into(),
        ),
        (View { strides: &[-3, 1], ..good }, "has a size or stride that is not a non-negative integer".into()),
        (View { strides: &[1], ..good }, "has 2 sizes and 1 strides".into()),
        (View { shape: &[1; 7], strides: &[1; 7], ..good }, "has 7 dimensions, at most 6 are supported".into()),
        (View { stored: 1 << 62, ..good }, "storage 0 has 4611686018427387904 elements, too many to address".into()),
        (View { class: "DoubleStorage", stored: 1 << 61, ..good }, "too many to address".into()),
    ];
    for (view, expected) in cases {
        let said = said_of_archive(&Pickle::state_dict(&view), &numbers(6))?;
        assert!(said.starts_with("model.bin: x: ") && said.contains(&expected), "{said}: {expected}");
        if view.stored == 6 {
            assert_eq!(said_of_view(&view)?, said);
        }
    }
    let good = Pickle::state_dict(&good);
    let zero = Pickle::default().int(0).raw(b"(").0;
    let at = good.windows(zero.len()).position(|window| window == zero).ok_or("no offset")?;
    for minus in [&b"\x8a\x01\xff("[..], b"\x8a\x03\xff\xff\xff(", b"J\xff\xff\xff\xff(", b"N("] {
        let said = said_of(&[&good[..at], minus, &good[at + zero.len()..]].concat())?;
        assert!(
            said.starts_with("REDUCE at byte ") && said.ends_with("the offset is not a non-negative integer"),
            "{said}"
        );
    }
    Ok(())
}

#[test]
fn empty_views_may_have_any_offset() -> Result {
    let folder = Folder::new()?;
    let max = i64::MAX;
    for (offset, shape) in [(0, [0, 3]), (max, [0, 3]), (max, [3, 0])] {
        let view = View { offset, shape: &shape, strides: &[max, max], ..View::GOOD };
        let path = folder.write("m.bin", &torch_archive(&Pickle::state_dict(&view), &numbers(6)))?;
        assert!(TensorFile::open(path)?.tensor("x", &Device::Cpu)?.to_vec::<f32>()?.is_empty());
    }
    let view = View { shape: &[0, max, max], strides: &[1, max, 1], ..View::GOOD };
    let path = folder.write("m.bin", &torch_archive(&Pickle::state_dict(&view), &numbers(6)))?;
    let said = folder.said(TensorFile::open(path)?.tensor("x", &Device::Cpu))?;
    assert!(
        said.ends_with(
            "m.bin: x: shape [0, 9223372036854775807, 9223372036854775807] has too many elements to address"
        ),
        "{said}"
    );
    Ok(())
}

#[test]
fn files_without_a_dictionary_of_tensors() -> Result {
    let none = "does not contain a dictionary of tensors, at the top level or under state_dict or model";
    let said = said_of_archive(&Pickle::new().raw(b"}.").0, b"")?;
    assert_eq!(said, format!("model.bin: {none}"));
    let said = said_of_archive(&Pickle::new().tensor(&View::GOOD).raw(b".").0, &numbers(6))?;
    assert_eq!(said, format!("model.bin: {none}"));
    let inner = |key: &str| Pickle::new().raw(b"}").text(key).raw(b"}").text("x").tensor(&View::GOOD).raw(b"ss.").0;
    let said = said_of_archive(&inner("net"), &numbers(6))?;
    assert_eq!(said, format!("model.bin: {none}; its keys are net"));
    let folder = Folder::new()?;
    for key in ["state_dict", "model"] {
        let path = folder.write("m.bin", &torch_archive(&inner(key), &numbers(6)))?;
        assert_eq!(TensorFile::open(path)?.names(), ["x"]);
    }
    let twice = Pickle::new().raw(b"}(").text("x").tensor(&View::GOOD).text("x").tensor(&View::GOOD).raw(b"u.").0;
    assert_eq!(said_of_archive(&twice, &numbers(6))?, "model.bin: has two tensors named x");
    Ok(())
}

#[test]
fn archives_that_torch_would_not_write() -> Result {
    let folder = Folder::new()?;
    let (pickle, all) = (Pickle::state_dict(&View::GOOD), numbers(6));
    let storage = || Entry::new("m/data/0", &all);
    let said = |entries: &[Entry]| folder.refused("m.bin", &archive(entries, false));
    let main = || Entry::new("m/data.pkl", &pickle);

    let compressed = [main(), Entry { method: 8, ..storage() }];
    let why = "m.bin: x: entry m/data/0 is compressed: repack the archive without compression";
    assert_eq!(said(&compressed)?, why);
    let encrypted = [Entry { flags: 1, ..main() }, storage()];
    assert_eq!(said(&encrypted)?, "m.bin: entry m/data.pkl is encrypted, which torch.save never does");
    let big = [main(), storage(), Entry::new("m/byteorder", b"big")];
    assert_eq!(said(&big)?, "m.bin: has byte order \"big\", expected \"little\"");
    assert_eq!(said(&[main()])?, "m.bin: x: has no entry m/data/0");
    let short = [main(), Entry::new("m/data/0", &all[..20])];
    assert_eq!(said(&short)?, "m.bin: x: entry m/data/0 has 20 bytes, its tensors need 24");
    // Offset 50 is among zeros, which are a valid header except for the signature.
    let misplaced = "m.bin: x: entry m/data/0 is not at the position that the directory states";
    for header in [1, 50, 1 << 20] {
        let elsewhere = [Entry::new("zeros", &[0; 99]), main(), Entry { header: Some(header), ..storage() }];
        assert_eq!(said(&elsewhere)?, misplaced);
    }
    let long = [main(), Entry { size: 1 << 31, ..storage() }];
    assert_eq!(said(&long)?, misplaced);
    assert_eq!(said(&[main(), storage(), main()])?, "m.bin: has two entries named m/data.pkl");
    assert_eq!(
        said(&[main(), Entry::new("n/data.pkl", &pickle)])?,
        "m.bin: has two pickles, m/data.pkl and n/data.pkl"
    );
    let other = said(&[Entry::new("word/document.xml", b"<xml/>")])?;
    assert_eq!(other, "m.bin: is a zip archive, but not from torch.save: it has no data.pkl");

    let whole = archive(&[main(), storage()], true);
    for length in [4, 21, whole.len() / 2, whole.len() - 1] {
        let said = folder.refused("m.bin", &whole[..length])?;
        assert!(said.starts_with("m.bin: is truncated: "), "{length}: {said}");
    }
    // A directory that overlaps the end record of the archive.
    let mut overlapping = archive(&[main(), storage()], false);
    let size = overlapping.len() - 10;
    overlapping[size] += 1;
    assert!(folder.refused("m.bin", &overlapping)?.starts_with("m.bin: is truncated: "));
    // Eight-byte numbers that are out of range.
    let entry = Entry { size: u64::MAX, header: Some(u64::MAX), ..storage() };
    let said = folder.refused("m.bin", &archive(&[main(), entry], true))?;
    assert_eq!(said, misplaced);
    Ok(())
}

#[test]
fn inconsistent_files_of_the_older_format() -> Result {
    let folder = Folder::new()?;
    let (pickle, all) = (Pickle::state_dict(&View::GOOD), numbers(6));
    let said = |storages: &[(&str, u64, &[u8])]| folder.refused("m.bin", &legacy(&pickle, storages));
    assert_eq!(said(&[])?, "m.bin: x: has no storage 0");
    assert_eq!(said(&[("0", 5, &all)])?, "m.bin: storage 0 has 5 elements, its tensors need 6");
    let why = "m.bin: storage 0 has 18446744073709551615 elements, its tensors need 6";
    assert_eq!(said(&[("0", u64::MAX, &all)])?, why);
    assert_eq!(said(&[("0", 6, &all[..23])])?, "m.bin: ends inside storage 0");
    assert_eq!(said(&[("1", 6, &all)])?, "m.bin: has a storage 1 without tensors");
    assert_eq!(said(&[("0", 6, &all), ("0", 6, &all)])?, "m.bin: has two storages named 0");

    let good = legacy(&pickle, &[("0", 6, &all)]);
    let replaced = |from: &[u8], to: &[u8]| {
        let at = good.windows(from.len()).position(|window| window == from).ok_or("not found")?;
        let bytes = [&good[..at], to, &good[at + from.len()..]].concat();
        folder.refused("m.bin", &bytes)
    };
    let version = 1001i64.to_le_bytes();
    assert!(replaced(&version, &7i64.to_le_bytes())?.starts_with("m.bin: has an unknown version of "));
    let big = replaced(b"little_endian\x88", b"little_endian\x89")?;
    assert!(big.starts_with("m.bin: does not have little-endian byte order"), "{big}");
    let short = folder.refused("m.bin", &good[..15])?;
    assert!(short.starts_with("m.bin: is truncated: it ends at byte 15 in a pickle"), "{short}");
    // Two tensors that give different sizes for the same storage.
    let other = View { stored: 3, shape: &[3], strides: &[1], ..View::GOOD };
    let two = Pickle::new().raw(b"}(").text("w").tensor(&other).text("x").tensor(&View::GOOD).raw(b"u.").0;
    let said = folder.refused("m.bin", &legacy(&two, &[("0", 6, &all)]))?;
    assert_eq!(said, "m.bin: w: gives two different sizes for storage 0");
    Ok(())
}
