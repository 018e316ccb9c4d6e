//! Compares sentence encoders with sentence-transformers: folders in both directions, and a real model,
//! all-MiniLM-L6-v2.

use std::fs;
use std::path::{Path, PathBuf};

use cloze::bert::{Pipeline, SentenceEmbedder, SentenceEncoder, SentencePooling, cosine_similarity};
use cloze::prelude::*;
use cloze::tensor::TensorFile;
use cloze::train::metrics::spearman;
use serde::Deserialize;

use crate::Result;
use crate::python::Python;

/// Exit status of `embed_sentences.py` if the model is missing.
const NO_MODEL: i32 = 77;
/// Number of pairs whose embeddings are compared. The Spearman coefficient includes all pairs.
const PAIRS: usize = 100;

#[derive(Deserialize)]
struct Sts {
    model: PathBuf,
    /// The coefficient of sentence-transformers.
    spearman: f64,
    pairs: Vec<(String, String, f64)>,
}

#[test]
fn minilm_agrees_with_sentence_transformers() -> Result {
    const TEST: &str = "minilm_agrees_with_sentence_transformers";
    let Some(python) = Python::of(TEST) else { return Ok(()) };
    let Some(data) = std::env::var_os("CLOZE_DATA") else {
        eprintln!("SKIPPED {TEST}: CLOZE_DATA is not set to a folder with the dev set of STS-B as sts/stsb-en-dev.csv");
        return Ok(());
    };
    let dir = tempfile::tempdir()?;
    let sts = Path::new(&data).join("sts/stsb-en-dev.csv");
    let output = python.output("embed_sentences.py", &[sts.as_path(), dir.path()])?;
    match output.status.code() {
        Some(0) => {}
        Some(NO_MODEL) => {
            eprintln!("SKIPPED {TEST}: {}", String::from_utf8_lossy(&output.stdout).trim());
            return Ok(());
        }
        _ => return Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
    }

    let sts: Sts = serde_json::from_str(&fs::read_to_string(dir.path().join("pairs.json"))?)?;
    let embedder = SentenceEmbedder::open(&sts.model)?;
    let (first, second): (Vec<&str>, Vec<&str>) = sts.pairs.iter().map(|(a, b, _)| (a.as_str(), b.as_str())).unzip();
    let (first, second) = (embedder.embed(&first)?, embedder.embed(&second)?);

    let file = TensorFile::open(dir.path().join("embeddings.safetensors"))?;
    let mut largest = 0.0f64;
    for (name, ours) in [("first", &first), ("second", &second)] {
        let theirs: Vec<f32> = file.tensor(name, &Device::Cpu)?.to_vec()?;
        for (ours, theirs) in ours.iter().zip(theirs.chunks_exact(embedder.dimension())).take(PAIRS) {
            let distance = 1.0 - cosine(ours, theirs);
            assert!(distance <= 1e-5, "{name}: cosine distance {distance:.1e}");
            largest = largest.max(distance);
        }
    }
    let similarities: Vec<f64> = first.iter().zip(&second).map(|(a, b)| cosine_similarity(a, b)).collect();
    let scores: Vec<f64> = sts.pairs.iter().map(|(_, _, score)| *score).collect();
    let ours = spearman(&similarities, &scores)?;
    println!("cosine distance at most {largest:.1e}; Spearman {ours:.6} here, {:.6} there", sts.spearman);
    assert!((ours - sts.spearman).abs() <= 1e-3, "Spearman {ours} here, {} there", sts.spearman);
    Ok(())
}

#[test]
fn sentence_encoders_are_exchanged() -> Result {
    let Some(python) = Python::of("sentence_encoders_are_exchanged") else { return Ok(()) };
    let vocab = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/fixtures/tokenizer/vocab.txt");
    let tokenizer = Tokenizer::from_vocab_file(vocab, &TokenizerOptions::uncased().max_length(12))?;
    let texts = ["The cat sat.", "a", "A avó abriu a janela, e não havia ninguém na rua, só o vento e as folhas."];
    let config = BertConfig { initializer_range: 0.1, ..BertConfig::tiny(tokenizer.vocab_size()) };

    let dir = tempfile::tempdir()?;
    let (mut arguments, mut vectors) = (vec![dir.path().join("texts.json")], Vec::new());
    fs::write(&arguments[0], serde_json::to_string(&texts)?)?;
    let each = SentencePooling::ALL.map(|pooling| (vec![pooling], pooling == SentencePooling::Mean));
    let kinds = each.into_iter().chain([(SentencePooling::ALL.to_vec(), true)]);
    for (index, (poolings, normalize)) in kinds.enumerate() {
        let folder = dir.path().join(index.to_string());
        let encoder = SentenceEncoder::new(&config, &Device::Cpu, 3)?.pooled_by(&poolings)?.normalized(normalize);
        encoder.save(&folder)?;
        tokenizer.save(&folder)?;
        vectors.push(SentenceEmbedder::new(encoder, tokenizer.clone())?.embed(&texts)?.concat());
        arguments.push(folder);
    }
    python.run("sentence_models.py", &arguments)?;
    for (folder, vectors) in arguments[1..].iter().zip(vectors) {
        let theirs = TensorFile::open(folder.join("embeddings.safetensors"))?;
        let theirs: Vec<f32> = theirs.tensor("embeddings", &Device::Cpu)?.to_vec()?;
        let again = SentenceEmbedder::open(folder.join("again"))?.embed(&texts)?.concat();
        for (whose, ours) in [("ours", vectors), ("as they saved it", again)] {
            assert_eq!(ours.len(), theirs.len(), "{}, {whose}", folder.display());
            let largest = ours.iter().zip(&theirs).fold(0.0f32, |largest, (a, b)| largest.max((a - b).abs()));
            println!("{}, {whose}: {largest:.1e}", folder.display());
            assert!(largest <= 1e-5, "{}, {whose}: vectors differ by {largest:.1e}", folder.display());
        }
    }
    Ok(())
}

/// Computes the cosine in f64. In f32, the distance of equal vectors can be 1e-7.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
