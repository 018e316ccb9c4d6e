//! A limit of what a compressed file may become.

/// The most bytes of text for each byte of a compressed file. Prose is compressed to a fifth of its size, tables of
/// repeated values to a fiftieth.
const FACTOR: u64 = 200;
/// The bytes that every file may become, however small it is.
const LEAST: u64 = 1 << 20;

/// The bytes that a compressed file has become so far. Of a file that repeats itself, a megabyte can become a terabyte,
/// which fills a memory or a disk.
pub(crate) struct Expansion {
    stored: u64,
    given: u64,
}

impl Expansion {
    /// Begins with a file of `stored` bytes.
    pub(crate) fn of(stored: u64) -> Expansion {
        Expansion { stored, given: 0 }
    }

    /// Returns the number of bytes so far.
    pub(crate) fn given(&self) -> u64 {
        self.given
    }

    /// Adds bytes of text.
    ///
    /// # Errors
    /// Returns how large the text is if that is more than a file may become.
    pub(crate) fn add(&mut self, bytes: u64) -> Result<(), String> {
        self.given = self.given.saturating_add(bytes);
        if self.given <= most(self.stored) { Ok(()) } else { Err(self.refusal()) }
    }

    /// Returns how large the text of a file is that becomes too large.
    pub(crate) fn refusal(&self) -> String {
        format!(
            "more than {FACTOR} times the {} bytes of the file: it repeats itself; if that is meant, store it without \
             compression",
            self.stored
        )
    }
}

/// Returns the number of bytes that a file of `stored` bytes may become.
pub(crate) fn most(stored: u64) -> u64 {
    stored.saturating_mul(FACTOR).saturating_add(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_become_some_times_its_size() {
        let mut expansion = Expansion::of(1_000);
        assert_eq!(
            (expansion.add(LEAST), expansion.add(200_000), expansion.given()),
            (Ok(()), Ok(()), LEAST + 200_000)
        );
        assert!(expansion.add(1).unwrap_err().starts_with("more than 200 times the 1000 bytes of the file: "));
        assert!(Expansion::of(u64::MAX).add(u64::MAX).is_ok());
    }
}
