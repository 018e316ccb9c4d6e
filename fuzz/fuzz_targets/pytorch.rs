//! `pytorch_model.bin`: any bytes, a pickle in a good archive, a pickle in the older format, and pickles of whole
//! instructions.
#![no_main]

use std::sync::LazyLock;

use cloze_fuzz::{Choices, Scratch, checked, limited};
use cloze_tensor::{Device, TensorFile};
use libfuzzer_sys::fuzz_target;

static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);

fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    limited(data.len(), || match kind % 5 {
        0 => read(rest),
        1 => read(&archive(rest)),
        2 => read(&legacy(rest)),
        3 => read(&archive(&program(rest))),
        _ => read(&legacy(&program(rest))),
    });
});

fn read(bytes: &[u8]) {
    let path = SCRATCH.write("pytorch_model.bin", bytes);
    let Some(file) = checked(TensorFile::open(path)) else { return };
    for name in file.names() {
        let shape = file.shape(&name).expect("a tensor has a shape").to_vec();
        if let Some(tensor) = checked(file.tensor(&name, &Device::Cpu)) {
            assert_eq!(tensor.shape(), shape);
            assert!(tensor.elements() * tensor.dtype().size() <= bytes.len(), "{name:?} is larger than its file");
            // Reads every element.
            assert_eq!(
                checked(tensor.to_dtype(cloze_tensor::DType::F64)).unwrap().to_vec::<f64>().unwrap().len(),
                tensor.elements()
            );
        }
    }
}

/// The bytes of each storage of a made file.
const STORAGE: [u8; 64] = [63; 64];

/// Makes an archive of a pickle and three storages.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let entries: [(&str, &[u8]); 5] = [
        ("m/data.pkl", pickle),
        ("m/byteorder", b"little"),
        ("m/data/0", &STORAGE),
        ("m/data/1", &STORAGE[..24]),
        ("m/data/2", &[]),
    ];
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let sizes = [(content.len() as u32).to_le_bytes(), (content.len() as u32).to_le_bytes()].concat();
        let names = [(name.len() as u16).to_le_bytes(), [0; 2]].concat();
        let start = (bytes.len() as u32).to_le_bytes();
        bytes.extend([b"PK\x03\x04", &[0; 14][..], &sizes, &names, name.as_bytes(), content].concat());
        directory.extend([b"PK\x01\x02", &[0; 16][..], &sizes, &names, &[0; 10], &start, name.as_bytes()].concat());
    }
    let count = 5u16.to_le_bytes();
    let place = [(directory.len() as u32).to_le_bytes(), (bytes.len() as u32).to_le_bytes()].concat();
    bytes.extend(directory);
    bytes.extend([b"PK\x05\x06", &[0; 4][..], &count, &count, &place, &[0; 2]].concat());
    bytes
}

/// Makes a file of the older format: magic number, version, system, the pickle, the list of its storages, and their bytes.
fn legacy(pickle: &[u8]) -> Vec<u8> {
    const HEAD: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\
                          \x80\x02}X\x0d\x00\x00\x00little_endian\x88s.";
    const KEYS: &[u8] = b"\x80\x02]X\x01\x00\x00\x000a.";
    [HEAD, pickle, KEYS, &16u64.to_le_bytes(), &STORAGE].concat()
}

/// Makes a pickle of whole instructions, a byte or a few for each.
fn program(bytes: &[u8]) -> Vec<u8> {
    let mut choices = Choices::new(bytes);
    let mut pickle = b"\x80\x02}".to_vec();
    while choices.any_left() {
        let number = |choices: &mut Choices<'_>| match choices.size() {
            small @ 0..=255 => vec![b'K', small as u8],
            large => [b"\x8a\x08", &large.to_le_bytes()[..]].concat(),
        };
        let part: Vec<u8> = match choices.below(32) {
            // A view of a storage: offset, shape, strides.
            0..=9 => {
                let kind = choices.of(&["Float", "Half", "BFloat16", "Double", "Long", "Int", "Bool", "Byte"]);
                let elements = choices.of(&[16, 32, 8, 6, 3, 0, 24, 64]);
                let key = choices.of(&["0", "1", "2", "3"]);
                let mut part = format!("X\u{1}\0\0\0{}", char::from(b'a' + choices.byte() % 26)).into_bytes();
                part.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n");
                part.extend(format!("{kind}Storage\nX\u{1}\0\0\0{key}X\u{3}\0\0\0cpuK").bytes());
                part.extend([elements, b't', b'Q']);
                part.extend(number(&mut choices));
                for _ in 0..2 {
                    part.push(b'(');
                    (0..choices.below(4)).for_each(|_| part.extend(number(&mut choices)));
                    part.push(b't');
                }
                [&part[..], b"\x89ccollections\nOrderedDict\n)RtRs"].concat()
            }
            10 => b"ccollections\nOrderedDict\n)R".to_vec(),
            11 => b"X\x0a\x00\x00\x00state_dict".to_vec(),
            12 => b"X\x05\x00\x00\x00model".to_vec(),
            13 => b"ctorch\nSize\n".to_vec(),
            14 => b"ctorch._utils\n_rebuild_parameter\n".to_vec(),
            15 => b"ctorch._utils\n_rebuild_tensor_v2\n".to_vec(),
            16 => number(&mut choices),
            17 => vec![b'q', choices.byte()],
            18 => vec![b'h', choices.byte()],
            19 => [&b"X"[..], &u32::from(choices.byte() % 4).to_le_bytes(), b"abc"].concat(),
            other => vec![b"()}]tRsubae0.\x85\x86\x87\x88N"[(other - 20) % 17]],
        };
        pickle.extend(part);
    }
    pickle.push(b'.');
    pickle
}
