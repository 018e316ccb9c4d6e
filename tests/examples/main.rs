//! The examples agree with the sections of the course, without arguments and with the model of this repository.

mod finetune;

use std::path::Path;
use std::process::Command;

use cloze::prelude::*;
use cloze_examples::{Result, program};
use serde_json::Value;

/// Runs an example and returns what it prints.
fn printed(example: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program(example)?).args(arguments).output()?;
    assert!(output.status.success(), "{example}: {}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout)?;
    let longest = said.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    // Vectors are long, and so are the names of the parameters that fine-tuning does not use.
    let may_be_long = example == "embed" || example.starts_with("finetune");
    assert!(may_be_long || longest <= 100, "{example}: a line of {longest} characters");
    Ok(said)
}

/// With a learning rate of 0, the weights stay those of the given model.
#[test]
fn pretrain_continues_from_a_model() -> Result {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("out");
    let (from, to) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny"), &out.to_string_lossy());
    let place = from.to_string_lossy();
    printed("pretrain", &["--model", &place, "--lr", "0", "--steps", "1", "--dropout", "0.2", "--out", to])?;
    let open = |place: &Path| BertForPreTraining::open(place, &Device::Cpu);
    let (before, after) = (open(&from)?, open(&out)?);
    assert_eq!((before.config().hidden_dropout_prob, after.config().hidden_dropout_prob), (0.1, 0.2));
    for ((name, before), (_, after)) in before.named_parameters().iter().zip(after.named_parameters()) {
        assert_eq!(before.to_vec::<f32>()?, after.to_vec::<f32>()?, "{name}");
    }
    Ok(())
}

/// Shards and a cache give the losses of the text itself.
#[test]
fn pretrain_on_prepared_corpora() -> Result {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (shards, cache, json) = (path("shards"), path("cache"), path("report.json"));
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/mini-corpus.txt");
    let corpus = corpus.to_string_lossy();
    let said = printed("prepare_corpus", &["--corpus", &corpus, "--vocab-size", "500", "--out", &shards])?;
    assert!(said.contains("compared with their hashes") && !said.contains("duplicates"), "{said}");
    let losses = |arguments: &[&str]| -> Result<Value> {
        let recipe = ["--layers", "1", "--hidden", "32", "--heads", "2", "--steps", "4", "--json", &json];
        printed("pretrain", &[&recipe[..], arguments].concat())?;
        Ok(serde_json::from_str::<Value>(&std::fs::read_to_string(&json)?)?["losses"].take())
    };
    let expected = losses(&["--corpus", &corpus, "--vocab-size", "500"])?;
    assert_eq!(list(&expected)?.len(), 4);
    assert_eq!(losses(&["--corpus", &shards])?, expected);
    assert_eq!(losses(&["--corpus", &corpus, "--vocab", &shards, "--cache", &cache])?, expected);
    let corpora = || Ok::<_, std::io::Error>(std::fs::read_dir(&cache)?.count());
    let limited = ["--corpus", &corpus, "--vocab-size", "500", "--cache", &cache, "--cache-limit", "0"];
    assert_eq!((corpora()?, losses(&limited)?, corpora()?), (1, expected, 1));
    // Another tokenizer makes another corpus of the cache, which has no room for both.
    let other = ["--corpus", &corpus, "--vocab-size", "400", "--cache", &cache];
    losses(&other)?;
    assert_eq!(corpora()?, 2);
    losses(&[&other[..], &["--cache-limit", "0"]].concat())?;
    assert_eq!(corpora()?, 1);
    Ok(())
}

