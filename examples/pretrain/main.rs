//! Pre-trains a BERT on raw text: masked words and next sentences (section 5.4 of the course).
//!
//! With no arguments, a tiny one from scratch on a small corpus of English and Portuguese sentences. On text
//! of your own: `--corpus FILE` (a sentence a line, a blank line between documents) or `--corpus FOLDER`
//! (a prose file a document); `--model` goes on from the weights of a model that was pre-trained before, for text of one domain.

mod batches;
#[path = "../common/mod.rs"]
mod common;
mod inspect;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use cloze::prelude::*;
use cloze::tensor::random::{Purpose, Stream};
use cloze::train::{Budget, LengthWarmup, PairExample, Step, Stopped, TokenizedCorpus, VocabularyTable};
use common::{DeviceArgument, Result};
use serde::Serialize;

/// Pre-trains a BERT on raw text: masked words and next sentences.
#[derive(Parser, Serialize)]
struct Arguments {
    /// A file (a sentence a line, a blank line between documents) or a folder of prose files [default: a small
    /// corpus that comes with this example]
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// Keep the tokens of the corpus in this folder, and read them from there the next time: for text that is larger
    /// than memory
    #[arg(long, requires = "corpus")]
    cache: Option<PathBuf>,
    /// Start from the weights and with the tokenizer of this model, a folder or a name on the Hugging Face Hub, not from random ones
    #[arg(long, value_name = "DIR_OR_NAME", conflicts_with_all = ["config", "vocab", "vocab_size", "cased", "accents"])]
    model: Option<PathBuf>,
    /// Size of the model: tiny, mini, base or large
    #[arg(long, default_value = "tiny")]
    config: String,
    /// A vocab.txt, or a folder with a tokenizer; instead of training one
    #[arg(long, conflicts_with = "vocab_size")]
    vocab: Option<PathBuf>,
    /// Most tokens of the vocabulary that is trained
    #[arg(long, default_value_t = 8000)]
    vocab_size: usize,
    /// Keep upper case and accents
    #[arg(long)]
    cased: bool,
    /// Keep accents, in lower case
    #[arg(long, conflicts_with = "cased")]
    accents: bool,
    /// Draw this many sentence pairs once, as the course does, and train on nine tenths of them; without it,
    /// segments are filled to the length limit, as BERT does, and whole documents are held out [default for
    /// the small corpus: 1000]
    #[arg(long)]
    pairs: Option<usize>,
    /// Sequences in a batch [default: 8 with pairs, 16 without]
    #[arg(long)]
    batch: Option<usize>,
    /// Most tokens of a sequence
    #[arg(long, default_value_t = 64)]
    seq_len: usize,
    /// Passes over the data [default: 60 with pairs, 1 without]
    #[arg(long, conflicts_with_all = ["steps", "minutes"])]
    epochs: Option<u32>,
    /// Optimizer steps
    #[arg(long, conflicts_with = "minutes")]
    steps: Option<u32>,
    /// Minutes of training: up to 20 steps are timed to find how many fit
    #[arg(long)]
    minutes: Option<f64>,
    /// Peak learning rate [default: 1e-3 for tiny, 5e-4 for mini, 1e-4 for base and large, 5e-5 with --model]
    #[arg(long)]
    lr: Option<f64>,
    /// Dropout of hidden states and attention [default: as the model of --model says; else 0.1 with pairs, which are
    /// seen many times, and 0 without]
    #[arg(long, value_parser = common::dropout)]
    dropout: Option<f64>,
    /// What matrix products are computed in: f32; bf16, which GPUs and processors with AVX512-BF16 compute faster; or f16, for GPUs without bf16
    #[arg(long, default_value_t = Precision::F32)]
    precision: Precision,
    /// Also print where the time of training went, by operation
    #[arg(long)]
    profile: bool,
    #[command(flatten)]
    device: DeviceArgument,
    /// Seed of everything random
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Threads; the result does not depend on them [default: one a core]
    #[arg(long)]
    threads: Option<usize>,
    /// Save the model and its tokenizer to this folder, and on the way checkpoints, a log and a report
    #[arg(long)]
    out: Option<PathBuf>,
    /// Go on where a run that was stopped left its last checkpoint in the folder of --out; one that was begun with
    /// --minutes says at its start for which --steps that is
    #[arg(long, requires = "out", conflicts_with = "minutes")]
    resume: bool,
    /// Steps between two checkpoints
    #[arg(long, default_value_t = 1000)]
    checkpoint_every: u32,
    /// Type of the weights that are saved
    #[arg(long, default_value = "f32", value_parser = ["f32", "bf16", "f16"])]
    dtype: String,
    /// Sentence pairs to inspect, as JSON: [{"a": "..", "b": ".. [MASK] .."}, ..]
    #[arg(long)]
    inspect: Option<PathBuf>,
    /// Before training, write the batches that it trains and evaluates on to this file, one a line, as JSON: for another
    /// library to do the same
    #[arg(long)]
    write_batches: Option<PathBuf>,
    /// Also write what is printed to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Arguments {
    /// Number of sentence pairs that are drawn once, if they are.
    fn pairs(&self) -> Option<usize> {
        self.pairs.or(self.corpus.is_none().then_some(1000))
    }

