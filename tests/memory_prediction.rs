//! The memory that the trainer predicts before a run, against the peak of the run.
//!
//! The peak is that of a process, so each case runs in one of its own: this binary, called again. By default the cases are small;
//! `cargo test --release --test memory_prediction -- --ignored` adds models of the size of BERT-base. With `--nocapture` they
//! print the table of the book's page on memory.

use std::process::Command;

use cloze::bert::PreTrainingTargets;
use cloze::prelude::*;
use cloze::tensor::Sequences;
use cloze::train::{DataSet, Learn, LossTerm, Size, TrainingReport};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The variable that holds the case of a process that was started for one.
const CASE: &str = "CLOZE_MEMORY_CASE";

/// Model (with its number of layers, if it is not that of the configuration), task, examples and tokens per batch, batches per
/// step, precision.
type Case = (&'static str, usize, &'static str, usize, usize, usize, &'static str);

const SMALL: [Case; 4] = [
    ("mini", 0, "pretrain", 8, 8 * 128, 1, "f32"),
    ("mini", 0, "classify", 16, 16 * 40, 3, "bf16"),
    ("mini", 0, "classify, embeddings frozen", 16, 16 * 64, 1, "f32"),
    ("base", 1, "classify, average", 2, 2 * 128, 1, "bf16"),
];

const LARGE: [Case; 9] = [
    ("mini", 0, "pretrain", 32, 32 * 128, 1, "f32"),
    ("mini", 0, "pretrain", 8, 8 * 512, 2, "bf16"),
    ("mini", 0, "classify", 64, 64 * 40, 3, "bf16"),
    ("base", 1, "pretrain", 8, 8 * 64, 1, "f32"),
    ("base", 2, "classify", 4, 4 * 128, 2, "f32"),
    ("base", 0, "pretrain", 8, 8 * 128, 1, "f32"),
    ("base", 0, "pretrain", 8, 8 * 256, 1, "bf16"),
    ("base", 0, "classify", 16, 16 * 128, 1, "f32"),
    ("base", 0, "classify", 4, 4 * 384, 2, "bf16"),
];

/// Examples of tokens without meaning, of lengths between half of the longest and the longest.
struct Tokens {
    count: usize,
    length: usize,
    vocabulary: usize,
}

impl Tokens {
    fn length(&self, example: usize) -> usize {
        self.length - example * 7919 % (self.length / 2)
    }
}

/// A batch, and the rows of its masked tokens.
struct TokenBatch(Batch, PreTrainingTargets);

impl DataSet for Tokens {
    type Example = usize;
    type Batch = TokenBatch;

    fn epoch(&self, _: u32) -> cloze::train::Result<impl Iterator<Item = cloze::train::Result<usize>> + '_> {
        Ok((0..self.count).map(Ok))
    }

    fn batch(&self, examples: &[usize], _: u32, _: &[u32]) -> cloze::train::Result<TokenBatch> {
        let lengths: Vec<usize> = examples.iter().map(|&example| self.length(example)).collect();
        let tokens: usize = lengths.iter().sum();
        let ids = (0..tokens).map(|at| ((examples[0] * 13 + at * 7919) % self.vocabulary) as u32).collect();
        let rows: Vec<u32> = (0..tokens as u32).step_by(7).collect();
        let labels = rows.iter().map(|&row| i64::from(row) % self.vocabulary as i64).collect();
        let next_sentence = examples.iter().map(|&example| example as i64 % 2).collect();
        let batch = Batch::packed(ids, vec![0; tokens], Sequences::new(&lengths)?)?;
        Ok(TokenBatch(batch, PreTrainingTargets { rows, labels, next_sentence }))
    }

    fn size(&self, &example: &usize) -> Size {
        Size { sequences: 1, tokens: self.length(example) }
    }
}

impl Learn<TokenBatch> for BertForPreTraining {
    fn total_weights(&self, batch: &TokenBatch) -> Vec<f64> {
        vec![batch.1.rows.len() as f64]
    }

    fn loss_terms(&self, TokenBatch(batch, targets): &TokenBatch, mode: Mode) -> cloze::train::Result<Vec<LossTerm>> {
        Ok(vec![LossTerm::Mean(self.loss(batch, targets, mode)?.loss)])
    }
}

impl Learn<TokenBatch> for BertForSequenceClassification {
    fn total_weights(&self, batch: &TokenBatch) -> Vec<f64> {
        vec![batch.1.next_sentence.len() as f64]
    }

    fn loss_terms(&self, TokenBatch(batch, targets): &TokenBatch, mode: Mode) -> cloze::train::Result<Vec<LossTerm>> {
        let labels = cloze::bert::SequenceLabels::Classes(targets.next_sentence.clone());
        Ok(vec![LossTerm::Mean(self.loss(batch, &labels, mode)?)])
    }
}