/// Text to evaluate on leaves the corpus whole, and a run is resumed with the same.
#[test]
fn pretrain_evaluates_on_given_text() -> Result {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (held_out, out, json) = (path("held-out.txt"), path("out"), path("report.json"));
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/mini-corpus.txt");
    let corpus = corpus.to_string_lossy();
    let run = |more: &[&str]| {
        let all =
            ["--corpus", &*corpus, "--held-out", &held_out, "--vocab-size", "300", "--seq-len", "32", "--out", &out];
        Command::new(program("pretrain")?)
            .args(all)
            .args(["--json", &json, "--steps", "4"])
            .args(more)
            .output()
            .map_err(Into::into)
    };
    std::fs::write(&held_out, "The cat is small.\nIt sleeps.\n\nThe dog is old.\nIt barks.\n")?;
    let done: Result<std::process::Output> = run(&[]);
    assert!(done?.status.success());
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&json)?)?;
    assert_eq!(report["held_out"]["examples"], 2);
    std::fs::write(&held_out, "The cat is old.\nIt sleeps.\n\nThe dog is small.\nIt barks.\n")?;
    let said = String::from_utf8(run(&["--resume"])?.stderr)?;
    assert!(said.contains("held-out text is fingerprint"), "{said}");
    Ok(())
}

/// Without next sentences, the model is a masked-language model that reads single segments, and can be continued.
#[test]
fn pretrain_without_next_sentences() -> Result {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (out, batches, json) = (path("out"), path("batches.jsonl"), path("report.json"));
    let recipe = "--no-nsp --layers 3 --hidden 64 --heads 2 --vocab-size 300 --seq-len 32 --steps 12 --batch 8 --batch-ramp 0.25 \
                  --masking-unit word --masking-rate 0.3 --final-masking-rate 0.15 --schedule cosine --weight-decay 0.1";
    let files = ["--out", &out, "--write-batches", &batches, "--json", &json];
    let said = printed("pretrain", &[&recipe.split_whitespace().collect::<Vec<_>>()[..], &files].concat())?;
    assert!(said.contains("the five most probable") && !said.contains("P(IsNext)"), "{said}");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&json)?)?;
    assert_eq!(list(&report["losses"])?.len(), 12);
    assert!(report["held_out"]["nsp_loss"].is_null() && report["inspected"][0]["is_next"].is_null());

    // The batches that were trained on: of two sequences (four short ones in place of each), then more.
    let mut trained = Vec::new();
    for line in std::fs::read_to_string(&batches)?.lines() {
        let batch: Value = serde_json::from_str(line)?;
        assert!(list(&batch["token_types"])?.iter().all(|kind| kind == 0) && list(&batch["next_sentence"])?.is_empty());
        if batch["kind"] == "step" {
            let share = list(&batch["target_ids"])?.len() as f64 / list(&batch["ids"])?.len() as f64;
            trained.push((list(&batch["starts"])?.len() - 1, share));
        }
    }
    // A quarter of eight is two, and the ramp ends after three steps; so do the shortest sequences, four to a place.
    assert_eq!(trained.iter().map(|(count, _)| *count).take(4).collect::<Vec<_>>(), [8, 16, 24, 16]);
    // The special tokens, which are many in short sequences, are no targets.
    assert!(trained[0].1 > trained[11].1, "{trained:?}");

    let config = BertConfig::open(&out)?;
    assert_eq!((config.num_hidden_layers, config.hidden_size, config.num_attention_heads), (3, 64, 2));
    assert_eq!((config.intermediate_size, config.architectures), (256, vec!["BertForMaskedLM".to_string()]));
    let (model, loaded) = BertForMaskedLM::open_reported(&out, &Device::Cpu, &OpenOptions::new())?;
    assert!(model.bert.pooler.is_none() && loaded.missing.is_empty() && loaded.unexpected.is_empty(), "{loaded}");
    // With a learning rate of 0, the weights stay those of the given model.
    let continued = path("continued");
    printed("pretrain", &["--no-nsp", "--model", &out, "--lr", "0", "--steps", "1", "--out", &continued])?;
    let after = BertForMaskedLM::open(&continued, &Device::Cpu)?;
    for ((name, before), (_, after)) in model.named_parameters().iter().zip(after.named_parameters()) {
        assert_eq!(before.to_vec::<f32>()?, after.to_vec::<f32>()?, "{name}");
    }
    Ok(())
}

