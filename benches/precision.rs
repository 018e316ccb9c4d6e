//! The accuracy cost of each [`Precision`] on real data: of a classifier trained and evaluated in f32, bf16 and int8,
//! and of sentence similarity. Prints a Markdown table for each.
//!
//! Run `CLOZE_DATA=DATA cargo bench -p cloze-benches --bench precision -- --minilm MODEL`. The folder MODEL contains
//! all-MiniLM-L6-v2. The folder DATA contains GLUE's SST-2 as sst2/train.tsv and sst2/dev.tsv, and the dev set of STS-B
//! as sts/stsb-en-dev.csv.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use cloze::bert::cosine_similarity;
use cloze::prelude::*;
use cloze::train::Cell;
use cloze::train::metrics::spearman;
use cloze_benches::{Result, Texts, median, testing, timed, tokenizer};

/// Measures the accuracy cost of precisions.
#[derive(Parser)]
struct Arguments {
    /// Folder with all-MiniLM-L6-v2
    #[arg(long)]
    minilm: Option<PathBuf>,
    /// Run only this part
    #[arg(long)]
    part: Option<Part>,
    /// Seeds to train with, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    seeds: Vec<u64>,
    /// Number of rows of SST-2 to train on, from the start of the file
    #[arg(long, default_value_t = 6400)]
    rows: usize,
    /// Run on a small amount of made-up data
    #[arg(long)]
    test: bool,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    Sst2,
    Sts,
}

const TRAIN: &str = "sst2/train.tsv";
const DEV: &str = "sst2/dev.tsv";
const STS: &str = "sts/stsb-en-dev.csv";
const DATA: &str =
    "set CLOZE_DATA to a folder with GLUE's SST-2 in sst2/ and the dev set of STS-B as sts/stsb-en-dev.csv";

/// Maximum number of tokens in a sentence. No sentence of SST-2 used here is longer.
const MAX_LENGTH: usize = 128;
const BATCH_SIZE: usize = 32;
/// Number of timings, whose median is reported.
const TIMINGS: usize = 3;

fn main() -> ExitCode {
    cloze_examples::exit_code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    let made_up = tempfile::tempdir()?;
    let (model, data) = if testing() {
        make_up(made_up.path())?;
        (made_up.path().to_path_buf(), made_up.path().to_path_buf())
    } else {
        let model = arguments.minilm.clone().ok_or("--minilm is missing: pass the folder of all-MiniLM-L6-v2")?;
        let data = std::env::var_os("CLOZE_DATA").ok_or(format!("CLOZE_DATA is not set: {DATA}"))?;
        (model, PathBuf::from(data))
    };
    let is_selected = |part| arguments.part.is_none_or(|only| only == part);
    check_exists(&model, "--minilm takes the folder of all-MiniLM-L6-v2")?;
    for (part, file) in [(Part::Sst2, TRAIN), (Part::Sst2, DEV), (Part::Sts, STS)] {
        if is_selected(part) {
            check_exists(&data.join(file), DATA)?;
        }
    }
    if is_selected(Part::Sst2) {
        println!("{}", sst2(arguments, &model, &data)?);
    }
    if is_selected(Part::Sts) {
        println!("{}", sts(&model, &data)?);
    }
    Ok(())
}

fn check_exists(path: &Path, hint: &str) -> Result {
    match path.exists() {
        true => Ok(()),
        false => Err(format!("missing: {}: {hint}", path.display()).into()),
    }
}

