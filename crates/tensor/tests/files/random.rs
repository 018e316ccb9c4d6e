//! Random bytes, and valid files with random changes: all are read or refused, in bounded time and memory.

use std::path::PathBuf;
use std::sync::LazyLock;

use cloze_tensor::{DType, Device, Tensor, save_safetensors};
use proptest::prelude::*;

use crate::memory::peak;
use crate::{Folder, Result, read_all};

/// A change of a file.
#[derive(Clone, Debug)]
enum Change {
    Set(prop::sample::Index, u8),
    /// Overwrites bytes with a number that is likely to cause overflows.
    Number(prop::sample::Index, u64, usize),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Copy(prop::sample::Index, prop::sample::Index, usize),
    Cut(prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    let number = prop_oneof![
        Just(0),
        Just(u64::MAX),
        Just(u64::MAX / 2),
        Just(u64::from(u32::MAX)),
        Just(1 << 31),
        Just(1 << 62),
        0..300u64
    ];
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (at(), number, 1..9usize).prop_map(|(at, number, size)| Change::Number(at, number, size)),
        (at(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (at(), 1..40usize).prop_map(|(at, count)| Change::Remove(at, count)),
        (at(), at(), 1..40usize).prop_map(|(from, to, count)| Change::Copy(from, to, count)),
        at().prop_map(Change::Cut),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        if bytes.is_empty() {
            break;
        }
        let length = bytes.len();
        match change {
            Change::Set(at, byte) => bytes[at.index(length)] = *byte,
            Change::Number(at, number, size) => {
                bytes[at.index(length)..]
                    .iter_mut()
                    .zip(&number.to_le_bytes()[..*size])
                    .for_each(|(to, &from)| *to = from);
            }
            Change::Insert(at, more) => {
                bytes.splice(at.index(length)..at.index(length), more.iter().copied());
            }
            Change::Remove(at, count) => {
                let at = at.index(length);
                bytes.drain(at..length.min(at + count));
            }
            Change::Copy(from, to, count) => {
                let from = from.index(length);
                let part = bytes[from..length.min(from + count)].to_vec();
                bytes[to.index(length)..].iter_mut().zip(part).for_each(|(to, from)| *to = from);
            }
            Change::Cut(at) => bytes.truncate(at.index(length)),
        }
    }
    bytes
}

/// Returns valid files of all formats.
fn good() -> Result<Vec<Vec<u8>>> {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/pytorch");
    let fixtures = ["zip.bin", "legacy.bin", "wrapped_zip.bin", "wrapped_legacy.bin", "module_legacy.bin"]
        .map(|name| std::fs::read(fixtures.join(name)));
    let folder = Folder::new()?;
    let path = folder.path("t.safetensors");
    let x = Tensor::new([[1f32, 2.0, 3.0], [4.0, 5.0, 6.5]], &Device::Cpu)?;
    let tensors =
        [DType::F32, DType::F64, DType::BF16, DType::I64].map(|dtype| Ok((dtype.to_string(), x.to_dtype(dtype)?)));
    save_safetensors(&path, tensors.into_iter().collect::<Result<Vec<_>>>()?, &[("format", "pt")])?;
    let mut good = fixtures.into_iter().collect::<std::io::Result<Vec<_>>>()?;
    good.push(std::fs::read(path)?);
    good.push(b"{\"metadata\":{},\"weight_map\":{\"x\":\"a.safetensors\",\"y\":\"b.safetensors\"}}".to_vec());
    Ok(good)
}

/// Reads a file with the given bytes and checks how much memory that takes.
fn read(bytes: &[u8]) {
    let folder = Folder::new().expect("a temporary folder can be made");
    let path = folder.write("model.bin", bytes).expect("a temporary folder can be written");
    let ((), most) = peak(|| read_all(&path));
    assert!(most < (64 << 10) + 64 * bytes.len(), "{most} bytes for a file of {}", bytes.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn changed_files(number in any::<prop::sample::Index>(), changes in prop::collection::vec(change(), 1..6)) {
        static GOOD: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| good().unwrap());
        read(&changed(GOOD[number.index(GOOD.len())].clone(), &changes));
    }

    #[test]
    fn random_bytes(start in 0..5usize, bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
        let length = (bytes.len() as u64).to_le_bytes().to_vec();
        let start = [vec![], b"PK\x03\x04".to_vec(), magic, length, b"{".to_vec()][start].clone();
        read(&[start, bytes].concat());
    }
}