/// As in the course, the first token of the second sentence is masked, also if another one is. The losses of a long run are at
/// most twenty lines.
#[test]
fn pretrain_inspects_and_prints_as_the_course() -> Result {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (json, pairs) = (path("report.json"), path("pairs.json"));
    std::fs::write(
        &pairs,
        r#"[{"a": "Rosa has a boat.", "b": "The red [MASK] is old."}, {"a": "It rains.", "b": "Rosa sleeps."}]"#,
    )?;
    let small = ["--layers", "1", "--hidden", "16", "--heads", "1", "--pairs", "100", "--steps", "801"];
    let said = printed("pretrain", &[&small[..], &["--json", &json, "--inspect", &pairs]].concat())?;
    let losses = said.lines().filter(|line| line.starts_with("[epoch ")).count();
    assert!((10..=20).contains(&losses) && said.contains(" step 060] loss="), "{losses} lines: {said}");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&json)?)?;
    let [first, second] = [0, 1].map(|index| &report["inspected"][index]);
    assert_eq!((first["original"].as_str(), second["original"].as_str()), (Some("the"), Some("rosa")));
    // [CLS] rosa has a boat . [SEP] the red [MASK]
    let own = list(&first["own_masks"])?;
    let position = number(&first["masked_position"])?;
    assert_eq!((own.len(), number(&own[0][0])?), (1, position + 2.0));
    assert!(list(&second["own_masks"])?.is_empty() && said.contains("[MASK] of the text, position"), "{said}");
    assert_eq!((list(&first["top_5"])?.len(), list(&own[0][1])?.len()), (5, 5));
    Ok(())
}

/// Returns what an example writes with `--json`.
fn report(example: &str) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("report.json");
    printed(example, &["--json", &path.to_string_lossy()])?;
    Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
}

fn number(value: &Value) -> Result<f64> {
    Ok(value.as_f64().ok_or_else(|| format!("{value} is not a number"))?)
}

fn list(value: &Value) -> Result<&Vec<Value>> {
    Ok(value.as_array().ok_or_else(|| format!("{value} is not a list"))?)
}

fn numbers(value: &Value) -> Result<Vec<f64>> {
    list(value)?.iter().map(number).collect()
}

/// The parameter counts equal those of the published models.
#[test]
fn architecture() -> Result {
    let report = report("architecture")?;
    let bare =
        list(&report)?.iter().map(|model| number(&model["parameters"]["bare model"])).collect::<Result<Vec<_>>>()?;
    assert_eq!(bare[..3], [109_482_240.0, 335_141_888.0, 66_362_880.0]);
    Ok(())
}

/// The input vectors of a word are equal in all sentences. The output vectors are more similar within a sense.
#[test]
fn contextual() -> Result {
    let report = report("contextual")?;
    for word in list(&report)? {
        let of = |means: &Value| {
            Ok::<_, Box<dyn std::error::Error>>((number(&means["same_sense"])?, number(&means["other_sense"])?))
        };
        for means in [&word["token_embedding"], &word["layers"][0]] {
            let (same, other) = of(means)?;
            assert!(same > 1.0 - 1e-6 && other > 1.0 - 1e-6, "{word}");
        }
        let (same, other) = of(list(&word["layers"])?.last().ok_or("the layers are missing")?)?;
        assert!(same - other > 0.04 && same < 0.95, "{} {same} {other}", word["word"]);
    }
    Ok(())
}

/// The shares are within four standard deviations of 80, 10 and 10 %. One of 6 tokens and 3 of 23 tokens are selected.
#[test]
fn masking() -> Result {
    let counts = &report("masking")?["counts"];
    let targets = number(&counts["targets"])?;
    assert_eq!((number(&counts["tokens"])?, targets), (290_000.0, 40_000.0));
    for (kind, share) in [("masked", 0.8), ("random", 0.1), ("kept", 0.1)] {
        let (count, deviation) = (number(&counts[kind])?, (targets * share * (1.0 - share)).sqrt());
        assert!((count - share * targets).abs() < 4.0 * deviation, "{kind}: {count} of {targets}");
    }
    Ok(())
}

