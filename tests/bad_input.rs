//! Errors of users. Each is reported in one line that names the file, the value and the limit, with exit status 1, and
//! leaves no partial files behind.

use std::path::Path;
use std::process::{Command, Stdio};

use cloze::bert::PreTrainingTargets;
use cloze::prelude::*;
use cloze_examples::{Result, program};
use serde_json::json;

/// Runs an example that must fail, and returns its error line.
fn refused_by(name: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program(name)?).args(arguments).stdin(Stdio::null()).output()?;
    let said = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(1), "{name} {arguments:?}: {said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{name} {arguments:?}: {said}");
    assert!(said.starts_with("error: ") && !said.starts_with("error: \"") && !said.contains("panicked"), "{said}");
    Ok(said)
}

/// Runs pre-training as [`refused_by`] does.
fn refused(arguments: &[&str]) -> Result<String> {
    refused_by("pretrain", arguments)
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Result<Folder> {
        Ok(Folder(tempfile::tempdir()?))
    }

    fn file(&self, name: &str, content: &[u8]) -> Result<String> {
        let path = self.0.path().join(name);
        std::fs::write(&path, content)?;
        Ok(path.to_string_lossy().into_owned())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }
}

const TWO_DOCUMENTS: &[u8] = b"the cat sat on the mat.\nit slept.\n\nthe dog ran home.\nit barked.\n";

#[test]
fn corpora() -> Result {
    let folder = Folder::new()?;
    let empty = folder.file("empty.txt", b"\n \n\n")?;
    assert!(refused(&["--corpus", &empty])?.contains("empty.txt"));
    let missing = folder.path("missing.txt");
    assert!(refused(&["--corpus", &missing])?.contains("missing.txt: cannot read"));
    let one = folder.file("one.txt", b"the cat sat.\nit slept.\n")?;
    assert!(refused(&["--corpus", &one, "--pairs", "10"])?.contains("two documents"));
    assert!(refused(&["--corpus", &one])?.contains("1 document(s): at least 4"));
    assert!(refused(&["--corpus", &one, "--no-nsp"])?.contains("1 document(s): at least 2"));
    let two = folder.file("two.txt", TWO_DOCUMENTS)?;
    assert!(refused(&["--corpus", &two, "--held-out", &one])?.contains("one.txt: --held-out has one document"));
    let latin1 = folder.file("latin1.txt", b"ol\xe1 mundo.\n\nsegundo.\n")?;
    let said = refused(&["--corpus", &latin1])?;
    assert!(said.contains("latin1.txt") && said.contains("offset 2"), "{said}");
    std::fs::create_dir(folder.path("folder"))?;
    assert!(refused(&["--corpus", &folder.path("folder")])?.contains("folder"));
    Ok(())
}

#[test]
fn a_run_resumes_with_its_own_validation_data() -> Result {
    let folder = Folder::new()?;
    let rows = b"sentence\tlabel\na good film\t1\na bad film\t0\n";
    let (train, out) = (folder.file("train.tsv", rows)?, folder.path("run"));
    let run = |validation: &str, more: &[&str]| {
        let all = ["--train", &train, "--validation", validation, "--epochs", "1", "--out", &out];
        Command::new(program("finetune")?).args(all).args(more).output().map_err(Into::into)
    };
    let validation = folder.file("validation.tsv", rows)?;
    let done: Result<std::process::Output> = run(&validation, &[]);
    assert!(done?.status.success());
    let other = folder.file("other.tsv", &[&rows[..], b"a dull film\t0\n"].concat())?;
    let said = String::from_utf8(run(&other, &["--resume"])?.stderr)?;
    assert!(said.starts_with("error: ") && said.contains("validation is fingerprint"), "{said}");
    assert!(run(&validation, &["--resume"])?.status.success());
    Ok(())
}

#[test]
fn questions_are_checked_before_training() -> Result {
    let folder = Folder::new()?;
    let squad = |question: &str| {
        let answers = json!([{"text": "cat", "answer_start": 4}]);
        let questions = json!([{"id": "1", "question": question, "answers": answers}]);
        json!({"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": "the cat sat", "qas": questions}]}]})
    };
    let train = folder.file("train.json", squad("who sat?").to_string().as_bytes())?;
    let validation = folder.file("validation.json", squad(&"who ".repeat(70)).to_string().as_bytes())?;
    let said = refused_by("finetune_qa", &["--train", &train, "--validation", &validation, "--max-length", "64"])?;
    assert!(said.contains("question 0: the question has ") && said.contains("a window of 64"), "{said}");
    Ok(())
}

