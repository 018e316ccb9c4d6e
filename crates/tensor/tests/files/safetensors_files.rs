//! Safetensors files, compared with those of the `safetensors` crate.

use std::collections::HashMap;
use std::fs;

use cloze_tensor::{DType, Device, Error, Tensor, TensorFile, save_safetensors};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::memory::peak;
use crate::{Folder, Result};

const ALL: [DType; 6] = [DType::F32, DType::F64, DType::BF16, DType::F16, DType::U32, DType::I64];

fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&file_of(header.as_bytes())[..], data].concat()
}

/// Returns a file without data, whose header need not be a text.
fn file_of(header: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header].concat()
}

#[test]
fn round_trip_of_every_type_and_layout() -> Result {
    let folder = Folder::new()?;
    let path = folder.path("t.safetensors");
    let x = Tensor::new([[1f32, 2.0, 3.0], [4.0, 5.0, 6.5]], &Device::Cpu)?;
    let transposed = |dtype: DType| x.to_dtype(dtype)?.t();
    let tensors = ALL.iter().map(|&dtype| Ok((dtype.to_string(), transposed(dtype)?)));
    save_safetensors(&path, tensors.collect::<cloze_tensor::Result<Vec<_>>>()?, &[("format", "pt")])?;
    let file = TensorFile::open(&path)?;
    let bytes = fs::read(&path)?;
    let theirs = SafeTensors::deserialize(&bytes)?;
    assert_eq!(file.names().len(), ALL.len());
    assert_eq!(file.path(), path);
    for dtype in ALL {
        let name = dtype.to_string();
        assert_eq!((file.shape(&name), file.dtype(&name)), (Some(&[3, 2][..]), Some(dtype)));
        assert_eq!(file.path_of(&name), Some(path.as_path()));
        let (read, theirs) = (file.tensor(&name, &Device::Cpu)?, theirs.tensor(&name)?);
        assert_eq!((read.shape(), read.dtype()), (&[3, 2][..], dtype));
        assert_eq!((theirs.shape(), theirs.dtype().to_string().to_lowercase()), (&[3, 2][..], name));
        let expected = transposed(dtype)?.to_dtype(DType::F64)?.to_vec::<f64>()?;
        assert_eq!(read.to_dtype(DType::F64)?.to_vec::<f64>()?, expected);
    }
    let said = folder.said(file.tensor("y", &Device::Cpu))?;
    assert_eq!(said, "t.safetensors: has no tensor y");
    assert_eq!((file.shape("y"), file.dtype("y"), file.path_of("y")), (None, None, None));
    Ok(())
}

#[test]
fn files_equal_those_of_the_reference() -> Result {
    let folder = Folder::new()?;
    let path = folder.path("t.safetensors");
    let numbers: Vec<u8> = (0..64).collect();
    let tensors = [
        ("b", Dtype::F32, vec![2, 3]),
        ("a \"\\\u{1}ä", Dtype::F32, vec![]),
        ("z", Dtype::I64, vec![2]),
        ("y", Dtype::F64, vec![1]),
        ("half", Dtype::F16, vec![3, 1]),
        ("brain", Dtype::BF16, vec![2]),
        ("ids", Dtype::U32, vec![5]),
        ("none", Dtype::F32, vec![0, 2]),
    ];
    let views: Vec<(&str, TensorView)> = tensors
        .iter()
        .map(|(name, dtype, shape)| {
            let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
            Ok((*name, TensorView::new(*dtype, shape.clone(), &numbers[..bytes])?))
        })
        .collect::<Result<_>>()?;
    for metadata in [None, Some(("format", "p\"t\u{1f}"))] {
        let map = metadata.map(|(key, value)| HashMap::from([(key.to_string(), value.to_string())]));
        fs::write(&path, safetensors::serialize(views.clone(), map)?)?;
        let theirs = TensorFile::open(&path)?;
        let read = theirs.names().into_iter().map(|name| Ok((name.clone(), theirs.tensor(&name, &Device::Cpu)?)));
        let ours = folder.path("ours.safetensors");
        save_safetensors(&ours, read.collect::<Result<Vec<_>>>()?, metadata.as_slice())?;
        assert_eq!(fs::read(&ours)?, fs::read(&path)?);
    }
    Ok(())
}