/// Fine-tunes the encoder on SST-2 for one epoch with each seed, in f32 and in bf16, and evaluates on the dev set.
fn sst2(arguments: &Arguments, model: &Path, data: &Path) -> Result<String> {
    let tokenizer = Tokenizer::open(model)?;
    let training = classes(&data.join(TRAIN), arguments.rows, &tokenizer)?;
    let dev = classes(&data.join(DEV), usize::MAX, &tokenizer)?;
    let mut table = String::from(
        "| seed | f32 | bf16 | difference, points | trained in f32, evaluated in bf16 | difference | evaluated in int8 | difference \
         | ms per step, f32 | bf16 |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let mut differences: [Vec<f64>; 3] = Default::default();
    for &seed in &arguments.seeds {
        let training = training.clone().seed(seed);
        let options = OpenOptions::new().labels(["negative", "positive"]).fresh_head().seed(seed);
        let train = |precision| -> Result<(BertForSequenceClassification, f64)> {
            let mut trained = BertForSequenceClassification::open_with(model, &Device::Cpu, &options)?;
            let trainer = Trainer::new(&mut trained).optimizer(AdamW::new(5e-5)).batch_size(BATCH_SIZE).epochs(1);
            let report = trainer.seed(seed).precision(precision).run(&training)?;
            let milliseconds = report.elapsed.as_secs_f64() * 1e3 / report.losses.len() as f64;
            Ok((trained, milliseconds))
        };
        let percent = |model: &BertForSequenceClassification, precision: Precision| -> Result<f64> {
            let found = precision.scope(|| ClassificationEvaluation::run(model, &dev, BATCH_SIZE))?;
            Ok(100.0 * found.accuracy()?)
        };
        let ((in_f32, f32_step), (in_bf16, bf16_step)) = (train(Precision::F32)?, train(Precision::Bf16)?);
        let base = percent(&in_f32, Precision::F32)?;
        let others = [
            percent(&in_bf16, Precision::Bf16)?,
            percent(&in_f32, Precision::Bf16)?,
            percent(&in_f32, Precision::Int8)?,
        ];
        table += &format!("| {seed} | {base:.2} % |");
        for (differences, other) in differences.iter_mut().zip(others) {
            table += &format!(" {other:.2} % | {:+.2} |", other - base);
            differences.push(other - base);
        }
        table += &format!(" {f32_step:.1} | {bf16_step:.1} |\n");
    }
    table += "| mean, standard error | |";
    for differences in &differences {
        table += &format!(" | {} |", mean_and_error(differences));
    }
    Ok(table + " | |\n")
}

/// Formats the mean, with its standard error if there is more than one value.
fn mean_and_error(values: &[f64]) -> String {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    match values.len() {
        1 => format!("{mean:+.2}"),
        _ => format!("{mean:+.2} ± {:.2}", (squares / (count - 1.0) / count).sqrt()),
    }
}

/// Reads the first rows of an SST-2 file.
fn classes(path: &Path, rows: usize, tokenizer: &Tokenizer) -> Result<LabelledData<i64>> {
    let rows = read_rows(path, &Columns::new())?.into_iter().take(rows);
    let clean = sanitize(&path.display().to_string(), rows, Some(&["0".into(), "1".into()]));
    if clean.dropped.total() > 0 {
        eprintln!("{}", clean.dropped);
    }
    Ok(LabelledData::of_texts(&clean.texts, clean.labels, tokenizer, MAX_LENGTH)?.0)
}

/// Correlates the cosines of sentence pairs with human scores, and times the embedding of the sentences.
fn sts(model: &Path, data: &Path) -> Result<String> {
    let pairs = scored_pairs(&data.join(STS))?;
    let sentences: Vec<&str> = pairs.iter().flat_map(|(first, second, _)| [first.as_str(), second.as_str()]).collect();
    let scores: Vec<f64> = pairs.iter().map(|(_, _, score)| *score).collect();
    let precisions = [Precision::F32, Precision::Bf16, Precision::Int8];
    let open = |precision| Ok(SentenceEmbedder::open(model)?.precision(precision));
    let embedders: Vec<SentenceEmbedder> = precisions.into_iter().map(open).collect::<Result<_>>()?;
    let mut coefficients = Vec::new();
    // This also packs the weights, so that the timings below do not include it.
    for embedder in &embedders {
        let vectors = embedder.embed(&sentences)?;
        let cosines: Vec<f64> = vectors.chunks_exact(2).map(|pair| cosine_similarity(&pair[0], &pair[1])).collect();
        coefficients.push(spearman(&cosines, &scores)?);
    }
    let mut seconds = [const { Vec::new() }; 3];
    for _ in 0..TIMINGS {
        for (embedder, seconds) in embedders.iter().zip(&mut seconds) {
            seconds.push(timed(|| embedder.embed(&sentences))?.as_secs_f64());
        }
    }
    let count = sentences.len();
    let mut table =
        format!("| precision | Spearman | difference | {count} sentences, s | sentences/s |\n|---|---|---|---|---|\n");
    for ((precision, coefficient), seconds) in precisions.iter().zip(&coefficients).zip(&mut seconds) {
        let (difference, median) = (coefficient - coefficients[0], median(seconds));
        let rate = count as f64 / median;
        table += &format!("| {precision} | {coefficient:.5} | {difference:+.5} | {median:.2} | {rate:.0} |\n");
    }
    Ok(table)
}

/// Reads the pairs of the dev set of STS-B, whose file has no header.
fn scored_pairs(path: &Path) -> Result<Vec<(String, String, f64)>> {
    let with_header = tempfile::Builder::new().suffix(".csv").tempfile()?;
    fs::write(&with_header, format!("first,second,score\n{}", fs::read_to_string(path)?))?;
    let columns = Columns::new().text("first").second_text("second").label("score");
    let pair = |row: cloze::train::Row| match (row.text, row.second_text, row.label) {
        (Cell::Json(first), Some(Cell::Json(second)), Cell::Json(score)) => {
            Some((first.as_str()?.to_string(), second.as_str()?.to_string(), score.as_f64()?))
        }
        _ => None,
    };
    read_rows(&with_header, &columns)?
        .into_iter()
        .map(|row| {
            let line = row.line - 1;
            pair(row)
                .ok_or_else(|| format!("{}: line {line}: expected two sentences and a score", path.display()).into())
        })
        .collect()
}

/// Creates a small model with random weights, and a small amount of data in the format of the real files.
fn make_up(folder: &Path) -> Result {
    let tokenizer = tokenizer()?;
    SentenceEncoder::new(&BertConfig::tiny(tokenizer.vocab_size()), &Device::Cpu, 7)?.save(folder)?;
    tokenizer.save(folder)?;
    let mut texts = Texts::new();
    let mut sentence = |number: usize| texts.sentence(3 + number % 9).replace(',', "");
    let rows: String = (0..64).map(|number| format!("{}\t{}\n", sentence(number), number % 2)).collect();
    let pairs: String =
        (0..32).map(|number| format!("{},{},{}.0\n", sentence(number), sentence(number), number % 6)).collect();
    fs::create_dir(folder.join("sst2"))?;
    fs::create_dir(folder.join("sts"))?;
    for file in [TRAIN, DEV] {
        fs::write(folder.join(file), format!("sentence\tlabel\n{rows}"))?;
    }
    Ok(fs::write(folder.join(STS), pairs)?)
}