#[test]
fn settings() -> Result {
    let folder = Folder::new()?;
    let corpus = folder.file("corpus.txt", TWO_DOCUMENTS)?;
    let refused_with =
        |more: &[&str]| refused(&[&["--corpus", &corpus, "--pairs", "10", "--steps", "1"], more].concat());
    let said = refused_with(&["--seq-len", "513"])?;
    assert!(said.contains("513") && said.contains("512"), "{said}");
    assert!(refused_with(&["--config", "huge"])?.contains("huge"));
    assert!(refused_with(&["--lr", "NaN"])?.contains("learning rate"));
    assert!(refused_with(&["--batch", "0"])?.contains("batch size is 0"));
    assert!(refused_with(&["--batch-ramp", "2"])?.contains("start of the batch ramp is 2"));
    assert!(refused_with(&["--masking-rate", "0"])?.contains("masking rate is 0"));
    assert!(refused_with(&["--final-masking-rate", "1.5"])?.contains("masking rate is 1.5"));
    assert!(refused_with(&["--weight-decay=-1"])?.contains("weight decay is -1"));
    assert!(refused_with(&["--warmup", "2.5"])?.contains("warmup is 2.5"));
    assert!(refused_with(&["--hidden", "100", "--heads", "3"])?.contains("hidden_size is 100"));
    assert!(refused_with(&["--config", "/no/such/config.json"])?.contains("/no/such/config.json"));
    assert!(refused_with(&["--vocab-size", "4"])?.contains('4'));
    assert!(refused_with(&["--vocab", "/no/such/vocab.txt"])?.contains("/no/such/vocab.txt"));
    assert!(refused_with(&["--model", "/no/such/model"])?.contains("/no/such/model"));
    let broken = folder.file("pairs.json", b"[{\"a\": 1}]")?;
    assert!(refused_with(&["--inspect", &broken])?.contains("pairs.json"));
    let said = refused(&["--corpus", &corpus, "--pairs", "10", "--minutes=-1"])?;
    assert!(said.contains("--minutes is -1"), "{said}");
    Ok(())
}

/// Sizes that no machine has memory for, in a few hundred bytes.
#[test]
fn absurd_sizes() -> Result {
    let folder = Folder::new()?;
    let corpus = folder.file("corpus.txt", TWO_DOCUMENTS)?;
    let config = |name: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let mut config: serde_json::Value = serde_json::from_str(&BertConfig::tiny(100).to_json())?;
        change(&mut config);
        folder.file(name, config.to_string().as_bytes())
    };
    let refused_with = |config: &str| {
        let arguments = ["--corpus", &corpus, "--pairs", "10", "--steps", "1", "--vocab-size", "60"];
        refused(&[&arguments[..], &["--config", config]].concat())
    };
    let wide = config("wide.json", &|config| config["hidden_size"] = json!(1_000_000_000))?;
    let said = refused_with(&wide)?;
    assert!(said.contains("wide.json: hidden_size is 1000000000: must be from 1 to 1048576"), "{said}");
    let deep = config("deep.json", &|config| config["num_hidden_layers"] = json!(1_000_000))?;
    let said = refused_with(&deep)?;
    assert!(said.contains("deep.json: num_hidden_layers is 1000000: must be from 1 to 16384"), "{said}");
    #[cfg(target_os = "linux")]
    {
        let both = config("both.json", &|config| {
            (config["hidden_size"], config["num_hidden_layers"]) = (json!(1 << 20), json!(1 << 14));
            config["intermediate_size"] = json!(1 << 22);
        })?;
        let said = refused_with(&both)?;
        assert!(said.contains(" GB in f32, this machine has ") && said.contains("num_hidden_layers (16384)"), "{said}");
    }
    let nested = folder.file("nested.json", "[".repeat(1 << 20).as_bytes())?;
    assert!(refused_with(&nested)?.contains("nested.json: not JSON: recursion limit exceeded"));
    Ok(())
}