#[test]
fn every_type_of_the_format_is_known() -> Result {
    use Dtype::*;
    let all = [
        BOOL,
        F4,
        F6_E2M3,
        F6_E3M2,
        U8,
        I8,
        F8_E5M2,
        F8_E4M3,
        F8_E8M0,
        F8_E4M3FNUZ,
        F8_E5M2FNUZ,
        I16,
        U16,
        F16,
        BF16,
        I32,
        U32,
        F32,
        C64,
        F64,
        I64,
        U64,
    ];
    let folder = Folder::new()?;
    let numbers = [0; 64];
    let views = all.map(|dtype| (dtype.to_string(), TensorView::new(dtype, vec![2, 4], &numbers[..dtype.bitsize()])));
    let views = views.into_iter().map(|(name, view)| Ok((name, view?))).collect::<Result<Vec<_>>>()?;
    let file = TensorFile::open(folder.write("t.safetensors", &safetensors::serialize(views, None)?)?)?;
    for dtype in all {
        let name = dtype.to_string();
        let ours = ALL.into_iter().find(|ours| ours.to_string() == name.to_lowercase());
        assert_eq!((file.shape(&name), file.dtype(&name)), (Some(&[2, 4][..]), ours), "{name}");
    }
    Ok(())
}

#[test]
fn metadata_are_sorted_and_views_are_written() -> Result {
    let folder = Folder::new()?;
    let path = folder.path("t.safetensors");
    let x = Tensor::new([[1f32, 2.0], [3.0, 4.0]], &Device::Cpu)?;
    let (empty, row) = (x.narrow(0, 2, 0)?, x.narrow(0, 1, 1)?);
    let tensors = || [("empty", &empty), ("row", &row), ("x", &x)].map(|(name, tensor)| (name.into(), tensor.clone()));
    let keys: Vec<String> = (0..9).map(|i| format!("key {i}")).collect();
    let mut metadata: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "a \"\\\n")).collect();
    save_safetensors(&path, tensors(), &metadata)?;
    let first = fs::read(&path)?;
    metadata.reverse();
    save_safetensors(&path, tensors(), &metadata)?;
    assert_eq!(fs::read(&path)?, first);
    let (_, theirs) = SafeTensors::read_metadata(&first)?;
    assert_eq!(theirs.metadata().as_ref().and_then(|all| all.get("key 3")).map(String::as_str), Some("a \"\\\n"));
    let file = TensorFile::open(&path)?;
    assert_eq!(file.tensor("empty", &Device::Cpu)?.shape(), [0, 2]);
    assert_eq!(file.tensor("row", &Device::Cpu)?.to_vec::<f32>()?, [3.0, 4.0]);
    assert_eq!(file.tensor("x", &Device::Cpu)?.to_vec::<f32>()?, [1.0, 2.0, 3.0, 4.0]);
    save_safetensors(&path, [], &[("a", "b")])?;
    assert!(TensorFile::open(&path)?.names().is_empty());
    assert_eq!(fs::read_dir(folder.path(""))?.count(), 1);
    Ok(())
}

#[test]
fn a_large_model_is_saved_and_opened_without_a_second_copy() -> Result {
    let folder = Folder::new()?;
    let path = folder.path("t.safetensors");
    let layer = |i: usize| Tensor::full(i as f64, &[256, 1024], DType::F32, &Device::Cpu);
    let tensors = (0..16).map(|i| Ok((format!("layer.{i}"), layer(i)?))).collect::<Result<Vec<_>>>()?;
    let (saved, most) = peak(|| save_safetensors(&path, tensors, &[]));
    saved?;
    assert!(most < 1 << 16, "{most} bytes to save 16 MiB");
    let (file, most) = peak(|| TensorFile::open(&path));
    assert!(most < 1 << 16, "{most} bytes to open 16 MiB");
    assert_eq!(file?.tensor("layer.9", &Device::Cpu)?.to_vec::<f32>()?, vec![9.0; 256 * 1024]);
    Ok(())
}

#[test]
fn a_file_can_be_replaced_by_views_of_itself() -> Result {
    let folder = Folder::new()?;
    let path = folder.path("t.safetensors");
    let values: Vec<f32> = (0..50_000).map(|i| i as f32).collect();
    let x = Tensor::from_slice(&values, &[100, 500], &Device::Cpu)?;
    let y = Tensor::full(2.5, &[70_000], DType::F64, &Device::Cpu)?;
    save_safetensors(&path, [("x".to_string(), x), ("y".to_string(), y)], &[])?;
    let file = TensorFile::open(&path)?;
    let (x, y) = (file.tensor("x", &Device::Cpu)?, file.tensor("y", &Device::Cpu)?);
    // The new file is shorter, and x moves to the position of y.
    save_safetensors(&path, [("x".to_string(), x.clone())], &[("why", "shorter")])?;
    assert_eq!(x.to_vec::<f32>()?, values);
    assert_eq!(y.to_vec::<f64>()?, vec![2.5; 70_000]);
    assert_eq!(TensorFile::open(&path)?.tensor("x", &Device::Cpu)?.to_vec::<f32>()?, values);
    assert_eq!(fs::read_dir(folder.path(""))?.count(), 1);
    Ok(())
}

