//! TensorBoard event files.
//!
//! An event file is a sequence of TensorFlow records. Each record is the length of an event (8 bytes, little-endian),
//! the masked CRC-32C of those bytes, the event, and the masked CRC-32C of the event. Events are protocol buffer
//! messages defined in TensorFlow's `event.proto` and `summary.proto`. Only scalars are written.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use cloze_tensor::entries;

use crate::{Error, Result};

const PREFIX: &str = "events.out.tfevents.";

#[derive(Debug)]
pub(super) struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Creates a file for a new run.
    pub(super) fn create(dir: &Path) -> Result<EventFile> {
        EventFile::resume(dir, 0)
    }

    /// Creates a file for a run that resumes after `step`. TensorBoard reads the files of a directory in the order of
    /// their names. When it reads the START event, it discards the later steps that it has read from earlier files.
    pub(super) fn resume(dir: &Path, step: u32) -> Result<EventFile> {
        let path = dir.join(format!("{PREFIX}{:010}.cloze", next_number(dir)?));
        let file = File::create_new(&path).map_err(|source| Error::io(&path, "cannot write", source))?;
        let mut events = EventFile { path, file };
        let mut version = event(0);
        version.text(3, "brain.Event:2");
        let mut start = event(step.saturating_add(1));
        let mut session_log = Message::default();
        session_log.integer(1, 1); // START
        start.message(7, &session_log);
        events.append(&[frame(&version.0), frame(&start.0)].concat())?;
        Ok(events)
    }

    /// Writes scalars, each under its tag.
    pub(super) fn scalars(&mut self, step: u32, scalars: &[(&str, f64)]) -> Result<()> {
        let mut summary = Message::default();
        for &(tag, value) in scalars {
            let mut entry = Message::default();
            entry.text(1, tag);
            entry.float(2, value as f32);
            summary.message(1, &entry);
        }
        let mut event = event(step);
        event.message(5, &summary);
        self.append(&frame(&event.0))
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|source| Error::io(&self.path, "cannot sync", source))
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|source| Error::io(&self.path, "cannot write", source))
    }
}

/// Returns the number for the name of a new file: the time in seconds, but greater than the number of any existing
/// file.
fn next_number(dir: &Path) -> Result<u64> {
    let wrong = |source| Error::io(dir, "cannot read", source);
    let mut number = now() as u64;
    for entry in entries(dir).map_err(wrong)? {
        let name = entry.file_name();
        let other = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('.').next()?.parse::<u64>().ok());
        number = number.max(other.map_or(0, |other| other.saturating_add(1)));
    }
    Ok(number)
}

/// Returns the seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn event(step: u32) -> Message {
    let mut event = Message::default();
    event.double(1, now());
    event.integer(2, u64::from(step));
    event
}

/// A protocol buffer message under construction: encoded fields, each with its number and wire type.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    /// Appends an integer with seven bits per byte, the lowest first.
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u64, wire_type: u64) {
        self.varint(field << 3 | wire_type);
    }

    fn integer(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.key(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn text(&mut self, field: u64, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    fn message(&mut self, field: u64, message: &Message) {
        self.bytes(field, &message.0);
    }
}

fn frame(event: &[u8]) -> Vec<u8> {
    let length = (event.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(masked(crc32c(&length)).to_le_bytes());
    record.extend(event);
    record.extend(masked(crc32c(event)).to_le_bytes());
    record
}

/// Masks a checksum, as TensorFlow does because checksums of data that contain checksums are weak.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Returns the CRC-32C of RFC 3720, appendix B.4: Castagnoli's polynomial with bits reversed.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 3720, and the usual check value of CRC-32C.
    #[test]
    fn checksums() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    /// Expected values from tensorboard 2.21.0: `masked_crc32c` of
    /// `tensorboard.compat.tensorflow_stub.pywrap_tensorflow`.
    #[test]
    fn frames_are_tensorflows() {
        let (length, event) = (0x4524542_u32, 0x39fa8dc1_u32);
        let expected = [&[4, 0, 0, 0, 0, 0, 0, 0][..], &length.to_le_bytes(), b"BERT", &event.to_le_bytes()].concat();
        assert_eq!(frame(b"BERT"), expected);
    }

    #[test]
    fn later_files_have_later_names() {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<PathBuf> = (0..3).map(|_| EventFile::create(folder.path()).unwrap().path).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    }
}