#[test]
fn prepared_corpora() -> Result {
    let folder = Folder::new()?;
    let corpus = folder.file("corpus.txt", &TWO_DOCUMENTS.repeat(40))?;
    let out = folder.path("shards");
    let prepare = |more: &[&str]| refused_by("prepare_corpus", &[&["--vocab-size", "60", "--corpus"], more].concat());
    assert!(prepare(&[&folder.path("missing"), "--out", &out])?.contains("missing: cannot read"));
    assert!(prepare(&[&corpus, "--out", &folder.path("")])?.contains("neither empty nor a folder of shards"));
    assert!(prepare(&[&corpus, "--out", &out, "--shard-tokens", "0"])?.contains("shard_tokens is 0"));
    let json = folder.file("a.jsonl", b"{\"text\": \"a b\"}\n{\"text\": 1}\n")?;
    assert!(prepare(&[&corpus, &json, "--out", &out])?.contains("a.jsonl:2: corpus: field text is not a string: 1"));
    let arguments = ["--vocab-size", "60", "--keep-duplicates", "--corpus", &corpus, "--out", &out];
    // A limit on the size of files stands in for a full disk.
    #[cfg(unix)]
    {
        let limited = "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\"";
        let output =
            Command::new("sh").args(["-c", limited]).arg(program("prepare_corpus")?).args(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("cannot write"), "{said}");
        assert_eq!(std::fs::read_dir(folder.0.path())?.count(), 2, "something is left over: {said}");
    }
    let output = Command::new(program("prepare_corpus")?).args(arguments).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(prepare(&[&corpus, "--out", &out])?.contains("has shards already"));
    assert!(prepare(&[&out, "--out", &folder.path("more")])?.contains("this is a folder of shards"));

    let train = |more: &[&str]| refused(&[&["--steps", "1", "--corpus", &out], more].concat());
    assert!(train(&["--cased"])?.contains("--cased cannot be chosen: the shards have their own tokenizer"));
    assert!(train(&["--vocab-size", "9"])?.contains("--vocab-size cannot be chosen"));
    assert!(train(&["--cache", &folder.path("cache")])?.contains("this is a folder of shards"));
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny");
    assert!(train(&["--model", &model.to_string_lossy()])?.contains("the shards were made with another tokenizer"));
    let shard = Path::new(&out).join("shard-00000.safetensors");
    let bytes = std::fs::read(&shard)?;
    std::fs::write(&shard, &bytes[1..])?;
    assert!(train(&[])?.contains("shard-00000.safetensors: shard: has "));
    std::fs::write(&shard, [&bytes[..bytes.len() - 1], b"x"].concat())?;
    assert!(train(&[])?.contains("shard-00000.safetensors: shard: its hash is "));
    Ok(())
}

#[test]
fn an_unwritable_output_fails_before_training() -> Result {
    let folder = Folder::new()?;
    let corpus = folder.file("corpus.txt", TWO_DOCUMENTS)?;
    let blocked = folder.file("blocked", b"a file, not a folder")?;
    let out = format!("{blocked}/model");
    let said = refused(&["--corpus", &corpus, "--pairs", "10", "--steps", "1", "--out", &out])?;
    assert!(said.contains("blocked"), "{said}");
    assert_eq!(std::fs::read(&blocked)?, b"a file, not a folder");
    assert_eq!(std::fs::read_dir(folder.0.path())?.count(), 2, "a file was left behind");
    Ok(())
}

#[test]
fn missing_models() -> Result {
    let folder = Folder::new()?;
    let missing = folder.path("missing");
    let examples =
        ["architecture", "contextual", "masking", "nsp_pairs", "embeddings", "fill_mask", "similarity", "embed"];
    for example in examples {
        let said = refused_by(example, &["--model", &missing])?;
        assert!(said.contains("missing: cannot read"), "{example}: {said}");
        let empty = folder.0.path().to_string_lossy();
        let said = refused_by(example, &["--model", &empty])?;
        assert!(said.contains(&*empty), "{example}: {said}");
    }
    Ok(())
}

