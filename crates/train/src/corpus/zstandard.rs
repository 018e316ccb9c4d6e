//! Reading of Zstandard files (RFC 8878).

use std::io::{self, BufRead, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// The place in a frame of the byte that states its window, and those of the four that begin it and of the one that describes
/// the header (RFC 8878, section 3.1.1.1).
const WINDOW: usize = 5;
pub(super) const MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
pub(super) const DESCRIPTOR: usize = 4;
/// The bit of the descriptor for a frame that states the size of its text instead of a window.
pub(super) const IS_SINGLE_SEGMENT: u8 = 1 << 5;

/// The text of a zstd file: of all its frames, with their checksums compared. The decoder knows single frames.
///
/// The decoder keeps as much text as the window that a frame asks for, whatever the size of the file. A window of all the text
/// that the file may become serves as well, so a frame gets that if it asks for more.
pub(super) struct Frames<R> {
    from: R,
    /// The decoder of a single frame, because one that is used again takes memory for the whole window at once.
    decoder: FrameDecoder,
    /// The number of bytes that the file may become.
    most: u64,
    /// Whether the current frame may have more text.
    is_open: bool,
    /// Whether the window of the current frame is smaller than what it asks for.
    is_narrowed: bool,
    frames: usize,
}

impl<R: BufRead> Frames<R> {
    pub(super) fn new(from: R, most: u64) -> Frames<R> {
        Frames { from, decoder: FrameDecoder::new(), most, is_open: false, is_narrowed: false, frames: 0 }
    }

    /// Begins the next frame. Returns whether there is one.
    fn begin(&mut self) -> io::Result<bool> {
        if self.from.fill_buf()?.is_empty() {
            return if self.frames > 0 { Ok(false) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        self.frames += 1;
        let mut head = Vec::new();
        self.from.by_ref().take(WINDOW as u64 + 1).read_to_end(&mut head)?;
        self.is_narrowed = narrow(&mut head, self.most);
        self.decoder = FrameDecoder::new();
        match self.decoder.reset(head.chain(&mut self.from)) {
            // A window may be stated as the size of the text.
            Ok(()) if self.decoder.content_size() > self.most => return Err(io::ErrorKind::FileTooLarge.into()),
            Ok(()) => self.is_open = true,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                let length = u64::from(length);
                if io::copy(&mut self.from.by_ref().take(length), &mut io::sink())? < length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Err(error) => return Err(io::Error::other(error)),
        }
        Ok(true)
    }

    fn end(&mut self) -> io::Result<()> {
        self.is_open = false;
        match self.decoder.get_checksum_from_data() {
            Some(sum) if Some(sum) != self.decoder.get_calculated_checksum() => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "a checksum does not match"))
            }
            _ => Ok(()),
        }
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if to.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.is_open {
                if !self.begin()? {
                    return Ok(0);
                }
                continue;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.from, one).map_err(io::Error::other)?;
            }
            // Text leaves the window, which has room for all that there may be.
            if self.is_narrowed && !self.decoder.is_finished() {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            match self.decoder.read(to)? {
                0 => self.end()?,
                read => return Ok(read),
            }
        }
    }
}

/// Lowers the window of the frame that begins with `head` to the smallest one that has at least `most` bytes. Returns whether
/// the frame asks for more.
pub(super) fn narrow(head: &mut [u8], most: u64) -> bool {
    if head.len() <= WINDOW || !head.starts_with(&MAGIC) || head[DESCRIPTOR] & IS_SINGLE_SEGMENT != 0 {
        return false;
    }
    let bytes = |window: u8| (8 + u64::from(window & 7)) << (7 + (window >> 3));
    let enough = (0..head[WINDOW]).find(|&window| bytes(window) >= most);
    head[WINDOW] = enough.unwrap_or(head[WINDOW]);
    enough.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_at_most_what_the_file_may_become() {
        let frame = |descriptor: u8, window: u8| [&MAGIC[..], &[descriptor, window]].concat();
        let narrowed = |window: u8, most: u64| {
            let mut head = frame(0, window);
            let is_narrowed = narrow(&mut head, most);
            assert_eq!(is_narrowed, head[WINDOW] < window);
            head[WINDOW]
        };
        // The windows of 1 KiB, 1.125 KiB and so on to 1.875 KiB, 2 KiB.
        for (most, expected) in
            [(0, 0), (1024, 0), (1025, 1), (1152, 1), (1153, 2), (2048, 8), (2049, 9), (1 << 20, 80)]
        {
            assert_eq!(narrowed(255, most), expected, "{most}");
        }
        assert_eq!((narrowed(80, 1 << 20), narrowed(7, 1 << 20), narrowed(255, u64::MAX)), (80, 7, 255));
        let mut others = [frame(IS_SINGLE_SEGMENT, 200), b"other ".to_vec(), MAGIC.to_vec()];
        for head in &mut others {
            let before = head.clone();
            assert!(!narrow(head, 0) && *head == before);
        }
    }
}
