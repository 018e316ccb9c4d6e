//! The examples that fine-tune.

use super::*;

/// A folder for the files of a test.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Result<Files> {
        Ok(Files(tempfile::tempdir()?))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }

    fn file(&self, name: &str, text: &str) -> Result<String> {
        std::fs::write(self.path(name), text)?;
        Ok(self.path(name))
    }
}

/// Without arguments: the rows of the course, trained on long enough to classify the course's four samples. A table of 22
/// epochs has every second.
#[test]
fn finetune_classifies_the_samples_of_the_course() -> Result {
    let files = Files::new()?;
    let json = files.path("report.json");
    let said = printed("finetune", &["--json", &json])?;
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&json)?)?;
    let predictions: Vec<&Value> = list(&report["predictions"])?.iter().map(|prediction| &prediction[1]).collect();
    assert_eq!(predictions, ["positive", "negative", "positive", "negative"], "{said}");
    let lines = said.lines().skip_while(|line| !line.starts_with("epoch")).skip(1);
    let epochs: Vec<&str> =
        lines.take_while(|line| line.starts_with(' ')).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!((epochs.len(), epochs.last(), list(&report["epochs"])?.len()), (11, Some(&"22"), 22), "{said}");
    Ok(())
}

/// Runs without `--out` leave a report each, and a run that fails leaves none.
#[test]
fn reports_do_not_replace_each_other() -> Result {
    let files = Files::new()?;
    let run = |more: &[&str]| {
        let given = [&["--epochs", "1"], more].concat();
        Command::new(program("finetune")?)
            .current_dir(files.0.path())
            .args(given)
            .output()
            .map_err(Box::<dyn std::error::Error>::from)
    };
    let said = [run(&[])?, run(&[])?].map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    assert!(said[0].contains("report: target/finetune.html") && said[1].contains("report: target/finetune-2.html"));
    assert!(!run(&["--warmup", "-1"])?.status.success() && !run(&["--lr", "-1"])?.status.success());
    let mut pages = Vec::new();
    for page in std::fs::read_dir(files.path("target"))? {
        let page = page?;
        assert!(page.metadata()?.len() > 10_000);
        pages.push(page.file_name());
    }
    assert_eq!(pages.len(), 2, "{pages:?}");
    Ok(())
}

/// It learns to rank, and its folder opens as a cross-encoder.
#[test]
fn finetune_reranker() -> Result {
    let folder = tempfile::tempdir()?;
    let (out, json) = (folder.path().join("out"), folder.path().join("report.json"));
    printed("finetune_reranker", &["--out", &out.to_string_lossy(), "--json", &json.to_string_lossy()])?;
    let report: Value = serde_json::from_str(&std::fs::read_to_string(json)?)?;
    let last = list(&report["epochs"])?.last().ok_or("no epoch")?;
    assert!(number(&last["NDCG@10"])? > 0.9 && number(&last["MRR@10"])? > 0.9, "{last}");
    let documents = ["The baker sings at night.", "Rosa sings by the river.", "The dog runs in the house."];
    let ranked = CrossEncoder::open(&out)?.rank("Who is by the river?", &documents, 3)?;
    assert_eq!(ranked[0].0, 1);
    assert!(ranked.iter().all(|(_, score)| (0.0..=1.0).contains(score)), "{ranked:?}");
    Ok(())
}

/// Lists of labels, or a column for each, are several that may apply; class weights and pairs are for one label.
#[test]
fn finetune_of_every_kind_of_label() -> Result {
    let folder = tempfile::tempdir()?;
    let file = |name: &str, text: &str| -> Result<String> {
        let path = folder.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    };
    let lists = ["a|[\"x\", \"y\"]", "b|[]", "c|[\"y\"]"].map(|row| row.split_once('|').unwrap_or_default());
    let lists: Vec<String> =
        lists.iter().map(|(text, label)| format!("{{\"text\": \"{text}\", \"label\": {label}}}")).collect();
    let lists = file("lists.jsonl", &lists.join("\n"))?;
    let columns = file("columns.csv", "text,x,y\na,1,1\nb,0,0\nc,0,1\n")?;
    let pairs = file("pairs.csv", "text,other,label\na,b,1\nc,d,0\ne,f,1\n")?;
    let json = folder.path().join("report.json");
    let run = |given: &[&str], file: &str| -> Result<(String, Value)> {
        let json = json.to_string_lossy();
        let always = ["--train", file, "--validation", file, "--epochs", "1", "--json", &*json];
        let said = printed("finetune", &[&always, given].concat())?;
        Ok((said, serde_json::from_str(&std::fs::read_to_string(&*json)?)?))
    };
    let (of_lists, of_columns) = (run(&[], &lists)?, run(&["--label-columns", "x,y"], &columns)?);
    assert_eq!(of_lists.1["epochs"], of_columns.1["epochs"]);
    assert!(of_lists.0.contains("any number of 2 labels may apply: x, y"), "{}", of_lists.0);
    for name in ["micro F1", "macro F1", "exact match", "loss"] {
        number(&of_lists.1["epochs"][0][name])?;
    }
    let weighted = ["--second-text-column", "other", "--class-weights", "balanced", "--label-smoothing", "0.1"];
    let (said, report) = run(&weighted, &pairs)?;
    assert!(said.contains("0.7500"), "{said}");
    number(&report["epochs"][0]["accuracy"])?;
    Ok(())
}