#[test]
fn words_and_layers() -> Result {
    let refused = |arguments: &[&str]| refused_by("contextual", arguments);
    let said = refused(&["--layer", "3"])?;
    assert!(said.contains("--layer is 3") && said.contains("0 to 2"), "{said}");
    assert!(refused(&["--word", "zebra"])?.contains("\"zebra\""));
    let said = refused(&["--word", "banco", "--sense", "O banco abre.", "O bancorio abre."])?;
    assert!(said.contains("\"banco\" is not in \"O bancorio abre.\""), "{said}");
    let said = refused_by("embeddings", &["--orders", "o gato dormiu", "o gato acordou"])?;
    assert!(said.contains("--orders") && said.contains("o gato acordou"), "{said}");
    Ok(())
}

#[test]
fn texts() -> Result {
    let said = refused_by("fill_mask", &["O gato [MASK].", "O gato dormiu."])?;
    assert!(said.contains("no [MASK]") && said.contains('1'), "{said}");
    assert!(refused_by("nsp_pairs", &["O gato dormiu.", ""])?.contains("blank"));
    assert!(refused_by("masking", &["--probability", "1.5"])?.contains("1.5"));
    assert!(refused_by("nsp_pairs", &["--seq-len", "4"])?.contains("seq_len is 4"));
    let long = "gato ".repeat(600);
    let said = refused_by("attention_map", &[&long])?;
    assert!(said.contains("602") && said.contains("512"), "{said}");
    Ok(())
}

#[test]
fn files_of_sentences() -> Result {
    let folder = Folder::new()?;
    let read = |name: &str, content: &[u8]| refused_by("embed", &["--input", &folder.file(name, content)?]);
    assert!(read("blank.txt", b"one\n\ntwo\n")?.contains("blank.txt: line 2 is blank"));
    assert!(read("empty.txt", b"")?.contains("empty.txt: is empty"));
    assert!(read("latin1.txt", b"ol\xe1")?.contains("latin1.txt: not UTF-8: invalid byte at offset 2"));
    assert!(refused_by("embed", &["--input", &folder.path("missing.txt")])?.contains("missing.txt: cannot read"));
    assert!(refused_by("embed", &["--input", "-"])?.contains("standard input: is empty"));
    let out = folder.path("no/such/vectors.jsonl");
    assert!(refused_by("embed", &["--out", &out])?.contains("vectors.jsonl: cannot write"));
    assert_eq!(std::fs::read_dir(folder.0.path())?.count(), 3, "a file was left behind");
    Ok(())
}

#[test]
fn training_in_examples() -> Result {
    let folder = Folder::new()?;
    for example in ["ner", "question_answering"] {
        assert!(refused_by(example, &["--steps", "0"])?.contains("--steps is 0"));
    }
    let report = folder.path("no/report.json");
    for example in ["finetune", "ner", "question_answering", "pretrain"] {
        // Training would take twelve hours, so the check must come before it.
        let said = refused_by(
            example,
            &["--json", &report, if example == "finetune" { "--epochs" } else { "--steps" }, "9999999"],
        )?;
        assert!(said.contains("report.json: cannot write"), "{said}");
    }
    assert!(
        refused_by("finetune", &["--threads", "1000000"])?.contains("--threads is 1000000: must be from 1 to 1024")
    );
    assert!(refused_by("cls_gradient", &["--lr", "NaN"])?.contains("--lr is NaN"));
    let one = folder.file("one.tsv", b"text\tlabel\ngood\t0\nfine\t0\n")?;
    let finetune = |more: &[&str]| refused_by("finetune", &[&["--train", &one, "--validation", &one], more].concat());
    assert!(finetune(&[])?.contains("0 is the only class"));
    assert!(finetune(&["--labels", "good,bad,good"])?.contains("--labels names good twice"));
    assert!(finetune(&["--labels", "good,,bad"])?.contains("--labels has a name that is empty"));
    let two = folder.file("two.tsv", b"text\tlabel\ngood\t0\nbad\t1\n")?;
    let loss = |more: &[&str]| refused_by("finetune", &[&["--train", &two, "--validation", &two], more].concat());
    let said = loss(&["--class-weights", "1,2,3"])?;
    assert!(said.contains("--class-weights has 3 weights for 2 classes: 0, 1"), "{said}");
    let said = loss(&["--class-weights", "1,-2"])?;
    assert!(
        said.contains("--class-weights has \"-2\": must be \"balanced\", or finite numbers of at least 0"),
        "{said}"
    );
    assert!(loss(&["--label-smoothing", "1.5"])?.contains("--label-smoothing is 1.5: must be from 0 to 1"));
    let said = loss(&["--multi-label", "--class-weights", "balanced"])?;
    assert!(said.contains("--class-weights is for data with one label each: here several labels may apply"), "{said}");
    let said = loss(&["--label-columns", "rude,toxic"])?;
    assert!(said.contains("no column rude: the file has text, label"), "{said}");
    let graded = folder.file("graded.tsv", b"query\tdocument\tlabel\na\tb\t1\nc\td\t2\n")?;
    let said = refused_by("finetune_reranker", &["--train", &graded, "--validation", &graded])?;
    assert!(said.contains("train: label 2 is out of range: 0 is irrelevant, 1 is relevant"), "{said}");
    // A code is the name of a class, however large.
    let code = folder.file("code.tsv", b"text\tlabel\ngood\t99999999\n")?;
    let said = refused_by("finetune", &["--train", &code, "--validation", &one])?;
    assert!(said.contains("99999999 is the only class"), "{said}");
    Ok(())
}