    /// What to call the model.
    fn name(&self) -> String {
        let name = |place: &PathBuf| place.file_name().unwrap_or(place.as_os_str()).to_string_lossy().into_owned();
        self.model.as_ref().map_or_else(|| self.config.clone(), name)
    }

    fn learning_rate(&self) -> f64 {
        self.lr.unwrap_or(match self.config.as_str() {
            _ if self.model.is_some() => 5e-5,
            "tiny" => 1e-3,
            "mini" => 5e-4,
            _ => 1e-4,
        })
    }

    fn tokenizer_options(&self) -> TokenizerOptions {
        let options = TokenizerOptions::default().lowercase(!self.cased);
        if self.accents { options.strip_accents(false) } else { options }
    }

    fn save_options(&self) -> SaveOptions {
        SaveOptions::new().dtype(match self.dtype.as_str() {
            "bf16" => DType::BF16,
            "f16" => DType::F16,
            _ => DType::F32,
        })
    }
}

/// Part of the steps in which the learning rate rises.
const WARMUP: f64 = 0.02;

/// Parts of the steps with sequences of a quarter of the length, and of half of it: they come first.
const SHORT: (f64, f64) = (0.25, 0.15);

/// What `--json` writes.
#[derive(Serialize)]
struct Report<'a> {
    arguments: &'a Arguments,
    parameters: usize,
    steps: u32,
    tokens: usize,
    seconds: f64,
    losses: &'a [f64],
    mean_of_last_100: f64,
    held_out: Option<report::HeldOut>,
    inspected: &'a [inspect::Inspected],
}

