//! Weights in the format of safetensors, and the index of sharded ones. Files are accepted and refused as the reference
//! implementation does, and what is read has the size and the bytes that it finds.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use cloze_fuzz::{Scratch, check_error, checked, limited, mutate_json, with_header};
use cloze_tensor::{DType, Device, Error, TensorFile};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use safetensors::SafeTensors;

static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);

fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    limited(data.len(), || match kind % 4 {
        0 => compare(rest),
        1 | 2 => compare(&with_header(rest)),
        _ => sharded(rest),
    });
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate_json(data, size, seed, 1, |data, size| fuzzer_mutate(data, size, max_size))
});

fn compare(bytes: &[u8]) {
    let path = SCRATCH.write("model", bytes);
    let own = TensorFile::open(&path);
    let reference = SafeTensors::deserialize(bytes);
    match (own, reference) {
        (Ok(own), Ok(reference)) => {
            let mut names: Vec<&str> = reference.names();
            names.sort_unstable();
            assert_eq!(own.names(), names);
            for (name, view) in reference.iter() {
                assert_eq!(own.shape(name), Some(view.shape()), "{name:?}");
                let Some(tensor) = checked(own.tensor(name, &Device::Cpu)) else { continue };
                let bytes = match tensor.dtype() {
                    DType::F32 => tensor.to_vec::<f32>().unwrap().iter().flat_map(|x| x.to_le_bytes()).collect(),
                    DType::I64 => tensor.to_vec::<i64>().unwrap().iter().flat_map(|x| x.to_le_bytes()).collect(),
                    DType::F64 => tensor.to_vec::<f64>().unwrap().iter().flat_map(|x| x.to_le_bytes()).collect(),
                    _ => view.data().to_vec(),
                };
                assert!(bytes == view.data(), "{name:?} has other bytes");
            }
        }
        (Ok(own), Err(_)) => {
            // An index of shards is not in the format.
            let is_index = bytes.trim_ascii_start().starts_with(b"{");
            assert!(is_index, "accepted alone: {:?}", own.names());
        }
        (Err(error), Ok(reference)) => {
            check_error(&error);
            assert!(reference.is_empty() || stricter(&error.to_string()), "refused alone: {error}");
        }
        (Err(error), Err(_)) => check_error(&error),
    }
}

/// Returns whether a refusal is one of those that the reference does not make.
fn stricter(said: &str) -> bool {
    said.contains("duplicate tensor")
}

/// Opens an index whose shards are two good files, whatever their names.
fn sharded(index: &[u8]) {
    static SHARDS: LazyLock<[PathBuf; 2]> = LazyLock::new(|| {
        let shard = |name: &str, tensors: &str| {
            SCRATCH.write(name, [&(tensors.len() as u64).to_le_bytes(), tensors.as_bytes(), &[0; 8]].concat())
        };
        [
            shard("one", r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#),
            shard("two", r#"{"b":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#),
        ]
    });
    let path = SCRATCH.write("index", index);
    let open = |shard: &str| {
        assert!(!shard.contains('/') && shard != "..", "a path is no name of a shard: {shard:?}");
        Ok::<_, Error>(SHARDS[usize::from(shard.contains('2'))].clone())
    };
    if let Some(file) = checked(TensorFile::open_with(path, open)) {
        for name in file.names() {
            checked(file.tensor(&name, &Device::Cpu));
        }
    }
}
