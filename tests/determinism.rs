//! The same seed gives the same bits: for any number of threads, in every precision, at every SIMD level. Where bits may differ,
//! in a step that is divided otherwise or at another SIMD level, the losses agree.

use std::process::Command;

use cloze::prelude::*;
use cloze::tensor::{Dropout, Sequences};
use cloze_examples::built_in::random_corpus;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A run of pre-training, tokenizer and model included.
#[derive(Clone, Copy)]
struct Run {
    seed: u64,
    steps: u32,
    batch_size: usize,
    accumulate: usize,
    precision: Precision,
    /// The number of threads of its pool; `None` is the global pool.
    threads: Option<usize>,
}

/// Two epochs and more, so that the order of the next one counts too.
const RUN: Run = Run { seed: 3, steps: 15, batch_size: 16, accumulate: 1, precision: Precision::F32, threads: None };

impl Run {
    fn with_threads(self, threads: usize) -> Run {
        Run { threads: Some(threads), ..self }
    }

    /// Returns the loss of each step, and the bits of all parameters afterwards.
    fn train(self) -> Result<(Vec<f64>, Vec<u32>)> {
        match self.threads {
            Some(threads) => {
                rayon::ThreadPoolBuilder::new().num_threads(threads).build()?.install(|| self.train_here())
            }
            None => self.train_here(),
        }
    }

    fn train_here(self) -> Result<(Vec<f64>, Vec<u32>)> {
        let corpus = random_corpus()?;
        let tokenizer = Tokenizer::train(corpus.sentences(), 1000, &TrainOptions::new())?;
        let mut model = BertForPreTraining::new(&BertConfig::tiny(tokenizer.vocab_size()), &Device::Cpu, self.seed)?;
        let data = PreTraining::new(&corpus, &tokenizer)?.seq_len(64).seed(self.seed);
        let trainer = Trainer::new(&mut model).optimizer(AdamW::new(1e-3)).precision(self.precision);
        let trainer = trainer.batch_size(self.batch_size).accumulate(self.accumulate).steps(self.steps).seed(self.seed);
        let losses = trainer.progress(false).run(&data)?.losses;
        let mut bits = Vec::new();
        for (_, parameter) in model.named_parameters() {
            bits.extend(parameter.to_vec::<f32>()?.into_iter().map(f32::to_bits));
        }
        Ok((losses, bits))
    }
}

/// Returns the largest difference of two losses of a step, relative to the loss.
fn difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| ((a - b) / a).abs()).fold(0.0, f64::max)
}

#[test]
fn weights_do_not_depend_on_the_number_of_threads() -> Result {
    let one = RUN.with_threads(1).train()?;
    for threads in [2, 3, 8] {
        assert!(one == RUN.with_threads(threads).train()?, "1 and {threads} threads");
    }
    assert!(one == RUN.train()?, "1 thread and the global pool");
    let first = |seed| Run { seed, steps: 1, ..RUN }.train();
    assert!(first(3)? != first(4)?, "seeds 3 and 4");
    Ok(())
}

#[test]
fn in_bf16_weights_do_not_depend_on_the_number_of_threads() -> Result {
    let run = Run { steps: 4, precision: Precision::Bf16, ..RUN };
    let one = run.with_threads(1).train()?;
    for threads in [2, 3, 8] {
        assert!(one == run.with_threads(threads).train()?, "1 and {threads} threads");
    }
    let in_f32 = Run { precision: Precision::F32, ..run }.train()?;
    let difference = difference(&in_f32.0, &one.0);
    println!("bf16 and f32: losses of {} steps differ by {difference:.1e}", run.steps);
    assert!(one.1 != in_f32.1 && difference < 1e-2, "{difference}");
    Ok(())
}

/// A division of a step into batches changes the order of its sums, and nothing else: the same examples, masks and dropout.
#[test]
fn a_step_may_be_divided() -> Result {
    let run = Run { steps: 5, ..RUN };
    let (whole, _) = run.train()?;
    for accumulate in [2, 4, 16] {
        let divided = Run { batch_size: 16 / accumulate, accumulate, ..run };
        let (losses, bits) = divided.train()?;
        let difference = difference(&whole, &losses);
        println!("1 batch of 16 and {accumulate} of {}: losses of 5 steps differ by {difference:.1e}", 16 / accumulate);
        assert!(difference < 1e-4, "{accumulate}: {difference}");
        assert!(accumulate != 4 || bits == divided.with_threads(3).train()?.1, "{accumulate} batches on 3 threads");
    }
    let other = Run { seed: 4, ..run }.train()?.0;
    assert!(difference(&whole, &other) > 1e-3, "a run with another seed could not be told");
    Ok(())
}

/// The variable that chooses the instructions, which a process reads once.
const SIMD: &str = "CLOZE_SIMD";
/// The variable with the file for the weights.
const WEIGHTS: &str = "CLOZE_TEST_WEIGHTS";
const ANSWER: &str = "ANSWER ";