fn main() -> ExitCode {
    common::exit::code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    common::threads(arguments.threads)?;
    common::check_json(arguments.json.as_deref())?;
    let pairs_to_inspect = inspect::pairs(arguments.inspect.as_deref())?;
    if let Some(out) = &arguments.out {
        common::check_writable(out)?;
    }

    let start = Instant::now();
    // Text that goes through a cache is never in memory as a whole.
    let cached = arguments.cache.as_ref().zip(arguments.corpus.as_ref());
    let text = match &arguments.corpus {
        Some(_) if cached.is_some() => None,
        Some(path) => Some(Corpus::open(path)?),
        None => Some(common::mini_corpus()?),
    };
    let (read, vocabulary) = (start.elapsed(), Instant::now());
    let tokenizer = tokenizer(arguments, text.as_ref())?;
    let (trained, tokenizing) = (vocabulary.elapsed(), Instant::now());
    let mut model = model(arguments, &tokenizer)?;
    let corpus = match (&text, cached) {
        (Some(text), _) => TokenizedCorpus::new(text, &tokenizer)?,
        (None, cached) => {
            let (cache, path) = cached.ok_or("--cache needs --corpus")?;
            TokenizedCorpus::cached([path], &tokenizer, cache)?
        }
    };
    drop(text);
    let (documents, sentences) = (corpus.document_count(), corpus.sentence_count());
    let setup = Setup::new(arguments, corpus, &tokenizer, model.config())?;
    println!(
        "{documents} documents, {sentences} sentences, {} tokens\nread in {:.1?}, vocabulary of {} in {:.1?}, \
         tokenized and sampled in {:.1?}",
        setup.tokens,
        read,
        tokenizer.vocab_size(),
        trained,
        tokenizing.elapsed(),
    );

    let (parameters, threads) = (model.parameter_count(), rayon::current_num_threads());
    println!("{} BERT: {parameters} parameters, {threads} threads", arguments.name());
    let held_out = report::HeldOutText::new(&setup.held_out, &setup.evaluation, &setup.unigram);
    let dropout = common::dropout_of(model.config());
    let mut trainer = Trainer::new(&mut model)
        .setting("dropout", dropout)
        .optimizer(AdamW::new(arguments.learning_rate()))
        .schedule(Schedule::Linear { warmup: WARMUP })
        .clip_norm(1.0)
        .precision(arguments.precision)
        .batch_size(setup.batch)
        .budget(setup.budget)
        .seed(arguments.seed);
    let steps = trainer.count_steps(&setup.training)?;
    if let Budget::Time(time) = setup.budget {
        println!("{steps} steps fit into {:.1} minutes; --steps {steps} is the same run", time.as_secs_f64() / 60.0);
    }
    // Pairs of sentences are short anyway, and a model that was trained knows what is next to what.
    let is_short_first = arguments.pairs().is_none() && arguments.model.is_none();
    let places = |part: f64| if is_short_first { (part * f64::from(steps)) as usize * setup.batch } else { 0 };
    let training = LengthWarmup::new(setup.training, places(SHORT.0), places(SHORT.1));
    if let Some(every) = held_out.every(steps) {
        trainer = trainer.evaluate(every, |model| held_out.evaluate(model));
    }
    if let Some(path) = &arguments.write_batches {
        let evaluation = report::last_examples(&setup.evaluation);
        batches::write(path, &training, (steps, setup.batch), (&setup.held_out, evaluation))?;
    }
    let page = match &arguments.out {
        Some(out) => {
            let every = Every::Steps(arguments.checkpoint_every);
            trainer = trainer.directory(out).resume(arguments.resume).checkpoint(every, 2);
            out.join("report.html")
        }
        None => common::default_page("pretrain")?,
    };
    let mut log = report::Log::default();
    trainer = trainer.steps(steps).report(&page).stop_on_signals();
    let train = || trainer.run_with(&training, |_, step: &Step| log.step(step));
    let (trained, profile) = if arguments.profile {
        let (trained, profile) = profile(train);
        (trained?, Some(profile))
    } else {
        (train()?, None)
    };
    println!(
        "{} steps, {} tokens in {:.1} s: {:.0} tokens/s; mean loss of the last 100 steps {:.4}",
        trained.losses.len(),
        trained.tokens,
        trained.elapsed.as_secs_f64(),
        trained.tokens as f64 / trained.elapsed.as_secs_f64(),
        trained.mean_of_last(100),
    );
    if let Some(profile) = profile {
        println!("\n{profile}");
    }
    println!("report: {}", page.display());
    if trained.stopped == Some(Stopped::BySignal) {
        let goes_on = if arguments.out.is_some() {
            format!(" after a checkpoint: --resume --steps {steps} goes on")
        } else {
            "; nothing is kept".into()
        };
        println!("\nstopped{goes_on}");
        return Ok(());
    }
    let held_out = held_out.at_the_end(&model)?;
    let inspected = inspect::run(&model, &tokenizer, &pairs_to_inspect)?;

    if let Some(out) = &arguments.out {
        model.save_with(out, &arguments.save_options())?;
        tokenizer.save(out)?;
        println!("\nsaved to {}", out.display());
    }
    let report = Report {
        arguments,
        parameters,
        steps: trained.losses.len() as u32,
        tokens: trained.tokens,
        seconds: trained.elapsed.as_secs_f64(),
        losses: &trained.losses,
        mean_of_last_100: trained.mean_of_last(100),
        held_out,
        inspected: &inspected,
    };
    common::write_json(arguments.json.as_deref(), &report)
}

/// The model of `--model`, or a new one.
fn model(arguments: &Arguments, tokenizer: &Tokenizer) -> Result<BertForPreTraining> {
    let (device, seed) = (&arguments.device.device, arguments.seed);
    if let Some(place) = &arguments.model {
        let options = OpenOptions::new().seed(seed).dropout(arguments.dropout);
        let (model, report) = BertForPreTraining::open_with(place, device, &options)?;
        println!("{}: {report}", arguments.name());
        tokenizer.check_vocab_size(model.config())?;
        return Ok(model);
    }
    let dropout = arguments.dropout.unwrap_or(if arguments.pairs().is_some() { 0.1 } else { 0.0 });
    let config = BertConfig {
        hidden_dropout_prob: dropout,
        attention_probs_dropout_prob: dropout,
        ..BertConfig::by_name(&arguments.config, tokenizer.vocab_size())?
    };
    Ok(BertForPreTraining::new(&config, device, seed)?)
}