/// The plain draw of the course: 15 % of all tokens, and often none of a short text.
#[test]
fn masking_as_the_course() -> Result {
    let folder = tempfile::tempdir()?;
    let json = folder.path().join("report.json");
    let said = printed("masking", &["--course", "--json", &json.to_string_lossy(), "O cachorro mordeu o carteiro."])?;
    let report: Value = serde_json::from_str(&std::fs::read_to_string(json)?)?;
    let (tokens, targets) = (number(&report["counts"]["tokens"])?, number(&report["counts"]["targets"])?);
    assert!((targets - 0.15 * tokens).abs() < 4.0 * (tokens * 0.15 * 0.85).sqrt(), "{targets} of {tokens}");
    assert!(said.contains("on average 0.9 of 6"), "{said}");
    Ok(())
}

#[test]
fn nsp_pairs() -> Result {
    let ways = report("nsp_pairs")?;
    let course = &ways[0];
    let pairs = number(&course["pairs"])?;
    assert!((number(&course["is_next"])? - pairs / 2.0).abs() < 2.0 * pairs.sqrt(), "{course}");
    assert!(number(&course["right"])? > 0.9 * number(&course["asked"])?, "{course}");
    for pair in list(&course["shown"])? {
        assert_eq!(number(&pair["is_next"])? > 0.5, pair["label"] == "IsNext", "{pair}");
    }
    let bert = &ways[1];
    assert!(number(&bert["is_next"])? < 0.45 * number(&bert["pairs"])?, "documents are short: {bert}");
    Ok(())
}

#[test]
fn embeddings() -> Result {
    let report = report("embeddings")?;
    for row in list(&report["pair"])? {
        let part = |name: &str| numbers(&row[name]);
        let (token, segment) = (part("token_embedding")?, part("segment_embedding")?);
        let (position, sum) = (part("position_embedding")?, part("sum")?);
        for at in 0..sum.len() {
            assert!((token[at] + segment[at] + position[at] - sum[at]).abs() < 1e-6, "{row}");
        }
    }
    let mut moved = 0;
    for word in list(&report["orders"])? {
        assert!(number(&word["output_without_positions"])? > 1.0 - 1e-5, "{word}");
        assert!(number(&word["output"])? < 1.0 - 1e-3, "{word}");
        if word["positions"][0] != word["positions"][1] {
            assert!(number(&word["sum"])? < 0.9, "{word}");
            moved += 1;
        }
    }
    assert_eq!(moved, 2);
    Ok(())
}

/// The most probable token for each mask.
#[test]
fn fill_mask() -> Result {
    let report = report("fill_mask")?;
    let first = |text: &Value| text["masks"][0]["guesses"][0]["token"].as_str().map(str::to_string);
    let first: Vec<Option<String>> = list(&report)?.iter().map(first).collect();
    let expected = ["dormiu", "mordeu", "banco", "mat"].map(|token| Some(token.to_string()));
    assert_eq!(first[..4], expected);
    Ok(())
}

#[test]
fn similarity() -> Result {
    let report = report("similarity")?;
    let cosines = list(&report["cosines"])?.iter().map(numbers).collect::<Result<Vec<_>>>()?;
    for (i, row) in cosines.iter().enumerate() {
        assert!((row[i] - 1.0).abs() < 1e-6);
        row.iter().enumerate().for_each(|(j, cosine)| assert!((cosine - cosines[j][i]).abs() < 1e-9));
    }
    let most = report["most_similar"][0]["sentence"].as_str().ok_or("the sentence is missing")?;
    assert!(most.contains("bank"), "{most}");
    Ok(())
}

