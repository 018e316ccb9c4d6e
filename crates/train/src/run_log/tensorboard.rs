//! Event files of TensorBoard: records framed as TensorFlow does, each an `Event` of protocol buffers.
//!
//! A record is its length (8 bytes, little-endian), the masked CRC-32C of those bytes, the event, and its masked CRC-32C.
//! Of the messages, which `event.proto` and `summary.proto` of TensorFlow define, only scalars are written.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Error, Result};

const PREFIX: &str = "events.out.tfevents.";

#[derive(Debug)]
pub(super) struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// A file of a run that begins.
    pub(super) fn create(dir: &Path) -> Result<EventFile> {
        EventFile::resume(dir, 0)
    }

    /// A file of a run that goes on after `step`. TensorBoard reads the files of a directory in the order of their names
    /// and, at the mark of a start, forgets what it has read of later steps.
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

    /// Writes scalars down, each under its tag.
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

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|source| Error::io(&self.path, "cannot write", source))
    }
}

/// The time in seconds, as TensorBoard names files; later than that of any other file there.
fn next_number(dir: &Path) -> Result<u64> {
    let wrong = |source| Error::io(dir, "cannot read", source);
    let mut number = now() as u64;
    for entry in fs::read_dir(dir).map_err(wrong)? {
        let name = entry.map_err(wrong)?.file_name();
        let other = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('.').next()?.parse::<u64>().ok());
        number = number.max(other.map_or(0, |other| other.saturating_add(1)));
    }
    Ok(number)
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn event(step: u32) -> Message {
    let mut event = Message::default();
    event.double(1, now());
    event.integer(2, u64::from(step));
    event
}

/// A message of protocol buffers: fields, each with its number and the kind of its value.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    /// Seven bits a byte, the lowest first.
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

/// So masked because the checksum of data with checksums in them is a poor one.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The checksum of RFC 3720, appendix B.4: Castagnoli's polynomial, bits reversed.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 3720, and the check value of the catalogue of CRCs.
    #[test]
    fn checksums() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    /// `masked_crc32c` of `tensorboard.compat.tensorflow_stub.pywrap_tensorflow`, tensorboard 2.21.0.
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
