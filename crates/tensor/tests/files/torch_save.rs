//! Files written by torch.save, compared with the tensors that torch reads from them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cloze_tensor::{DType, Device, Tensor, TensorFile};
use safetensors::SafeTensors;

use crate::crafted::{Entry, Pickle, View, archive, legacy, numbers};
use crate::{Folder, Result};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/pytorch").join(name)
}

/// Types of torch that this crate does not support.
const UNSUPPORTED: [&str; 5] = ["bool", "i16", "i32", "i8", "u8"];

fn bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    Ok(match tensor.dtype() {
        DType::F32 => tensor.to_vec::<f32>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F64 => tensor.to_vec::<f64>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F16 => tensor.to_vec::<half::f16>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::BF16 => tensor.to_vec::<half::bf16>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::I64 => tensor.to_vec::<i64>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
        other => return Err(format!("torch has no {other}").into()),
    })
}

/// Compares all tensors of a file with the expected ones.
fn check(file: &str, expected: &str) -> Result {
    let opened = TensorFile::open(fixture(file))?;
    let expected = std::fs::read(fixture(expected))?;
    let expected: BTreeMap<String, _> = SafeTensors::deserialize(&expected)?.tensors().into_iter().collect();
    assert_eq!(opened.names(), expected.keys().cloned().collect::<Vec<_>>(), "{file}");
    for (name, expected) in expected {
        assert_eq!(opened.shape(&name), Some(expected.shape()), "{file}: {name}");
        let tensor = opened.tensor(&name, &Device::Cpu);
        if UNSUPPORTED.contains(&name.as_str()) {
            let said = tensor.err().ok_or("an unsupported type was read")?.to_string();
            assert!(
                said.contains(&format!("{file}: {name}: type ")) && said.ends_with("Storage is not supported"),
                "{said}"
            );
            assert_eq!(opened.dtype(&name), None);
            continue;
        }
        let tensor = tensor?;
        assert_eq!((tensor.shape(), Some(tensor.dtype())), (expected.shape(), opened.dtype(&name)));
        assert_eq!(format!("{}", tensor.dtype()), expected.dtype().to_string().to_lowercase(), "{file}: {name}");
        assert_eq!(bytes(&tensor)?, expected.data(), "{file}: {name}");
    }
    Ok(())
}

#[test]
fn dictionaries_of_tensors() -> Result {
    check("zip.bin", "expected.safetensors")?;
    check("legacy.bin", "expected.safetensors")
}

#[test]
fn state_dicts_of_modules() -> Result {
    check("module_zip.bin", "expected_module.safetensors")?;
    check("module_legacy.bin", "expected_module.safetensors")
}

#[test]
fn training_checkpoints() -> Result {
    check("wrapped_zip.bin", "expected_module.safetensors")?;
    check("wrapped_legacy.bin", "expected_module.safetensors")
}

#[test]
fn pickles_of_torch_that_are_not_tensors() -> Result {
    let said = |name: &str| TensorFile::open(fixture(name)).err().map(|error| error.to_string());
    let module = said("whole_module.bin").ok_or("a module was read")?;
    let refused = "whole_module.bin: whole_module/data.pkl: \
        global torch.nn.modules.container.Sequential at byte 2 is refused: only tensors are read";
    assert!(module.ends_with(refused), "{module}");
    let expanded = said("expanded.bin").ok_or("a view of five elements of one was read")?;
    let refused = "expanded.bin: x: shape [5] has more elements than its storage, which has 1";
    assert!(expanded.ends_with(refused), "{expanded}");
    Ok(())
}

#[test]
fn archives_with_wide_numbers() -> Result {
    let folder = Folder::new()?;
    let (pickle, all) = (Pickle::state_dict(&View::GOOD), numbers(6));
    let entries =
        [Entry::new("m/byteorder", b"little"), Entry::new("m/data.pkl", &pickle), Entry::new("m/data/0", &all)];
    for wide in [false, true] {
        let file = TensorFile::open(folder.write("m.bin", &archive(&entries, wide))?)?;
        assert_eq!(file.tensor("x", &Device::Cpu)?.to_vec::<f32>()?, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    }
    Ok(())
}

#[test]
fn formats_are_recognised_by_content() -> Result {
    let folder = Folder::new()?;
    let pickle = Pickle::state_dict(&View::GOOD);
    let path = folder.write("model.safetensors", &legacy(&pickle, &[("0", 6, &numbers(6))]))?;
    assert_eq!(TensorFile::open(path)?.shape("x"), Some(&[2, 3][..]));
    let said = folder.refused("model.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")?;
    assert_eq!(said, "model.bin: is a Git LFS pointer, not the file itself: run `git lfs pull`");
    let said = folder.refused("model.bin", b"\x80\x04\x95\x0d\0\0\0\0\0\0\0}.")?;
    assert_eq!(said, "model.bin: is a pickle, but not in a format that torch.save writes by default");
    let said = folder.refused("model.bin", b"<html></html>")?;
    assert_eq!(said, "model.bin: is not a safetensors file, a torch.save file or an index of shards");
    let said = folder.said(TensorFile::open(folder.path("none.bin")))?;
    assert!(said.starts_with("none.bin: cannot read: "), "{said}");
    std::fs::create_dir(folder.path("model"))?;
    assert_eq!(folder.said(TensorFile::open(folder.path("model")))?, "model: is not a file");
    Ok(())
}
