//! Every field of every settings file that the Python packages know, with changed values: the result changes as theirs,
//! or the file is refused by name, or neither result changes. What differs on purpose is listed here.

use std::fs;
use std::path::Path;

use cloze::bert::SentenceEmbedder;
use cloze::prelude::*;
use serde::Deserialize;
use serde_json::Value;

use crate::Result;
use crate::python::Python;

const TEXTS: [&str; 3] = ["The CAT sat, well: [MASK] [X] 今 ação!", "cat a b", "Query: the cat"];

/// Fields, or fields with a value, that have no effect here, although they change or break the results of the packages.
const IGNORED: [(&str, &str, &str); 15] = [
    ("config.json", "dtype", "numbers are f32, and `precision` of a pipeline chooses another type"),
    ("config.json", "torch_dtype", "as dtype"),
    ("config.json", "chunk_size_feed_forward", "any number of tokens can be cut into chunks"),
    ("config.json", "model_type", "a config.json without one is a BERT's"),
    ("config.json", "id2label null", "label2id names the labels, too"),
    ("config.json", "use_return_dict", "transformers 5 cannot set what version 4 wrote"),
    ("config.json", "problem_type", "an unknown one is refused, and one label may have any"),
    ("tokenizer_config.json", "padding_side", "batches have no padding"),
    ("tokenizer_config.json", "pad_token_type_id", "as padding_side"),
    ("adapter_config.json", "init_lora_weights", "the initial values are overwritten by those of the file"),
    ("1_Pooling/config.json", "pooling_mode null", "a field that is null counts as absent"),
    ("sentence_bert_config.json", "modality_config", "the only value that is supported needs no name of the output"),
    ("config_sentence_transformers.json", "keep_in_fp32_modules", "all modules are f32"),
    ("config_sentence_transformers.json", "requirements", "those of Python packages"),
    ("config_sentence_transformers.json", "__version__", "as requirements"),
];

/// Values with another effect than in the packages, on purpose.
const OTHER: [(&str, &str, &str); 1] = [("added_tokens.json", "[X] 30", "the id in the file counts")];

#[derive(Deserialize)]
struct Variation {
    folder: String,
    kind: String,
    file: String,
    field: String,
    value: Value,
    numbers: Vec<f64>,
    texts: Vec<String>,
    error: Option<String>,
    /// Whether the package computes the same as without the change.
    same: bool,
}

/// The numbers and texts that a folder gives, and its fields that nobody knows.
#[derive(Default)]
struct Output {
    numbers: Vec<f64>,
    texts: Vec<String>,
    unknown_fields: Vec<String>,
}

impl Output {
    fn is_close(&self, numbers: &[f64], texts: &[String]) -> bool {
        let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-5;
        self.texts == texts && self.numbers.len() == numbers.len() && self.numbers.iter().zip(numbers).all(close)
    }
}

fn classifier(folder: &Path) -> Result<Output> {
    let (model, report) = BertForSequenceClassification::open_reported(folder, &Device::Cpu, &OpenOptions::new())?;
    let numbers = logits(&model)?;
    let labels = model.config().labels.to_vec();
    let found = TextClassification::open(folder)?.classify(&TEXTS[1..])?;
    let numbers = numbers.into_iter().chain(found.into_iter().flat_map(|found| found.scores)).collect();
    Ok(Output { numbers, texts: labels, unknown_fields: report.unknown_fields })
}

fn logits(model: &BertForSequenceClassification) -> Result<Vec<f64>> {
    let batch = Batch::new(&[[2, 6, 9, 11, 3], [2, 20, 5, 8, 3]].map(|ids| (ids, [0; 5])))?;
    let logits: Vec<f32> = model.forward(&batch, Mode::Eval)?.to_vec()?;
    Ok(logits.into_iter().map(f64::from).collect())
}

fn adapted(base: &Path, folder: &Path) -> Result<Output> {
    let mut model = BertForSequenceClassification::open(base, &Device::Cpu)?;
    model.load_adapters(folder)?;
    Ok(Output { numbers: logits(&model)?, ..Output::default() })
}

fn tokens(folder: &Path) -> Result<Output> {
    let tokenizer = Tokenizer::open(folder)?;
    let mut output = Output::default();
    let mut push = |encoding: Encoding| {
        output.numbers.extend(encoding.ids.iter().chain(&encoding.token_types).map(|&number| f64::from(number)));
        encoding.ids
    };
    for text in TEXTS {
        let ids =
            push(tokenizer.encode_with(text, None, &EncodeOptions::new().truncation(Truncation::LongestFirst))?);
        output.texts.push(tokenizer.decode(&ids, true)?);
    }
    push(tokenizer.with_max_length(usize::MAX).encode_pair(TEXTS[1], TEXTS[2])?);
    Ok(output)
}