#[test]
fn errors_of_saving_leave_the_old_file() -> Result {
    let folder = Folder::new()?;
    let path = folder.write("t.safetensors", b"old")?;
    let x = || Tensor::zeros(&[1], DType::F32, &Device::Cpu);
    let said = folder.said(save_safetensors(&path, [("x".into(), x()?), ("x".into(), x()?)], &[]))?;
    assert_eq!(said, "t.safetensors: cannot write: two tensors are named x");
    let said = folder.said(save_safetensors(&path, [("__metadata__".into(), x()?)], &[]))?;
    assert_eq!(said, "t.safetensors: cannot write: no tensor can be named __metadata__");
    let said = folder.said(save_safetensors("/no/such/folder/x.safetensors", [("x".into(), x()?)], &[]))?;
    assert!(said.starts_with("/no/such/folder/x.safetensors: cannot write: "), "{said}");
    // A directory cannot be replaced by a file.
    fs::create_dir(folder.path("model"))?;
    let said = folder.said(save_safetensors(folder.path("model"), [("x".into(), x()?)], &[]))?;
    assert!(said.starts_with("model: cannot write: "), "{said}");
    assert_eq!(fs::read(&path)?, b"old");
    assert_eq!(fs::read_dir(folder.path(""))?.count(), 2);
    Ok(())
}

#[test]
fn hostile_headers_are_refused() -> Result {
    let x = |dtype: &str, shape: &str, from: u64, to: u64| {
        format!("\"x\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[{from},{to}]}}")
    };
    let one = |entry: &str| file(&format!("{{{entry}}}"), &[0; 8]);
    let two = |x: &str, y: &str| file(&format!("{{{x},{}}}", y.replacen("\"x\"", "\"y\"", 1)), &[0; 8]);
    let max = u64::MAX;
    let deep = format!("{{\"x\":{}", "[".repeat(1 << 20));
    let deep_metadata = format!("{{\"__metadata__\":{}", "[".repeat(1 << 20));
    let cases: Vec<(Vec<u8>, String)> = vec![
        (vec![], "is not a safetensors file".into()),
        (vec![0; 7], "is not a safetensors file".into()),
        (vec![0xff; 16], "is not a safetensors file".into()),
        (vec![0; 8], "invalid header: EOF".into()),
        (100u64.to_le_bytes().to_vec(), "is truncated: its header has 100 bytes, the whole file 8".into()),
        (
            4_000_000_000u64.to_le_bytes().to_vec(),
            "states a header of 4000000000 bytes, the format allows 100000000".into(),
        ),
        (file("{\"x\":", &[]), "invalid header: EOF".into()),
        (file("[]", &[]), "invalid header: invalid type: sequence, expected an object with a tensor".into()),
        (file("{\"x\":\u{0}}", &[]), "invalid header".into()),
        (file("{} {}", &[]), "invalid header: trailing characters".into()),
        (file(&deep, &[]), "invalid header: invalid type: sequence".into()),
        (file(&deep_metadata, &[]), "invalid header: invalid type: sequence, expected an object with a string".into()),
        (
            file("{\"__metadata__\":{\"a\":1}}", &[]),
            "invalid header: invalid type: integer `1`, expected a string".into(),
        ),
        (file("{\"__metadata__\":{\"a\":{}}}", &[]), "invalid header: invalid type: map, expected a string".into()),
        (
            file("{\"__metadata__\":\"pt\"}", &[]),
            "expected an object with a string under each name in __metadata__".into(),
        ),
        (file("{\"__metadata__\":{},\"__metadata__\":{}}", &[]), "invalid header: duplicate __metadata__".into()),
        (
            file_of(b"{\"x\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0],\"a\":\"\xff\"}}"),
            "not UTF-8".into(),
        ),
        (one("\"x\":{\"dtype\":\"F32\",\"shape\":[2]}"), "missing field `data_offsets`".into()),
        (one("\"x\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}"), "invalid value: integer `-2`".into()),
        (one(&x("F33", "[2]", 0, 8)), "x: unknown type F33".into()),
        (one(&x("F32", "[3]", 0, 8)), "x: 8 bytes do not match type F32 and shape [3]".into()),
        (one(&x("F32", &format!("[{max},{max}]"), 0, 8)), "x: 8 bytes do not match type F32 and shape".into()),
        (one(&x("F32", "[4611686018427387906]", 0, 8)), "x: 8 bytes do not match type F32 and shape".into()),
        (one(&x("F4", "[15]", 0, 8)), "x: 8 bytes do not match type F4 and shape [15]".into()),
        (one(&x("F32", "[3]", 0, 12)), "x: byte range 0 to 12 is out of range: the data has 8 bytes".into()),
        (one(&x("F32", "[0]", 0, max)), format!("x: byte range 0 to {max} is out of range: the data has 8 bytes")),
        (one(&x("F32", "[1]", 4, 8)), "x: begins at byte 4 and leaves a gap after the previous tensor".into()),
        (one(&x("F32", "[1]", 0, 4)), "has 8 bytes of data, but its tensors need 4".into()),
        (one(&x("F32", "[1]", max, max)), "leaves a gap after".into()),
        (file("{}", &[0; 8]), "has 8 bytes of data, but its tensors need 0".into()),
        (
            two(&x("F32", "[2]", 0, 8), &x("F32", "[2]", 0, 8)),
            "y: begins at byte 0 and overlaps the previous tensor, which ends at 8".into(),
        ),
        (two(&x("F32", "[2]", 0, 8), &x("F32", "[1]", 4, 8)), "y: begins at byte 4 and overlaps".into()),
        (two(&x("F32", "[0]", 0, 0), &x("F32", "[0]", 8, 0)), "y: begins at byte 8 and leaves a gap".into()),
        (one(&format!("{0},{0}", x("F32", "[2]", 0, 8))), "invalid header: duplicate tensor x".into()),
    ];
    let folder = Folder::new()?;
    for (bytes, expected) in cases {
        let said = folder.refused("m.safetensors", &bytes)?;
        assert!(said.starts_with("m.safetensors: ") && said.contains(&expected), "{said}: {expected}");
        let is_stricter = expected.contains("duplicate tensor");
        assert_eq!(SafeTensors::deserialize(&bytes).is_ok(), is_stricter, "the reference: {expected}");
    }
    Ok(())
}