#[test]
#[ignore = "run by the next test in processes of their own"]
fn process() -> Result {
    let run = Run { steps: 5, threads: Some(1), ..RUN };
    let (losses, bits) = run.train()?;
    assert!(bits == run.with_threads(3).train()?.1, "1 and 3 threads");
    let losses: Vec<String> = losses.iter().map(f64::to_string).collect();
    let bytes: Vec<u8> = bits.into_iter().flat_map(u32::to_le_bytes).collect();
    std::fs::write(std::env::var(WEIGHTS)?, bytes)?;
    println!("\n{ANSWER}{}", losses.join(" "));
    Ok(())
}

/// Returns the distance of two lists of f32, relative to the norm of the first.
fn distance(a: &[u8], b: &[u8]) -> f64 {
    let numbers = |bytes: &[u8]| -> Vec<f64> {
        let (parts, _) = bytes.as_chunks();
        parts.iter().map(|&part| f32::from_le_bytes(part).into()).collect()
    };
    let (a, b) = (numbers(a), numbers(b));
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let difference: f64 = a.iter().zip(&b).map(|(a, b)| square(a - b)).sum();
    (difference / a.iter().copied().map(square).sum::<f64>()).sqrt()
}

/// At each level, bits do not depend on the threads; between levels, the losses agree.
#[test]
fn simd_levels_agree() -> Result {
    let folder = tempfile::tempdir()?;
    let weights = folder.path().join("weights");
    let mut found: Vec<(&str, Vec<f64>, Vec<u8>)> = Vec::new();
    for level in ["baseline", "avx2", "avxvnni", "avx512", "dotprod", "i8mm"] {
        let mut process = Command::new(std::env::current_exe()?);
        process.args(["--exact", "process", "--ignored", "--nocapture"]).env(SIMD, level).env(WEIGHTS, &weights);
        let output = process.output()?;
        let (said, stderr) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr).into_owned());
        if stderr.contains("CLOZE_SIMD: ") {
            println!("SKIPPED: this processor has no {level}");
            continue;
        }
        let losses = said.lines().find_map(|line| line.strip_prefix(ANSWER));
        let losses = losses.ok_or_else(|| format!("{level}: {said}{stderr}"))?;
        let losses: Vec<f64> = losses.split(' ').map(str::parse::<f64>).collect::<std::result::Result<_, _>>()?;
        found.push((level, losses, std::fs::read(&weights)?));
    }
    for (number, (level, losses, weights)) in found.iter().enumerate() {
        for (other, others, other_weights) in &found[..number] {
            let (losses, weights) = (difference(losses, others), distance(weights, other_weights));
            println!("{level} and {other}: losses of 5 steps differ by {losses:.1e}, weights by {weights:.1e}");
            assert!(losses < 1e-4 && weights < 1e-3, "{level} and {other}: {losses}, {weights}");
        }
    }
    Ok(())
}

/// A padded batch is packed at the edge, so it has the bits of the packed one.
#[test]
fn padding_changes_no_bit() -> Result {
    let model = BertForPreTraining::new(&BertConfig::tiny(40), &Device::Cpu, 1)?;
    let packed = Batch::packed(vec![5, 6, 7, 8, 9], vec![0; 5], Sequences::numbered(&[2, 3], &[0, 1])?)?;
    let padded = Batch::from_padded(&[5, 6, 0, 0, 7, 8, 9, 0], &[0; 8], &[1, 1, 0, 0, 1, 1, 1, 0], 4)?;
    for mode in [Mode::Eval, Mode::Train { seed: 2, step: 3 }] {
        let hidden = |batch: &Batch| -> Result<Vec<f32>> { Ok(model.bert.forward(batch, mode)?.to_vec()?) };
        assert_eq!(hidden(&packed)?, hidden(&padded)?, "{mode:?}");
    }
    Ok(())
}

/// The hidden states of a sequence, including dropout, do not depend on the other sequences in the batch.
#[test]
fn sequences_do_not_see_their_batch() -> Result {
    let model = BertForPreTraining::new(&BertConfig::tiny(40), &Device::Cpu, 1)?;
    let lengths = [5, 1, 9];
    let ids: Vec<u32> = (0..15).map(|i| i * 7 % 40).collect();
    let sequences = Sequences::numbered(&lengths, &[4, 0, 7])?;
    let batch = Batch::packed(ids.clone(), vec![0; 15], sequences)?;
    let alone = Batch::packed(ids[6..].to_vec(), vec![0; 9], Sequences::numbered(&[9], &[7])?)?;
    for mode in [Mode::Eval, Mode::Train { seed: 2, step: 3 }] {
        let together = model.bert.forward(&batch, mode)?.narrow(0, 6, 9)?.to_vec::<f32>()?;
        let alone = model.bert.forward(&alone, mode)?.to_vec::<f32>()?;
        let largest = together.iter().zip(&alone).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("alone and in a batch: hidden states differ by {largest:.1e} in {mode:?}");
        assert!(largest < 1e-5, "{largest} in {mode:?}");
    }
    let dropped = model.bert.forward(&batch, Mode::Train { seed: 2, step: 3 })?.to_vec::<f32>()?;
    assert_ne!(dropped, model.bert.forward(&batch, Mode::Eval)?.to_vec::<f32>()?);
    assert!(Dropout::new(0.1, 0, 0, 0)?.scale() > 1.0);
    Ok(())
}
