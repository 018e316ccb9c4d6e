//! Checkpoints with other content under checksums that fit: the state as JSON, the tensors, and the shares of several ranks.
//! A run refuses them, or goes on from them to its end.
#![no_main]

use std::sync::LazyLock;

use cloze_fuzz::bases::checkpoint::{Checkpoint, FOLDER, train};
use cloze_fuzz::{check_error, limited, mutate_json, with_header};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use twox_hash::XxHash3_128;

static CHECKPOINT: LazyLock<Checkpoint> = LazyLock::new(Checkpoint::new);

fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    let Checkpoint { scratch, state, tensors } = &*CHECKPOINT;
    let _ = std::fs::remove_dir_all(scratch.path().join("run"));
    let mut files = vec![("state.json", state.clone()), ("state.safetensors", tensors.clone())];
    match kind % 4 {
        0 => files[0].1 = rest.to_vec(),
        1 => files[1].1 = with_header(rest),
        2 => files.push(("optimizer-00001-of-00002.safetensors", with_header(rest))),
        _ => files.push(("best.safetensors", with_header(rest))),
    }
    let mut sums = String::new();
    for (name, bytes) in &files {
        scratch.write(&format!("{FOLDER}/{name}"), bytes);
        sums.push_str(&format!("{:032x}  {name}\n", XxHash3_128::oneshot(bytes)));
    }
    scratch.write(&format!("{FOLDER}/checksums.xxh128"), sums);
    // A report has a page of HTML, whatever the size of the checkpoint.
    limited(data.len(), || match train(scratch, true) {
        Ok(report) => assert!(report.losses.len() <= 3),
        Err(error) => check_error(&error),
    });
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate_json(data, size, seed, 1, |data, size| fuzzer_mutate(data, size, max_size))
});