#[test]
fn pairs_with_scores() -> Result {
    let folder = Folder::new()?;
    let pairs = folder.file("pairs.tsv", b"sentence1\tsentence2\tscore\na\tb\t1\nc\td\t4.5\ne\tf\t2\n")?;
    let similarity = |more: &[&str]| {
        refused_by("finetune_similarity", &[&["--train", &pairs, "--validation", &pairs], more].concat())
    };
    let said = similarity(&["--highest", "4"])?;
    assert!(said.contains("train: score 4.5 is out of range: scores go from 0 to 4 (--highest)"), "{said}");
    let said = similarity(&["--objective", "contrastive"])?;
    assert!(said.contains("train: 1 pair(s) have a score of 4 (--partners-from times --highest) or more"), "{said}");
    assert!(similarity(&["--columns", "sentence1,score"])?.contains("--columns has 2 names, it takes three"));
    for columns in [&["sentence1,sentence2,mark"][..], &["sentence1", "sentence2", "mark"]] {
        let said = similarity(&[&["--columns"], columns].concat())?;
        assert!(said.contains("no column mark: the file has sentence1, sentence2, score"), "{said}");
    }
    Ok(())
}

#[test]
fn questions() -> Result {
    let folder = Folder::new()?;
    let file = |name: &str, questions: [(&str, &str); 2]| {
        let answers = json!([{"text": "cat", "answer_start": 4}]);
        let question = |(id, question)| json!({"id": id, "question": question, "answers": answers});
        let paragraph = json!({"context": "the cat sat", "qas": questions.map(question)});
        let squad = json!({"version": "1.1", "data": [{"title": "", "paragraphs": [paragraph]}]});
        folder.file(name, squad.to_string().as_bytes())
    };
    let (good, blank) =
        (file("good.json", [("a", "who"), ("b", "who")])?, file("blank.json", [("a", "who"), ("b", " ")])?);
    let twice = file("twice.json", [("a", "who"), ("a", "who")])?;
    // Training would take hours, so the errors must come before it.
    let ask = |more: &[&str]| {
        let given = ["--epochs", "9999999", "--train", good.as_str(), "--validation"];
        refused_by("finetune_qa", &[&given, more].concat())
    };
    assert!(ask(&[&blank])?.contains("question: validation: b: the question is blank"));
    let predictions = folder.path("predictions.json");
    let said = ask(&[&twice, "--predictions", &predictions])?;
    assert!(said.contains("--predictions: two questions have the id \"a\""), "{said}");
    Ok(())
}