/// The scores are those of the pipeline, whatever the weights of the head. Contradictions in the folder are reported.
#[test]
fn rerank() -> Result {
    let (folder, documents) = (tempfile::tempdir()?, ["The dog barked at the postman.", "A frog sits on the bank."]);
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny");
    let options = OpenOptions::new().labels(["relevant"]).fresh_head().seed(1);
    BertForSequenceClassification::open_with(&tiny, &Device::Cpu, &options)?.save(&folder)?;
    Tokenizer::open(&tiny)?.save(&folder)?;
    let (place, json) = (folder.path().to_string_lossy(), folder.path().join("report.json"));
    let given = ["--model", &place, "--top", "1", "--json", &json.to_string_lossy(), "Who barked?"];
    let said = printed("rerank", &[&given[..], &documents].concat())?;
    let report: Value = serde_json::from_str(&std::fs::read_to_string(json)?)?;
    let ranked = CrossEncoder::open(&folder)?.rank("Who barked?", &documents, 1)?;
    assert_eq!(report["ranked"][0]["document"], documents[ranked[0].0]);
    assert!((number(&report["ranked"][0]["score"])? - ranked[0].1).abs() < 1e-9 && said.lines().count() == 2);

    let settings = folder.path().join("tokenizer_config.json");
    let changed = std::fs::read_to_string(&settings)?.replace("\"do_lower_case\": true", "\"do_lower_case\": false");
    std::fs::write(&settings, changed)?;
    let output = Command::new(program("rerank")?).args(["--model", &place, "Who barked?", "A dog."]).output()?;
    let said = String::from_utf8(output.stderr)?;
    let differs =
        "do_lower_case is false in tokenizer_config.json, true in tokenizer.json: tokenizer_config.json counts";
    assert_eq!(said, format!("{place}: {differs}\n"));
    Ok(())
}

/// Without a model, the scores are the probabilities of the next-sentence head.
#[test]
fn rerank_by_next_sentences() -> Result {
    let json = tempfile::NamedTempFile::new()?;
    printed("rerank", &["--json", &json.path().to_string_lossy()])?;
    let report: Value = serde_json::from_str(&std::fs::read_to_string(json.path())?)?;
    let query = report["query"].as_str().ok_or("the query is missing")?;
    let model = NextSentence::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny"))?;
    for ranked in list(&report["ranked"])? {
        let document = ranked["document"].as_str().ok_or("the document is missing")?;
        let expected = model.probability(query, document)?.value;
        assert!((number(&ranked["score"])? - expected).abs() < 1e-5, "{document}: {expected}");
    }
    assert_eq!(report["ranked"][0]["document"], "He makes the bread at night.");
    Ok(())
}

/// Both formats contain the same numbers.
#[test]
fn embed() -> Result {
    let sentences = ["o gato dormiu", "o\tgato"];
    let of_json = |line: &str| -> Result<(String, Vec<f64>)> {
        let value: Value = serde_json::from_str(line)?;
        Ok((value["text"].as_str().ok_or("the text is missing")?.to_string(), numbers(&value["vector"])?))
    };
    let lines = printed("embed", &sentences)?.lines().map(of_json).collect::<Result<Vec<_>>>()?;
    assert_eq!(lines.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>(), sentences);
    let tsv = printed("embed", &["--format", "tsv", sentences[0], sentences[1]])?;
    for (line, (text, vector)) in tsv.lines().zip(&lines) {
        let cells: Vec<&str> = line.split('\t').collect();
        assert_eq!((cells.len(), cells[128]), (129, text.replace('\t', " ").as_str()));
        for (cell, number) in cells.iter().zip(vector) {
            assert_eq!(cell.parse::<f32>()?, *number as f32);
        }
    }
    // The first 16 numbers, of norm 1 again.
    let short = printed("embed", &["--dimension", "16", sentences[0]])?;
    let (short, whole) = (of_json(&short)?.1, &lines[0].1);
    let norm = whole[..16].iter().map(|x| x * x).sum::<f64>().sqrt();
    assert!(short.len() == 16 && short.iter().zip(whole).all(|(x, y)| (x - y / norm).abs() < 1e-6));
    Ok(())
}