/// Every example holds out a part of its file, and a run does not resume with another part.
#[test]
fn one_file_is_split() -> Result {
    let files = Files::new()?;
    let rows = |header: &str, row: &dyn Fn(usize) -> String| {
        (0..40).fold(header.to_string(), |text, number| text + &row(number) + "\n")
    };
    let labelled = files.file("rows.csv", &rows("text,label\n", &|n| format!("text {n},{}", n % 4 / 3)))?;
    let scored = rows("sentence1,sentence2,score\n", &|n| format!("one {n},two,{}", n % 5));
    let scored = files.file("scored.csv", &scored)?;
    let ranked = rows("query,document,label\n", &|n| format!("query {},document {n},{}", n / 10, n % 2));
    let ranked = files.file("ranked.csv", &ranked)?;
    let tagged = files.file("tagged.conll", &rows("", &|n| format!("Ana{n} B-PER\nruns O\n")))?;
    let paragraph = |n: usize| {
        let question = |m: usize| {
            let answers = serde_json::json!([{"text": "cat", "answer_start": 4}]);
            serde_json::json!({"id": format!("{n}-{m}"), "question": "Who sat?", "answers": answers})
        };
        let paragraph = serde_json::json!({"context": format!("The cat sat {n}."), "qas": [question(0), question(1)]});
        serde_json::json!({"title": n.to_string(), "paragraphs": [paragraph]})
    };
    let squad = serde_json::json!({"version": "1.1", "data": (0..20).map(paragraph).collect::<Vec<_>>()});
    let squad = files.file("squad.json", &squad.to_string())?;

    let (json, out) = (files.path("report.json"), files.path("out"));
    for (example, file, expected) in [
        ("finetune", &labelled, "30 sentences to train on, 10 to evaluate on"),
        ("finetune_similarity", &scored, "30 pairs to train on, 10 to evaluate on"),
        ("finetune_reranker", &ranked, "30 pairs to train on, 10 to evaluate on"),
        ("finetune_ner", &tagged, "30 examples of at most"),
        ("finetune_qa", &squad, "30 questions to train on, 10 to evaluate on"),
    ] {
        let run = |fraction: &str, more: &[&str]| -> Result<std::process::Output> {
            let always = ["--train", file, "--split", fraction, "--epochs", "1", "--json", &json];
            Ok(Command::new(program(example)?).args([&always, more].concat()).output()?)
        };
        let said = String::from_utf8(run("0.25", &["--out", &out])?.stdout)?;
        assert!(said.contains(expected), "{example}: {said}");
        let report: Value = serde_json::from_str(&std::fs::read_to_string(&json)?)?;
        assert_eq!(list(&report["epochs"])?.len(), 1, "{example}");
        let failed = |fraction: &str, more: &[&str]| -> Result<String> {
            let output = run(fraction, more)?;
            assert_eq!(output.status.code(), Some(1), "{example}");
            Ok(String::from_utf8(output.stderr)?)
        };
        let said = failed("0.3", &["--out", &out, "--resume"])?;
        let started = "validation is 0.3 of the training file, the run was started with 0.25 of the training file";
        assert!(said.contains(started), "{example}: {said}");
        let expected = format!("error: --split of {file}: fraction is 1, must be above 0 and below 1\n");
        assert_eq!(failed("1", &[])?, expected);
        std::fs::remove_dir_all(&out)?;
    }
    Ok(())
}