#[test]
#[cfg(target_os = "linux")]
fn unwritable_standard_output() -> Result {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full")?;
    let output = Command::new(program("masking")?).stdout(full).output()?;
    let said = String::from_utf8(output.stderr)?;
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.starts_with("error: failed printing to stdout: No space left on device"), "{said}");

    let mut closed = Command::new(program("masking")?).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    drop(closed.stdout.take());
    let output = closed.wait_with_output()?;
    assert_eq!((output.status.code(), output.stderr.len()), (Some(128 + 13), 0));
    Ok(())
}

/// Returns the error line of a library call that must fail.
fn line<T, E: std::fmt::Display>(result: std::result::Result<T, E>) -> String {
    let Err(error) = result else { panic!("the call succeeded") };
    let said = error.to_string();
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn batches() -> Result {
    let model = BertForPreTraining::new(&BertConfig::tiny(40), &Device::Cpu, 1)?;
    let forward = |ids: &[u32], types: &[u32]| model.bert.forward(&Batch::new(&[(ids, types)])?, Mode::Eval);
    let said = line(forward(&[1, 40], &[0, 0]));
    assert!(said.contains("token id 40") && said.contains("below 40") && said.starts_with("bert.embeddings"), "{said}");
    assert!(line(forward(&[1, 2], &[0, 2])).contains("token type 2"));
    let said = line(forward(&[1; 513], &[0; 513]));
    assert!(said.contains("513") && said.contains("512"), "{said}");

    let batch = Batch::new(&[(&[1u32, 2][..], &[0u32, 0][..])])?;
    let loss = |rows: Vec<u32>, labels: Vec<i64>, next_sentence: Vec<i64>| {
        model.loss(&batch, &PreTrainingTargets { rows, labels, next_sentence }, Mode::Eval)
    };
    assert!(line(loss(vec![2], vec![0], vec![])).contains("row index 2"));
    assert!(line(loss(vec![1], vec![40], vec![])).contains("label 40"));
    assert!(line(loss(vec![1], vec![-7], vec![])).contains("label -7"));
    assert!(line(loss(vec![1], vec![3], vec![2])).contains("label 2"));
    assert!(line(loss(vec![1, 0], vec![3], vec![0])).contains("1 targets"));
    Ok(())
}

#[test]
fn model_folders() -> Result {
    let folder = Folder::new()?;
    let config = BertConfig::tiny(40);
    BertForPreTraining::new(&config, &Device::Cpu, 1)?.save(folder.0.path())?;
    let weights = folder.path("model.safetensors");
    let whole = std::fs::read(&weights)?;
    let open = || line(BertForPreTraining::open(folder.0.path(), &Device::Cpu));

    std::fs::write(&weights, &whole[..whole.len() / 2])?;
    assert!(open().contains("model.safetensors"));
    std::fs::write(&weights, b"PK\x03\x04 a zip archive")?;
    assert!(open().contains("model.safetensors"));
    std::fs::write(&weights, &whole)?;

    let text = std::fs::read_to_string(folder.path("config.json"))?;
    std::fs::write(
        folder.path("config.json"),
        text.replace("\"num_attention_heads\": 2", "\"num_attention_heads\": 3"),
    )?;
    let said = open();
    assert!(said.contains("config.json") && said.contains("128") && said.contains('3'), "{said}");
    std::fs::write(folder.path("config.json"), text.replace("\"vocab_size\": 40", "\"vocab_size\": 41"))?;
    let said = open();
    assert!(said.contains("word_embeddings") && said.contains("[40, 128]") && said.contains("[41, 128]"), "{said}");
    std::fs::write(folder.path("config.json"), text.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"))?;
    let said = open();
    assert!(said.contains("encoder.layer.2") && said.contains("missing"), "{said}");
    std::fs::write(folder.path("config.json"), &text)?;
    BertForPreTraining::open(folder.0.path(), &Device::Cpu)?;
    Ok(())
}

/// Processes that a launcher starts together, of a program that cannot join them.
#[cfg(not(feature = "mpi"))]
#[test]
fn launchers_without_the_feature() -> Result {
    for name in ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"] {
        let output = Command::new(program("pretrain")?).args(["--steps", "1"]).env(name, "2").output()?;
        let said = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(1), "{said}");
        let expected = format!("error: ranks: 2 processes were started together ({name} is set), but this program was");
        assert!(said.starts_with(&expected) && said.contains("build it with --features mpi"), "{said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }
    Ok(())
}
