//! Parquet files: rows, names of classes, and texts of a corpus. The crate that decodes them may panic within; a user gets
//! an error.
#![no_main]

use std::sync::LazyLock;

use cloze_fuzz::{Scratch, checked, limited};
use cloze_train::{Columns, CorpusFiles, declared_label_names, read_rows, sanitize};
use libfuzzer_sys::fuzz_target;

static SCRATCH: LazyLock<Scratch> = LazyLock::new(|| {
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().expect("there are no threads yet");
    Scratch::new()
});

fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    // The number of bytes of the footer is where a mutation rarely keeps it right.
    let bytes = if kind >= 64 { with_footer(rest) } else { rest.to_vec() };
    let path = SCRATCH.write("a.parquet", &bytes);
    limited(bytes.len(), || match kind % 3 {
        0 => {
            let Some(rows) = checked(read_rows(&path, &Columns::new())) else { return };
            let count = rows.len();
            let clean = sanitize("train", rows, None);
            assert_eq!(clean.texts.len() + clean.dropped.total(), count);
        }
        1 => drop(checked(declared_label_names(&path, &Columns::new()))),
        _ => {
            let files = checked(CorpusFiles::at([&path])).map(|files| files.progress(false));
            drop(files.and_then(|files| checked(files.read())));
        }
    });
});

/// Makes the end of a file fit the footer that its first byte, times eight, says it has.
fn with_footer(rest: &[u8]) -> Vec<u8> {
    let Some((&eighths, rest)) = rest.split_first() else { return Vec::new() };
    let footer = (8 * usize::from(eighths)).min(rest.len()) as u32;
    [b"PAR1", rest, &footer.to_le_bytes(), b"PAR1"].concat()
}