#[test]
fn unusual_but_valid_files_are_read() -> Result {
    let folder = Folder::new()?;
    // Out of order and not aligned, with spaces, unknown fields and unsupported types.
    let header = " {\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[3,11],\"more\":[[1]]},\
        \"__metadata__\":{\"a\":\"b\",\"a\":\"\\u00e4\"},\"a\":{\"data_offsets\":[0,3],\"shape\":[3],\"dtype\":\"U8\"},\
        \"f\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[11,13]},\
        \"d\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,0],\"data_offsets\":[13,13]}}   ";
    let data = [&[1, 2, 3][..], &1.5f32.to_le_bytes(), &(-2f32).to_le_bytes(), &[0, 0]].concat();
    let file = TensorFile::open(folder.write("m.safetensors", &file(header, &data))?)?;
    assert_eq!(file.names(), ["a", "b", "d", "f"]);
    let none = file_of(b"{\"__metadata__\":null}");
    assert!(SafeTensors::deserialize(&none).is_ok() && TensorFile::open(folder.write("n", &none)?)?.names().is_empty());
    assert_eq!(file.tensor("b", &Device::Cpu)?.to_vec::<f32>()?, [1.5, -2.0]);
    assert_eq!((file.dtype("a"), file.shape("a")), (None, Some(&[3][..])));
    let said = |name| folder.said(file.tensor(name, &Device::Cpu));
    assert_eq!(said("a")?, "m.safetensors: a: type U8 is not supported");
    assert_eq!(said("f")?, "m.safetensors: f: type F4 is not supported");
    assert_eq!(said("d")?, "m.safetensors: d has 7 dimensions, at most 6 are supported");
    Ok(())
}

#[test]
fn memory_is_proportional_to_the_header() -> Result {
    let folder = Folder::new()?;
    let entries = |count: usize, entry: &dyn Fn(usize) -> String| {
        let entries: Vec<String> = (0..count).map(entry).collect();
        file(&format!("{{{}}}", entries.join(",")), &[])
    };
    let cases = [
        entries(100_000, &|i| format!("\"{i}\":{{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}")),
        entries(1, &|_| {
            format!("\"x\":{{\"dtype\":\"F32\",\"shape\":[0{}],\"data_offsets\":[0,0]}}", ",1".repeat(1 << 21))
        }),
        entries(1, &|_| format!("\"__metadata__\":[{}0]", "0,".repeat(1 << 21))),
        entries(1, &|_| format!("\"__metadata__\":{{{}\"b\":\"\"}}", "\"a\":\"\\n\",".repeat(1 << 18))),
        entries(1, &|_| format!("\"{}\":1", "a".repeat(4 << 20))),
        entries(1, &|_| {
            format!("\"x\":{{\"dtype\":\"{}\",\"shape\":[],\"data_offsets\":[0,0]}}", "\\n".repeat(2 << 20))
        }),
    ];
    for bytes in cases {
        let path = folder.write("m.safetensors", &bytes)?;
        let (_, most) = peak(|| TensorFile::open(&path).map_err(|error: Error| error.to_string()));
        assert!(most < 16 * bytes.len(), "{most} bytes for a file of {}", bytes.len());
    }
    Ok(())
}