#[test]
fn texts_that_are_too_long_are_reported() -> Result {
    let long = "The boat is on the river. ".repeat(90);
    for (arguments, expected) in [
        (vec!["A boat.", &long], "1 of 2 texts did not fit in 512 tokens: 120 tokens were cut\n"),
        (vec!["--windows", "A boat.", &long], "1 of 2 texts did not fit in 512 tokens: read in 2 windows\n"),
        (vec!["A boat."], ""),
    ] {
        let output = Command::new(program("embed")?).args(arguments).output()?;
        assert_eq!(String::from_utf8(output.stderr)?, expected);
    }
    Ok(())
}

/// Rows of attention are probabilities, and the page contains a map for each head of each layer.
#[test]
fn attention_map() -> Result {
    let folder = tempfile::tempdir()?;
    let (page, json) = (folder.path().join("map.html"), folder.path().join("map.json"));
    printed("attention_map", &["--out", &page.to_string_lossy(), "--json", &json.to_string_lossy()])?;
    let report: Value = serde_json::from_str(&std::fs::read_to_string(json)?)?;
    let tokens = list(&report["tokens"])?.len();
    for head in list(&report["heads"])? {
        let rows = list(&head["probabilities"])?.iter().map(numbers).collect::<Result<Vec<_>>>()?;
        assert_eq!(rows.len(), tokens);
        for row in rows {
            assert!(row.len() == tokens && (row.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{row:?}");
        }
    }
    let page = std::fs::read_to_string(page)?;
    assert_eq!((page.matches("<svg").count(), list(&report["heads"])?.len()), (4, 4));
    let one = folder.path().join("map.svg");
    printed("attention_map", &["--layer", "2", "--head", "1", "--out", &one.to_string_lossy(), "a cat"])?;
    assert!(std::fs::read_to_string(one)?.contains("layer 2, head 1"));
    Ok(())
}

/// Fine-tuning separates the classes. Before it, a neighbour has the same class about half of the time.
#[test]
fn visualize_cls() -> Result {
    let folder = tempfile::tempdir()?;
    let (picture, json) = (folder.path().join("cls.svg"), folder.path().join("cls.json"));
    let said = printed("visualize_cls", &["--out", &picture.to_string_lossy(), "--json", &json.to_string_lossy()])?;
    assert!(said.contains("pooled [CLS] of \"a great movie.\" after fine-tuning: shape [1, 128]"), "{said}");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(json)?)?;
    let [before, after] = [0, 1].map(|index| &report["maps"][index]);
    assert!(number(&after["neighbours"])? > 0.8 && number(&before["neighbours"])? < 0.7, "{before} {after}");
    for maps in [before, after] {
        for kind in ["pca", "tsne"] {
            assert_eq!(list(&maps[kind])?.len(), list(&report["shown"]["texts"])?.len());
        }
    }
    assert!(std::fs::read_to_string(picture)?.starts_with("<svg"));
    Ok(())
}

/// More ranks are faster and need less memory, and a rank needs a sequence. Without `--speed`, one rank is measured.
#[test]
fn scaling() -> Result {
    let folder = tempfile::tempdir()?;
    let json = folder.path().join("scaling.json").to_string_lossy().into_owned();
    let said = printed("scaling", &["--speed", "1000", "--sequences", "64", "--ranks", "1,4,65", "--json", &json])?;
    assert!(said.contains("65 ranks are left out: a step has 64 sequences"), "{said}");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&json)?)?;
    let [one, four] = &list(&report)?[..] else { return Err(format!("{report}").into()) };
    assert!(number(&four["efficiency"])? > 0.8 && number(&four["efficiency"])? < 1.0, "{four}");
    assert!(number(&four["seconds"])? < number(&one["seconds"])? / 3.0, "{report}");
    assert!(number(&four["memory"])? < number(&one["memory"])? / 2.0, "{report}");
    let measured = printed("scaling", &["--config", "tiny", "--threads", "1"])?;
    assert!(measured.contains("measured here") && measured.contains("Scaling stops at"), "{measured}");
    Ok(())
}
