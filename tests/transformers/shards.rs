//! Shards of a corpus open in safetensors, and have the ids that transformers gives the text.

use std::fs;
use std::path::Path;

use cloze::prelude::*;
use cloze::train::{CorpusFiles, ShardOptions, Shards};

use crate::Result;
use crate::python::Python;

#[test]
fn shards_have_the_ids_of_transformers() -> Result {
    let Some(python) = Python::of("shards_have_the_ids_of_transformers") else { return Ok(()) };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir()?;
    let text = folder.path().join("corpus.txt");
    let odd = "\n\n今天天气很好。\nRosa's café 🙂 – naïve…\n\u{1}\n\n\u{1}\n";
    fs::write(&text, fs::read_to_string(root.join("examples/data/mini-corpus.txt"))?.trim_end().to_string() + odd)?;

    let files = CorpusFiles::at([&text])?.progress(false);
    let trained = Tokenizer::train(files.read()?.sentences().take(40), 400, &TrainOptions::new())?;
    // Ids of 32 bits.
    let many: Vec<String> = (0..70_000).map(|number| format!("unused{number}")).collect();
    let wide = trained.add_tokens(many.iter().map(String::as_str))?;
    for (name, tokenizer) in [("narrow", trained), ("wide", wide)] {
        let shards = folder.path().join(name);
        let options = ShardOptions::new().deduplicate(false).shard_tokens(500);
        files.prepare(&tokenizer, &shards, &options)?;
        assert!(Shards::open(&shards)?.shard_count() > 1);
        python.run("read_shards.py", &[&shards, &text])?;
    }
    Ok(())
}