fn embeddings(folder: &Path) -> Result<Output> {
    let embedder = SentenceEmbedder::open(folder)?;
    let vectors = [embedder.embed(&TEXTS)?, embedder.query(&TEXTS)?, embedder.document(&TEXTS)?];
    let vectors = vectors.map(|vectors| vectors.value).concat().concat();
    Ok(Output { numbers: vectors.into_iter().map(f64::from).collect(), ..Output::default() })
}

fn scores(folder: &Path) -> Result<Output> {
    let pairs: Vec<_> = TEXTS.iter().flat_map(|a| TEXTS.map(|b| (*a, b))).collect();
    Ok(Output { numbers: CrossEncoder::open(folder)?.predict(&pairs)?.concat(), ..Output::default() })
}

fn output(root: &Path, kind: &str, folder: &str) -> Result<Output> {
    let folder = root.join(folder);
    match kind {
        "bert" | "distilbert" => classifier(&folder),
        "tokenizer" => tokens(&folder),
        "adapter" => adapted(&root.join("bert"), &folder),
        "cross" => scores(&folder),
        _ => embeddings(&folder),
    }
}

/// Returns what is wrong with the result of a variation, if anything is.
fn wrong(root: &Path, variation: &Variation, unchanged: &Output) -> Option<String> {
    let Variation { file, field, value, numbers, texts, error, same, .. } = variation;
    let with_value = format!("{field} {value}");
    let listed = |list: &[(&str, &str, &str)]| {
        list.iter().any(|(other, named, _)| other == file && (named == field || *named == with_value))
    };
    let found = match output(root, &variation.kind, &variation.folder) {
        Err(refused) => {
            let said = refused.to_string();
            let named = said.contains(file.as_str()) && said.contains(field.as_str());
            // Where two files contradict each other, the error may be about the other one.
            let others = ["shape", "is missing", "in_features is", "unk_token", "the added token"];
            let contradicts = others.iter().any(|other| said.contains(other));
            return (!named && !contradicts).then(|| format!("the error does not name file and field: {said}"));
        }
        Ok(found) => found,
    };
    let ignored = listed(&IGNORED) && found.is_close(&unchanged.numbers, &unchanged.texts);
    if listed(&OTHER) || ignored {
        return None;
    }
    if let Some(error) = error {
        return Some(format!("answers where the package fails: {error}"));
    }
    if !found.is_close(numbers, texts) {
        let whose = if *same { "only ours changes" } else { "both change" };
        return Some(format!(
            "the results differ ({whose}): {:?} {:?} for {numbers:?} {texts:?}",
            found.numbers, found.texts
        ));
    }
    (found.unknown_fields.contains(field) && !is_of_bert(variation))
        .then(|| "known to the package, not here".to_string())
}

/// Whether a DistilBERT has a field of BERT, which it does not know.
fn is_of_bert(variation: &Variation) -> bool {
    let fields = ["hidden_act", "intermediate_size", "layer_norm_eps", "type_vocab_size"];
    variation.kind == "distilbert" && fields.contains(&variation.field.as_str())
}

#[test]
fn every_field_has_its_effect_or_is_refused_or_harmless() -> Result {
    let Some(python) = Python::of("every_field_has_its_effect_or_is_refused_or_harmless") else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    python.run("fields.py", &[dir.path()])?;
    let variations: Vec<Variation> = serde_json::from_str(&fs::read_to_string(dir.path().join("variations.json"))?)?;
    let mut failures = Vec::new();
    for kind in ["bert", "distilbert", "tokenizer", "encoder", "cross", "adapter"] {
        let unchanged = output(dir.path(), kind, kind)?;
        for variation in variations.iter().filter(|variation| variation.kind == kind) {
            if let Some(wrong) = wrong(dir.path(), variation, &unchanged) {
                let Variation { file, field, value, .. } = variation;
                failures.push(format!("{kind}: {file}: {field} is {value}: {wrong:.400}"));
            }
        }
    }
    assert!(variations.len() > 500, "{} variations", variations.len());
    assert!(failures.is_empty(), "{} of {} fail:\n{}", failures.len(), variations.len(), failures.join("\n"));
    Ok(())
}
