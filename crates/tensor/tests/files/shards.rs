//! Sharded checkpoints.

use std::path::PathBuf;

use cloze_tensor::{Device, Error, Tensor, TensorFile, save_safetensors};

use crate::crafted::{Pickle, View, numbers, torch_archive};
use crate::{Folder, Result};

const INDEX: &str = "model.safetensors.index.json";

fn save(folder: &Folder, file: &str, tensors: &[(&str, f32)]) -> Result {
    let tensor = |&(name, value): &(&str, f32)| Ok((name.to_string(), Tensor::new([value], &Device::Cpu)?));
    let tensors = tensors.iter().map(tensor).collect::<Result<Vec<_>>>()?;
    Ok(save_safetensors(folder.path(file), tensors, &[])?)
}

fn index(folder: &Folder, places: &[(&str, &str)]) -> Result<PathBuf> {
    let places: serde_json::Map<String, serde_json::Value> =
        places.iter().map(|&(name, file)| (name.to_string(), file.into())).collect();
    let index = serde_json::json!({ "metadata": { "total_size": 8, "more": [[]] }, "weight_map": places });
    folder.write(INDEX, serde_json::to_string_pretty(&index)?.as_bytes())
}

#[test]
fn shards_are_presented_as_one_file() -> Result {
    let folder = Folder::new()?;
    save(&folder, "a.safetensors", &[("x", 1.0), ("not in the index", 3.0)])?;
    save(&folder, "b.safetensors", &[("y", 2.0)])?;
    // Shards may be files of torch.save.
    let pickle = Pickle::state_dict(&View { key: "0", ..View::GOOD });
    folder.write("c.bin", &torch_archive(&pickle, &numbers(6)))?;
    std::fs::rename(folder.path("a.safetensors"), folder.path("elsewhere"))?;
    let path = index(&folder, &[("x", "a.safetensors"), ("y", "b.safetensors")])?;
    let mut asked = Vec::new();
    let file = TensorFile::open_with(&path, |shard| {
        asked.push(shard.to_string());
        Ok::<_, Error>(folder.path(if shard == "a.safetensors" { "elsewhere" } else { shard }))
    })?;
    assert_eq!(asked, ["a.safetensors", "b.safetensors"]);
    assert_eq!(file.path(), path);
    assert_eq!(file.names(), ["not in the index", "x", "y"]);
    assert_eq!(file.path_of("x"), Some(folder.path("elsewhere").as_path()));
    assert_eq!(file.shape("y"), Some(&[1][..]));
    for (name, value) in [("x", 1.0), ("y", 2.0), ("not in the index", 3.0)] {
        assert_eq!(file.tensor(name, &Device::Cpu)?.to_vec::<f32>()?, [value]);
    }
    let path = index(&folder, &[("x", "c.bin"), ("y", "b.safetensors")])?;
    assert_eq!(TensorFile::open(path)?.tensor("x", &Device::Cpu)?.elements(), 6);
    Ok(())
}

#[test]
fn errors_of_fetching_shards_keep_their_type() -> Result {
    #[derive(Debug)]
    enum Failure {
        Fetch(String),
        Open,
    }
    impl From<Error> for Failure {
        fn from(_: Error) -> Failure {
            Failure::Open
        }
    }
    let folder = Folder::new()?;
    let path = index(&folder, &[("x", "a.safetensors"), ("y", "b.safetensors")])?;
    let failed = TensorFile::open_with(&path, |shard| Err(Failure::Fetch(shard.to_string())));
    assert!(matches!(failed.err(), Some(Failure::Fetch(shard)) if shard == "a.safetensors"));
    let failed = TensorFile::open_with(folder.path("none"), |shard| Err(Failure::Fetch(shard.to_string())));
    assert!(matches!(failed.err(), Some(Failure::Open)));
    Ok(())
}

#[test]
fn inconsistent_shards_are_named() -> Result {
    let folder = Folder::new()?;
    save(&folder, "a.safetensors", &[("x", 1.0)])?;
    save(&folder, "b.safetensors", &[("y", 2.0)])?;
    save(&folder, "both.safetensors", &[("x", 2.0), ("y", 2.0)])?;
    let said = |places: &[(&str, &str)]| folder.said(TensorFile::open(index(&folder, places)?));
    assert_eq!(
        said(&[("x", "a.safetensors"), ("y", "c.safetensors"), ("z", "d.safetensors")])?,
        format!("{INDEX}: missing shards: c.safetensors, d.safetensors")
    );
    assert_eq!(
        said(&[("x", "a.safetensors"), ("y", "b.safetensors"), ("z", "b.safetensors")])?,
        format!("b.safetensors: missing tensors, which {INDEX} lists: z")
    );
    assert_eq!(
        said(&[("x", "b.safetensors"), ("y", "a.safetensors")])?,
        format!("a.safetensors: missing tensors, which {INDEX} lists: y")
    );
    assert_eq!(
        said(&[("x", "a.safetensors"), ("y", "both.safetensors")])?,
        format!("{INDEX}: tensor x is in two shards, a.safetensors and both.safetensors")
    );
    let itself = format!("{INDEX}: is listed as a shard in {INDEX}, but is an index itself");
    assert_eq!(said(&[("x", INDEX)])?, itself);
    folder.write("broken.safetensors", &[0; 100])?;
    let broken = said(&[("x", "broken.safetensors")])?;
    assert!(broken.starts_with("broken.safetensors: invalid header"), "{broken}");
    let many: Vec<String> = (0..100).map(|i| format!("{i:03}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), name.as_str())).collect();
    assert_eq!(said(&many)?, format!("{INDEX}: missing shards: 000, 001, 002, 003, 004, and 95 more"));
    Ok(())
}

#[test]
fn shards_must_be_in_the_directory_of_their_index() -> Result {
    let folder = Folder::new()?;
    for file in ["../a", "/etc/passwd", "sub/a", "..", ".", "", "a/", "./a", "sub\\a", "C:a", "a\0b"] {
        let said = folder
            .said(TensorFile::open_with(index(&folder, &[("x", file)])?, |_| -> cloze_tensor::Result<_> {
                panic!("{file} was asked for")
            }))?;
        let shown = file.escape_debug();
        let expected = format!("x is listed in {shown}, but shards must be in the directory of the index");
        assert_eq!(said, format!("{INDEX}: {expected}"));
    }
    Ok(())
}

#[test]
fn malformed_indexes_are_refused() -> Result {
    let folder = Folder::new()?;
    let cases: [(&[u8], &str); 5] = [
        (b"{\"weight_map\": {}}", "is an index without tensors"),
        (b"{\"model_type\": \"bert\"}", "is not an index of shards: missing field `weight_map`"),
        (b"{\"weight_map\": {\"x\": 1}}", "is not an index of shards: invalid type: integer"),
        (b"{\"weight_map\": ", "is not an index of shards: EOF"),
        (b"  {\"weight_map\": [[[", "is not an index of shards: invalid type: sequence"),
    ];
    for (bytes, expected) in cases {
        let said = folder.refused(INDEX, bytes)?;
        assert!(said.starts_with(&format!("{INDEX}: {expected}")), "{said}: {expected}");
    }
    Ok(())
}
