//! A folder of a tiny model in which one JSON file has other content: `config.json`, and what `sentence-transformers` writes
//! beside it. It is refused, or opened and gives numbers.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use cloze_bert::{CrossEncoder, Pipeline, SentenceEmbedder, TextClassification};
use cloze_fuzz::bases::model_folder::{FILES, ModelFolders, model_folders};
use cloze_fuzz::{checked, limited, mutate_json};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

static FOLDERS: LazyLock<ModelFolders> = LazyLock::new(model_folders);

fuzz_target!(
    init: {
        LazyLock::force(&FOLDERS);
        let path = |folder| FOLDERS.scratch.path().join(folder);
        assert!(SentenceEmbedder::open(path("encoder")).is_ok_and(|model| model.dimension() == 2));
        CrossEncoder::open(path("classifier")).unwrap();
    },
    |data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    let at = usize::from(kind) % FILES.len();
    let (folder, name) = FILES[at];
    let name = format!("{folder}/{name}");
    FOLDERS.scratch.write(&name, rest);
    limited(data.len(), || match folder {
        "encoder" => encoder(&FOLDERS.scratch.path().join(folder)),
        _ => classifier(&FOLDERS.scratch.path().join(folder), kind >= 128),
    });
    match &FOLDERS.contents[at] {
        Some(content) => drop(FOLDERS.scratch.write(&name, content)),
        None => FOLDERS.scratch.remove(&name),
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate_json(data, size, seed, 1, |data, size| fuzzer_mutate(data, size, max_size))
});

fn encoder(folder: &Path) {
    let Some(model) = checked(SentenceEmbedder::open(folder)) else { return };
    if let Some(vectors) = checked(model.embed(&["the cat"])) {
        assert_eq!(vectors.value[0].len(), model.dimension());
    }
    checked(model.query(&["the mat"]));
}

fn classifier(folder: &Path, pairs: bool) {
    if pairs {
        let Some(model) = checked(CrossEncoder::open(folder)) else { return };
        checked(model.predict(&[("the cat", "sat")]));
    } else {
        let Some(model) = checked(TextClassification::open(folder)) else { return };
        checked(model.classify(&["the cat"]));
    }
}
