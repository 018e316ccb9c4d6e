//! A shard as a file in the format of safetensors:
//!
//! ```text
//! document_ends  U64, the end of each document, counted in sentences of the shard
//! sentence_ends  U64, the end of each sentence, counted in tokens of the shard
//! ids            U16 for vocabularies of up to 2^16 tokens, else U32
//! ```
//!
//! The order aligns each tensor for its type. The format has no other padding than that of its header.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytemuck::AnyBitPattern;
use cloze_tensor::retry;
use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_128;

use super::super::store::{IdSection, Section, Shard};
use super::index::{Index, ShardEntry, VERSION};
use crate::{Error, Result};

/// The header is padded with spaces to a multiple of this.
const ALIGNMENT: usize = 8;
/// The bytes that are hashed before their pages are released.
const CHUNK: usize = 1 << 24;

#[derive(Serialize, Deserialize)]
struct Header {
    __metadata__: BTreeMap<String, String>,
    document_ends: TensorInfo,
    sentence_ends: TensorInfo,
    ids: TensorInfo,
}

/// A tensor of one dimension.
#[derive(Serialize, Deserialize)]
struct TensorInfo {
    dtype: String,
    shape: [usize; 1],
    /// Begin and end of the tensor's bytes, counted from the end of the header.
    data_offsets: [usize; 2],
}

impl TensorInfo {
    fn new<T>(dtype: &str, numbers: &[T], begin: usize) -> TensorInfo {
        let data_offsets = [begin, begin + size_of_val(numbers)];
        TensorInfo { dtype: dtype.to_string(), shape: [numbers.len()], data_offsets }
    }
}

/// Writes a shard. Returns the size of the file and its hash.
pub(super) fn write(path: &Path, shard: &Shard, tokenizer: &str) -> io::Result<(u64, u128)> {
    let counts = shard.counts();
    let (ids, dtype): (&[u8], _) = match &shard.ids {
        IdSection::Narrow(ids) => (bytemuck::cast_slice(ids), "U16"),
        IdSection::Wide(ids) => (bytemuck::cast_slice(ids), "U32"),
    };
    let document_ends = TensorInfo::new("U64", &shard.document_ends, 0);
    let sentence_ends = TensorInfo::new("U64", &shard.sentence_ends, document_ends.data_offsets[1]);
    let begin = sentence_ends.data_offsets[1];
    let entry = |name: &str, value: &dyn std::fmt::Display| (name.to_string(), value.to_string());
    let header = Header {
        __metadata__: BTreeMap::from([
            entry("format", &"cloze shard"),
            entry("version", &VERSION),
            entry("tokenizer", &tokenizer),
            entry("documents", &counts.documents),
            entry("sentences", &counts.sentences),
            entry("tokens", &counts.tokens),
        ]),
        document_ends,
        sentence_ends,
        ids: TensorInfo { dtype: dtype.into(), shape: [counts.tokens], data_offsets: [begin, begin + ids.len()] },
    };
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');

    let (mut file, mut hash, mut bytes) = (BufWriter::new(File::create_new(path)?), XxHash3_128::new(), 0);
    let ends = [bytemuck::cast_slice(&shard.document_ends), bytemuck::cast_slice(&shard.sentence_ends)];
    for part in [&(header.len() as u64).to_le_bytes()[..], &header, ends[0], ends[1], ids] {
        hash.write(part);
        file.write_all(part)?;
        bytes += part.len() as u64;
    }
    file.into_inner()?;
    Ok((bytes, hash.finish_128()))
}

