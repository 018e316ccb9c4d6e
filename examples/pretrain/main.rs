//! Pre-trains BERT on raw text: masked words and, by default, next sentences (section 5.4 of the course).
//!
//! Without arguments, trains a tiny model from scratch on a small corpus of English and Portuguese sentences. To train
//! on your own text, use `--corpus FILE` (a sentence per line, a blank line between documents) or `--corpus FOLDER`
//! (each file a document of prose). With `--model`, training continues from an existing model, for example on text of a
//! special domain.

mod arguments;
mod batches;
mod held_out;
mod inspect;
mod log;
mod model;
mod setup;

use std::path::Path;
use std::process::ExitCode;

use cloze::prelude::*;
use cloze::train::{Budget, LengthWarmup, Stopped, TrainingReport};
use cloze_examples::Result;
use serde::Serialize;

use arguments::Arguments;
use held_out::HeldOutText;
use model::Pretrained;
use setup::Setup;

/// Fractions of the steps, at the start, with sequences of a quarter of the length and then of half of it.
const QUARTER_LENGTH: f64 = 0.25;
const HALF_LENGTH: f64 = 0.15;

/// The contents of the file of `--json`.
#[derive(Serialize)]
struct Report<'a> {
    arguments: &'a Arguments,
    parameters: usize,
    steps: u32,
    tokens: usize,
    seconds: f64,
    losses: &'a [f64],
    mean_of_last_100: f64,
    held_out: Option<held_out::HeldOut>,
    inspected: &'a [inspect::Inspected],
}

fn main() -> ExitCode {
    cloze_examples::exit_code(|| {
        let arguments: Arguments = cloze_examples::parse();
        if arguments.no_nsp { run::<BertForMaskedLM>(&arguments) } else { run::<BertForPreTraining>(&arguments) }
    })
}

fn run<M: Pretrained>(arguments: &Arguments) -> Result {
    arguments.ranks.join(&arguments.device)?;
    cloze_examples::set_threads(arguments.threads)?;
    cloze_examples::check_json(arguments.json.as_deref())?;
    let pairs_to_inspect = inspect::pairs(arguments.inspect.as_deref())?;
    arguments.out.as_deref().map_or(Ok(()), cloze_examples::check_folder)?;
    arguments.masking.masking(1).check()?;

    let Setup::<M> { tokenizer, mut model, training, held_out, budget } = Setup::new(arguments)?;
    let (parameters, threads) = (model.parameter_count(), rayon::current_num_threads());
    println!("{} BERT: {parameters} parameters, {threads} threads", arguments.name());
    let trained = train(arguments, &mut model, training, &held_out, budget)?;
    // Rank 0 does the rest alone.
    if trained.stopped == Some(Stopped::BySignal) || cloze_examples::ranks().rank() > 0 {
        return Ok(());
    }
    let held_out = held_out.evaluate_finally(&model)?;
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
    cloze_examples::write_json(arguments.json.as_deref(), &report)
}

/// Trains the model, and prints how it went.
fn train(
    arguments: &Arguments,
    model: &mut impl Pretrained,
    training: PreTraining,
    held_out: &HeldOutText,
    budget: Budget,
) -> Result<TrainingReport> {
    let mut trainer = trainer(arguments, model).budget(budget);
    let steps = trainer.count_steps(&training)?;
    if let Budget::Time(time) = budget {
        println!("{steps} steps fit into {:.1} minutes; --steps {steps} repeats this run", time.as_secs_f64() / 60.0);
    }
    let masking = arguments.masking.masking(steps);
    trainer = trainer.setting("masking", &masking);
    if let (Some(_), Some(print)) = (&arguments.held_out, held_out.fingerprint()) {
        trainer = trainer.setting("held-out text", format!("fingerprint {print:016x}"));
    }
    let training = length_warmup(arguments, training.masking(masking), steps);
    if let Some(every) = held_out.every(steps) {
        trainer = trainer.evaluate(every, |model| held_out.evaluate(model));
    }
    if let (Some(path), 0) = (&arguments.write_batches, cloze_examples::ranks().rank()) {
        batches::write(path, &training, steps, |step| arguments.batch_of_step(step, steps), held_out)?;
    }
    let page = match &arguments.out {
        Some(out) => {
            let every = Every::Steps(arguments.checkpoint_every);
            trainer = trainer.directory(out).resume(arguments.resume).checkpoint(every, 2);
            out.join("report.html")
        }
        None => cloze_examples::new_page("pretrain")?,
    };
    let mut log = log::Log::new(steps);
    trainer = trainer.steps(steps).report(&page).stop_on_signals();
    let train = || trainer.run_with(&training, |_, step| log.step(step));
    let (trained, profile) = if arguments.profile {
        let (trained, profile) = profile(train);
        (trained, Some(profile))
    } else {
        (train(), None)
    };
    let trained = trained.inspect_err(|_| cloze_examples::remove_empty(&page))?;
    print_end(&trained, profile, &page);
    if trained.stopped == Some(Stopped::BySignal) {
        match arguments.out {
            Some(_) => println!("\nstopped after saving a checkpoint: continue with --resume --steps {steps}"),
            None => println!("\nstopped; nothing was saved"),
        }
    }
    Ok(trained)
}

/// Returns a trainer with the settings of the command line.
fn trainer<'m, M: Pretrained>(arguments: &Arguments, model: &'m mut M) -> Trainer<'m, M> {
    let dropout = cloze_examples::describe_dropout(model.config());
    let adamw = AdamW::new(arguments.learning_rate(model.config())).weight_decay(arguments.weight_decay);
    let trainer = Trainer::new(model)
        .setting("dropout", dropout)
        .optimizer(adamw)
        .schedule(arguments.schedule())
        .clip_norm(1.0)
        .precision(arguments.precision)
        .batch_size(arguments.batch())
        .seed(arguments.seed)
        .communicator(cloze_examples::ranks())
        .reduce_dtype(arguments.ranks.reduce_dtype())
        .check_memory(!arguments.no_memory_check);
    match arguments.batch_ramp() {
        Some(ramp) => trainer.batch_ramp(ramp),
        None => trainer,
    }
}

/// Shortens the sequences of the first steps. Pairs of sentences are short anyway, and an existing model has already
/// learned what short sequences teach.
fn length_warmup(arguments: &Arguments, training: PreTraining, steps: u32) -> LengthWarmup {
    if arguments.pairs().is_some() || arguments.model.is_some() {
        return LengthWarmup::new(training, 0, 0);
    }
    let part = |fraction: f64| (fraction * f64::from(steps)) as u32;
    let (quarter, half) = (part(QUARTER_LENGTH), part(HALF_LENGTH));
    let examples = |range: std::ops::Range<u32>| range.map(|step| arguments.batch_of_step(step, steps)).sum();
    LengthWarmup::new(training, examples(0..quarter), examples(quarter..quarter + half))
}

fn print_end(trained: &TrainingReport, profile: Option<cloze::tensor::Profile>, page: &Path) {
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
}
