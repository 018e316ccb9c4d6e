//! Zip archives with uncompressed entries, as `torch.save` writes them.
//!
//! Entries are ranges of the file. Nothing is decompressed, so nothing can be larger than the file. Checksums are not
//! verified, because that would read the whole file even if only some tensors are needed. The format is specified in
//! PKWARE's APPNOTE 6.3.9, sections 4.3 to 4.5.

use std::collections::BTreeMap;
use std::ops::Range;

use super::cursor::Cursor;
use super::mapped::shown;

const LOCAL_HEADER: u32 = 0x0403_4b50;
const DIRECTORY_ENTRY: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const END_64_LOCATOR: u32 = 0x0706_4b50;

const END_LENGTH: usize = 22;
const END_64_LOCATOR_LENGTH: usize = 20;
/// Longest comment after the end of the directory: its length has two bytes.
const MAX_COMMENT: usize = u16::MAX as usize;

/// Identifier of the extra field with eight-byte numbers.
const EXTRA_64: u16 = 1;
/// Replaces a number that is in the extra field.
const IN_EXTRA: u64 = u32::MAX as u64;

/// Flags of encrypted entries, for both encryption schemes.
const ENCRYPTED: u16 = 1 | 1 << 6;
const STORED: u16 = 0;

/// The directory of an archive.
pub(super) struct Archive<'a> {
    bytes: &'a [u8],
    entries: BTreeMap<&'a str, ArchiveEntry>,
}

struct ArchiveEntry {
    flags: u16,
    method: u16,
    size: u64,
    compressed_size: u64,
    /// Offset of the local header.
    header: u64,
}

/// Returns whether a file begins like an archive.
pub(super) fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(&LOCAL_HEADER.to_le_bytes())
}

impl<'a> Archive<'a> {
    /// Reads the directory of an archive.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Archive<'a>, String> {
        let directory =
            directory(bytes).ok_or("is truncated: it begins like a zip archive, but the archive's end is missing")?;
        let mut entries = BTreeMap::new();
        let mut cursor = Cursor::new(bytes.get(..directory.end).unwrap_or_default(), directory.start);
        while cursor.at < directory.end {
            let at = cursor.at;
            let (name, entry) = directory_entry(&mut cursor)
                .ok_or_else(|| format!("has an invalid entry in its zip directory at byte {at}"))?;
            let name =
                str::from_utf8(name).map_err(|_| format!("has an entry at byte {at} whose name is not UTF-8"))?;
            if entries.insert(name, entry).is_some() {
                return Err(format!("has two entries named {}", shown(name)));
            }
        }
        Ok(Archive { bytes, entries })
    }

    /// Returns the sorted names of the entries.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.entries.keys().copied()
    }

    /// Returns the range of the file that contains entry `name`, or `None` if there is no such entry.
    pub(super) fn find(&self, name: &str) -> Result<Option<Range<usize>>, String> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        let name = shown(name);
        if entry.flags & ENCRYPTED != 0 {
            return Err(format!("entry {name} is encrypted, which torch.save never does"));
        }
        if entry.method != STORED || entry.size != entry.compressed_size {
            return Err(format!("entry {name} is compressed: repack the archive without compression"));
        }
        let range = local_range(self.bytes, entry)
            .ok_or_else(|| format!("entry {name} is not at the position that the directory states"))?;
        Ok(Some(range))
    }
}

/// Returns the range of the file that contains the directory.
fn directory(bytes: &[u8]) -> Option<Range<usize>> {
    let last = bytes.len().checked_sub(END_LENGTH)?;
    let is_end = |&at: &usize| {
        let mut cursor = Cursor::new(bytes, at);
        let comment = || Cursor::new(bytes, at + END_LENGTH - 2).u16();
        cursor.u32() == Some(END)
            && comment().is_some_and(|length| at + END_LENGTH + usize::from(length) == bytes.len())
    };
    let end = (last.saturating_sub(MAX_COMMENT)..=last).rev().find(is_end)?;
    let mut cursor = Cursor::new(bytes, end);
    // Skip the numbers of disks and entries: entries are counted by reading them.
    cursor.take(12)?;
    let (mut size, mut start) = (u64::from(cursor.u32()?), u64::from(cursor.u32()?));
    if let Some((size_64, start_64)) = directory_64(bytes, end) {
        (size, start) = (size_64, start_64);
    }
    let (size, start) = (usize::try_from(size).ok()?, usize::try_from(start).ok()?);
    Some(start..start.checked_add(size).filter(|&stop| stop <= end)?)
}

/// Returns size and start of the directory of an archive with eight-byte numbers, whose four-byte end record is at
/// `end`.
fn directory_64(bytes: &[u8], end: usize) -> Option<(u64, u64)> {
    let mut locator = Cursor::new(bytes, end.checked_sub(END_64_LOCATOR_LENGTH)?);
    if locator.u32()? != END_64_LOCATOR {
        return None;
    }
    locator.take(4)?;
    let mut cursor = Cursor::new(bytes, usize::try_from(locator.u64()?).ok()?);
    if cursor.u32()? != END_64 {
        return None;
    }
    // Skip the record's length, versions, disks and numbers of entries.
    cursor.take(36)?;
    Some((cursor.u64()?, cursor.u64()?))
}

fn directory_entry<'a>(cursor: &mut Cursor<'a>) -> Option<(&'a [u8], ArchiveEntry)> {
    if cursor.u32()? != DIRECTORY_ENTRY {
        return None;
    }
    // Skip the versions.
    cursor.take(4)?;
    let (flags, method) = (cursor.u16()?, cursor.u16()?);
    // Skip time, date and checksum.
    cursor.take(8)?;
    let (compressed_size, size) = (cursor.u32()?, cursor.u32()?);
    let (name_length, extra_length, comment_length) = (cursor.u16()?, cursor.u16()?, cursor.u16()?);
    // Skip disk and attributes.
    cursor.take(8)?;
    let header = cursor.u32()?;
    let name = cursor.take(name_length.into())?;
    let extra = cursor.take(extra_length.into())?;
    cursor.take(comment_length.into())?;
    let mut numbers = [size, compressed_size, header].map(u64::from);
    if numbers.contains(&IN_EXTRA) {
        let mut wide = extra_64(extra)?;
        for number in numbers.iter_mut().filter(|number| **number == IN_EXTRA) {
            *number = wide.u64()?;
        }
    }
    let [size, compressed_size, header] = numbers;
    Some((name, ArchiveEntry { flags, method, size, compressed_size, header }))
}

/// Returns the content of the extra field with eight-byte numbers.
fn extra_64(extra: &[u8]) -> Option<Cursor<'_>> {
    let mut cursor = Cursor::new(extra, 0);
    loop {
        let (id, length) = (cursor.u16()?, cursor.u16()?);
        let field = cursor.take(length.into())?;
        if id == EXTRA_64 {
            return Some(Cursor::new(field, 0));
        }
    }
}

/// Returns the range of an entry's content, which follows its local header.
fn local_range(bytes: &[u8], entry: &ArchiveEntry) -> Option<Range<usize>> {
    let mut cursor = Cursor::new(bytes, usize::try_from(entry.header).ok()?);
    if cursor.u32()? != LOCAL_HEADER {
        return None;
    }
    // Skip the sizes, which may be zero here. Those in the directory are authoritative.
    cursor.take(22)?;
    let (name_length, extra_length) = (cursor.u16()?, cursor.u16()?);
    cursor.take(name_length.into())?;
    cursor.take(extra_length.into())?;
    let start = cursor.at;
    cursor.take(usize::try_from(entry.size).ok()?)?;
    Some(start..cursor.at)
}