/// Maps a shard and verifies all of it.
///
/// # Errors
/// Returns an error that names the file if it cannot be read, or is not the one in the index.
pub(super) fn open(folder: &Path, entry: &ShardEntry, index: &Index) -> Result<Shard> {
    let path = folder.join(&entry.name);
    let cannot_read = |source| Error::io(&path, "cannot read", source);
    let changed = |why: String| {
        let why = format!("{why}: it was cut or changed; restore it, or prepare the corpus again");
        Error::data_in(&path, "shard", why)
    };
    if cfg!(target_endian = "big") {
        return Err(Error::data_in(&path, "shard", "shards can only be read on machines with little-endian numbers"));
    }
    // Opening a pipe would block until it has a writer.
    let metadata = retry(|| std::fs::metadata(&path)).map_err(cannot_read)?;
    if !metadata.is_file() || metadata.len() != entry.bytes {
        return Err(changed(format!("has {} bytes, index.json says {}", metadata.len(), entry.bytes)));
    }
    let file = File::open(&path).map_err(cannot_read)?;
    // SAFETY: the file must not be modified while it is mapped, which the documentation of `Shards` requires. The ids and ends
    // are plain numbers without invalid bit patterns.
    #[expect(unsafe_code, reason = "maps a file")]
    let map = retry(|| unsafe { Mmap::map(&file) }).map_err(|source| Error::io(&path, "cannot map", source))?;
    let map = Arc::new(map);
    let found = format!("{:032x}", hash(&map));
    if found != entry.xxh128 {
        return Err(changed(format!("its hash is {found}, index.json says {}", entry.xxh128)));
    }
    // With this hash, anything wrong was written so; a forged file must still not be read out of bounds.
    let shard = sections(&map).ok_or_else(|| changed("its header is damaged".to_string()))?;
    let counts = shard.counts();
    let same = [counts.documents as u64, counts.sentences as u64, counts.tokens as u64]
        == [entry.documents, entry.sentences, entry.tokens];
    let sound = same && is_sound(&shard, index.largest_id);
    shard.release();
    if sound { Ok(shard) } else { Err(changed("its numbers do not fit together".to_string())) }
}

fn hash(map: &Mmap) -> u128 {
    let mut hash = XxHash3_128::new();
    for (number, chunk) in map.chunks(CHUNK).enumerate() {
        hash.write(chunk);
        release(map, number * CHUNK..number * CHUNK + chunk.len());
    }
    hash.finish_128()
}

/// Releases the pages of a range that begins with a page.
fn release(map: &Mmap, range: Range<usize>) {
    #[cfg(unix)]
    #[expect(unsafe_code, reason = "releases pages of a mapped file")]
    // SAFETY: as in `Shard::release`.
    let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
    #[cfg(not(unix))]
    let _ = (map, range);
}

/// Finds the tensors of a file, or returns `None` if it is not a shard.
fn sections(map: &Arc<Mmap>) -> Option<Shard> {
    let length = u64::from_le_bytes(*map.first_chunk()?);
    let begin = usize::try_from(length).ok()?.checked_add(size_of::<u64>())?;
    let header: Header = serde_json::from_slice(map.get(size_of::<u64>()..begin)?).ok()?;
    let bytes = |info: &TensorInfo| {
        let [from, to] = info.data_offsets.map(|offset| begin.checked_add(offset));
        let (from, to) = (from?, to?);
        (from <= to && to <= map.len()).then_some(from..to)
    };
    let ends = |info: &TensorInfo| (info.dtype == "U64").then(|| section::<u64>(map, bytes(info)?)).flatten();
    let ids = bytes(&header.ids)?;
    let ids = match header.ids.dtype.as_str() {
        "U16" => IdSection::Narrow(section(map, ids)?),
        "U32" => IdSection::Wide(section(map, ids)?),
        _ => return None,
    };
    let shard = Shard { ids, sentence_ends: ends(&header.sentence_ends)?, document_ends: ends(&header.document_ends)? };
    let [document_ends, sentence_ends, ids] = [&header.document_ends, &header.sentence_ends, &header.ids];
    let lengths = [document_ends, sentence_ends, ids].map(|info| info.shape[0]);
    let counts = shard.counts();
    (lengths == [counts.documents, counts.sentences, counts.tokens]).then_some(shard)
}

/// Returns a section, if it is whole numbers that are aligned.
fn section<T: AnyBitPattern>(map: &Arc<Mmap>, bytes: Range<usize>) -> Option<Section<T>> {
    bytemuck::try_cast_slice::<u8, T>(map.get(bytes.clone())?).ok()?;
    Some(Section::Mapped(map.clone(), bytes))
}

/// Returns whether the ends ascend to what they count, and no id is above the largest.
fn is_sound(shard: &Shard, largest_id: u32) -> bool {
    let ascend = |ends: &[u64], to: usize| {
        let mut before = 0;
        let ascends = ends.iter().all(|&end| std::mem::replace(&mut before, end) < end);
        ascends && !ends.is_empty() && before == to as u64
    };
    let within = match &shard.ids {
        IdSection::Narrow(ids) => ids.iter().fold(true, |all, &id| all & (u32::from(id) <= largest_id)),
        IdSection::Wide(ids) => ids.iter().fold(true, |all, &id| all & (id <= largest_id)),
    };
    within && ascend(&shard.sentence_ends, shard.ids.len()) && ascend(&shard.document_ends, shard.sentence_ends.len())
}