/// Makes a run of three steps, and prints its prediction and its peak.
fn run((model, layers, task, examples, tokens, accumulate, precision): Case) -> Result {
    let mut config = BertConfig::by_name(model, 30_522)?;
    if layers > 0 {
        config.num_hidden_layers = layers;
    }
    let data = Tokens { count: 3 * examples * accumulate, length: tokens / examples, vocabulary: 30_522 };
    let precision: Precision = precision.parse()?;
    fn train<M: Learn<TokenBatch>>(
        mut model: M,
        data: &Tokens,
        set: impl FnOnce(Trainer<'_, M>) -> Trainer<'_, M>,
    ) -> Result<TrainingReport> {
        Ok(set(Trainer::new(&mut model).progress(false)).run(data)?)
    }
    fn settings<'m, M: Learn<TokenBatch>>(
        trainer: Trainer<'m, M>,
        (examples, accumulate, precision): (usize, usize, Precision),
        task: &str,
    ) -> Trainer<'m, M> {
        let trainer = trainer.batch_size(examples).accumulate(accumulate).precision(precision);
        let trainer = if task.contains("average") { trainer.average(0.9) } else { trainer };
        if task.contains("frozen") { trainer.freeze(|name| name.starts_with("bert.embeddings.")) } else { trainer }
    }
    let batching = (examples, accumulate, precision);
    let report = match task.starts_with("pretrain") {
        true => train(BertForPreTraining::new(&config, &Device::Cpu, 1)?, &data, |t| settings(t, batching, task))?,
        false => {
            let model = BertForSequenceClassification::new(&config, &Device::Cpu, 1)?;
            train(model, &data, |t| settings(t, batching, task))?
        }
    };
    let predicted = report.predicted_memory.ok_or("nothing was predicted")?;
    println!("CASE {} {} {predicted:?}", predicted.total(), report.peak_memory.unwrap_or(0));
    Ok(())
}

/// Runs the cases of a set in processes of their own, and checks that each prediction is within a tenth of the peak.
fn check(set: &str, cases: &[Case]) -> Result {
    println!(
        "| model | task | batch | steps of | precision | predicted | peak | error |\n|---|---|---|---|---|---|---|---|"
    );
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--exact", "a_case", "--ignored", "--nocapture"]).env(CASE, format!("{set} {number}"));
        let output = command.output()?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let line = printed.lines().find_map(|line| line.split("CASE ").nth(1));
        let line = line.ok_or_else(|| format!("{case:?}: {printed}{}", String::from_utf8_lossy(&output.stderr)))?;
        let numbers: Vec<f64> = line.split(' ').take(2).flat_map(|number| number.parse()).collect();
        let [predicted, peak] = numbers[..] else { return Err(line.into()) };
        if peak == 0.0 {
            println!("SKIPPED: the system does not report the peak of a process");
            return Ok(());
        }
        let (error, (model, layers, task, examples, tokens, accumulate, precision)) = (predicted / peak - 1.0, *case);
        let model = if layers > 0 { format!("{model}, {layers} layers") } else { model.to_string() };
        println!(
            "| {model} | {task} | {examples} x {} | {accumulate} | {precision} | {:.0} MB | {:.0} MB | {:+.1} % |",
            tokens / examples,
            predicted / 1e6,
            peak / 1e6,
            100.0 * error
        );
        if error.abs() > 0.1 {
            wrong.push(format!("{case:?}: predicted {predicted}, peak {peak}: {line}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn predictions_are_within_a_tenth_of_the_peak() -> Result {
    check("small", &SMALL)
}

#[test]
#[ignore = "takes minutes without optimisation: run it with --release"]
fn predictions_for_base_are_within_a_tenth_of_the_peak() -> Result {
    check("large", &LARGE)
}

#[test]
#[ignore = "the other tests call it, with a case"]
fn a_case() -> Result {
    let Ok(case) = std::env::var(CASE) else { return Ok(()) };
    let (set, number) = case.split_once(' ').ok_or("no number")?;
    let cases: &[Case] = if set == "small" { &SMALL } else { &LARGE };
    run(cases[number.parse::<usize>()?])
}

/// A run that cannot fit is refused before it begins, with what is needed, what there is and what would fit. It would need
/// 48 GiB.
#[test]
fn what_cannot_fit_is_refused() -> Result {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available =
        memory.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next()?.parse().ok());
    if available.is_none_or(|kibibytes: u64| kibibytes > 40 << 20) {
        println!("SKIPPED: the system has more memory than this run needs, or does not say");
        return Ok(());
    }
    let config = BertConfig { num_hidden_layers: 1, intermediate_size: 1 << 16, ..BertConfig::tiny(1000) };
    let mut model = BertForSequenceClassification::new(&config, &Device::Cpu, 1)?;
    let data = Tokens { count: 50_000, length: 64, vocabulary: 1000 };
    let trainer = Trainer::new(&mut model).progress(false).batch_size(50_000);
    let error = trainer.run(&data).map(drop).unwrap_err().to_string();
    println!("{error}");
    assert!(
        error.starts_with("memory: the run needs ") && error.contains(" more, ") && error.contains(" are available (")
    );
    assert!(error.contains("for a batch of 50000 examples with ") && error.contains(" tokens): set batch_size to "));
    assert!(error.ends_with(", or use shorter sequences; check_memory(false) trains anyway"), "{error}");
    let trainer = Trainer::new(&mut model).progress(false).batch_tokens(3_000_000);
    let error = trainer.run(&data).map(drop).unwrap_err().to_string();
    assert!(error.contains("): set batch_tokens to "), "{error}");
    Ok(())
}