fn tokenizer(arguments: &Arguments, text: Option<&Corpus>) -> Result<Tokenizer> {
    let options = arguments.tokenizer_options();
    if let Some(place) = &arguments.model {
        return Ok(Tokenizer::open(place)?);
    }
    Ok(match (&arguments.vocab, text) {
        (Some(path), _) if path.is_dir() => Tokenizer::open(path)?,
        (Some(path), _) => Tokenizer::from_vocab_file(path, &options)?,
        (None, Some(text)) => Tokenizer::train(text.sentences(), arguments.vocab_size, &TrainOptions::from(options))?,
        (None, None) => return Err("--cache needs --vocab or --model".into()),
    })
}

/// Data to train on, data held out, and for how long.
struct Setup {
    training: PreTraining,
    held_out: PreTraining,
    evaluation: Vec<PairExample>,
    unigram: Unigram,
    tokens: usize,
    batch: usize,
    budget: Budget,
}

/// Part of the documents, or with `--pairs` of the pairs, that is held out.
const HELD_OUT: (f64, f64) = (0.05, 0.1);

impl Setup {
    fn new(
        arguments: &Arguments,
        corpus: TokenizedCorpus,
        tokenizer: &Tokenizer,
        config: &BertConfig,
    ) -> Result<Setup> {
        let (pairs, seq_len) = (arguments.pairs(), arguments.seq_len);
        if seq_len > config.max_position_embeddings {
            let limit = config.max_position_embeddings;
            let name = arguments.name();
            return Err(format!("--seq-len is {seq_len}: max_position_embeddings of {name} is {limit}").into());
        }
        let (tokens, seed) = (corpus.token_count(), arguments.seed);
        let vocabulary = VocabularyTable::new(tokenizer)?;
        let data = |corpus, sampler| PreTraining::from_tokenized(corpus, vocabulary.clone()).pairs(sampler).seed(seed);
        let (training, held_out, evaluation) = match pairs {
            Some(pairs) => {
                let data = data(corpus, PairSampler::course(pairs).seq_len(seq_len));
                let mut drawn = data.epoch(0)?;
                let trained = drawn.len() - (drawn.len() as f64 * HELD_OUT.1) as usize;
                let evaluation = drawn.split_off(trained);
                (data.clone().examples(drawn), data, evaluation)
            }
            None => {
                let documents = corpus.document_count();
                if documents < 4 {
                    return Err(format!(
                        "the corpus has {documents} document(s): at least 4 are needed, 2 to train on and 2 to hold out, so \
                         that sentences of other documents can be drawn; --pairs N holds out pairs instead"
                    )
                    .into());
                }
                let (training, held_out) = corpus.split(HELD_OUT.0.max(2.0 / documents as f64), seed)?;
                let held_out = data(held_out, PairSampler::bert().seq_len(seq_len));
                let mut evaluation = held_out.evaluation()?;
                Stream::new(seed, Purpose::User, 0, 0, 0).shuffle(&mut evaluation);
                (data(training, PairSampler::bert().seq_len(seq_len)), held_out, evaluation)
            }
        };
        let unigram = Unigram::fit(training.corpus().ids(), tokenizer.vocab_size())?;
        let budget = match (arguments.steps, arguments.minutes) {
            (Some(steps), _) => Budget::Steps(steps),
            (_, Some(minutes)) => Budget::Time(Duration::try_from_secs_f64(minutes * 60.0).map_err(|_| {
                format!("--minutes is {minutes}: must be 0 or more, and no longer than time is counted")
            })?),
            _ => Budget::Epochs(arguments.epochs.unwrap_or(if pairs.is_some() { 60 } else { 1 })),
        };
        let batch = arguments.batch.unwrap_or(if pairs.is_some() { 8 } else { 16 });
        Ok(Setup { training, held_out, evaluation, unigram, tokens, batch, budget })
    }
}
