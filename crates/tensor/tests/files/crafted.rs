//! Builders for files in the formats of torch.save, including files that torch would not write.

/// A pickle under construction.
#[derive(Clone, Default)]
pub struct Pickle(pub Vec<u8>);

impl Pickle {
    pub fn new() -> Pickle {
        Pickle(vec![0x80, 2])
    }

    pub fn raw(mut self, bytes: &[u8]) -> Pickle {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn int(self, number: i64) -> Pickle {
        self.raw(&[0x8a, 8]).raw(&number.to_le_bytes())
    }

    pub fn text(self, text: &str) -> Pickle {
        self.raw(b"X").raw(&(text.len() as u32).to_le_bytes()).raw(text.as_bytes())
    }

    pub fn global(self, module: &str, name: &str) -> Pickle {
        self.raw(format!("c{module}\n{name}\n").as_bytes())
    }

    pub fn sizes(self, sizes: &[i64]) -> Pickle {
        sizes.iter().fold(self.raw(b"("), |pickle, &size| pickle.int(size)).raw(b"t")
    }

    pub fn storage(self, class: &str, key: &str, elements: i64) -> Pickle {
        self.raw(b"(").text("storage").global("torch", class).text(key).text("cpu").int(elements).raw(b"tQ")
    }

    pub fn tensor(self, view: &View) -> Pickle {
        self.global("torch._utils", "_rebuild_tensor_v2")
            .raw(b"(")
            .storage(view.class, view.key, view.stored)
            .int(view.offset)
            .sizes(view.shape)
            .sizes(view.strides)
            .raw(b"\x89")
            .global("collections", "OrderedDict")
            .raw(b")RtR")
    }

    /// Returns the pickle of a dictionary with a single tensor `x`.
    pub fn state_dict(view: &View) -> Vec<u8> {
        Pickle::new().raw(b"}").text("x").tensor(view).raw(b"s.").0
    }
}

/// A tensor as a view of a storage.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub class: &'a str,
    pub key: &'a str,
    pub stored: i64,
    pub offset: i64,
    pub shape: &'a [i64],
    pub strides: &'a [i64],
}

impl View<'_> {
    /// A view of all six f32 numbers of storage 0.
    pub const GOOD: View<'static> =
        View { class: "FloatStorage", key: "0", stored: 6, offset: 0, shape: &[2, 3], strides: &[3, 1] };
}

pub fn numbers(count: usize) -> Vec<u8> {
    (0..count).flat_map(|i| (i as f32).to_le_bytes()).collect()
}

/// An entry of an archive, and the fields of its headers.
pub struct Entry<'a> {
    pub name: &'a str,
    pub bytes: &'a [u8],
    pub flags: u16,
    pub method: u16,
    pub size: u64,
    pub header: Option<u64>,
}

impl<'a> Entry<'a> {
    pub fn new(name: &'a str, bytes: &'a [u8]) -> Entry<'a> {
        Entry { name, bytes, flags: 0, method: 0, size: bytes.len() as u64, header: None }
    }
}

/// Returns a zip archive, with 8-byte numbers everywhere if `wide`. Checksums are 0, because they are not read.
pub fn archive(entries: &[Entry], wide: bool) -> Vec<u8> {
    let small = |number: u64| if wide { u32::MAX } else { number as u32 }.to_le_bytes();
    let extra = |numbers: &[u64]| match wide {
        false => Vec::new(),
        true => [
            // Begins with another field, like the padding that torch writes.
            &b"FB\x02\0??\x01\0"[..],
            &(numbers.len() as u16 * 8).to_le_bytes(),
            &numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>(),
        ]
        .concat(),
    };
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let header = entry.header.unwrap_or(file.len() as u64);
        let (name, size) = (entry.name.as_bytes(), entry.size);
        let common = |extra: &[u8]| {
            [
                &entry.flags.to_le_bytes()[..],
                &entry.method.to_le_bytes(),
                &[0; 8],
                &small(size),
                &small(size),
                &(name.len() as u16).to_le_bytes(),
                &(extra.len() as u16).to_le_bytes(),
            ]
            .concat()
        };
        let local_extra = extra(&[size, size]);
        file.extend([b"PK\x03\x04\x2d\0", &common(&local_extra)[..], name, &local_extra, entry.bytes].concat());
        let extra = extra(&[size, size, header]);
        directory
            .extend([b"PK\x01\x02\x2d\0\x2d\0", &common(&extra)[..], &[0; 10], &small(header), name, &extra].concat());
    }
    let (start, size) = (file.len() as u64, directory.len() as u64);
    file.extend(directory);
    if wide {
        let end = file.len() as u64;
        let count = (entries.len() as u64).to_le_bytes();
        file.extend([b"PK\x06\x06", &44u64.to_le_bytes()[..], &[0; 12], &count, &count].concat());
        file.extend([size.to_le_bytes(), start.to_le_bytes()].concat());
        file.extend([b"PK\x06\x07\0\0\0\0", &end.to_le_bytes()[..], &1u32.to_le_bytes()].concat());
    }
    file.extend([b"PK\x05\x06", &[0; 8][..], &small(size), &small(start), &[0; 2]].concat());
    file
}

/// Returns a file in the format of torch.save since 1.6, with the given bytes as storage 0.
pub fn torch_archive(pickle: &[u8], storage: &[u8]) -> Vec<u8> {
    archive(&[Entry::new("m/data.pkl", pickle), Entry::new("m/data/0", storage)], false)
}

/// Returns a file in the format of torch.save before 1.6, with the given storages.
pub fn legacy(pickle: &[u8], storages: &[(&str, u64, &[u8])]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let version = Pickle::new().int(1001).raw(b".").0;
    let system = Pickle::new().raw(b"}").text("little_endian").raw(b"\x88s.").0;
    let keys = storages.iter().fold(Pickle::new().raw(b"]("), |keys, (key, ..)| keys.text(key)).raw(b"e.").0;
    let mut file = [magic, &version[..], &system, pickle, &keys].concat();
    for (_, elements, bytes) in storages {
        file.extend(elements.to_le_bytes());
        file.extend_from_slice(bytes);
    }
    file
}
