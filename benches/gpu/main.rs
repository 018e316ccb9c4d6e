//! Training steps, matrix products and attention on a GPU, and the time of each kernel of a step. Prints a line of JSON for each,
//! which `report.py` compares with PyTorch's from `peers.py`.
//!
//! `gpu [--smoke] [steps] [products] [attention] [kernels]` runs the parts that are named, by default all. With `--smoke`, each
//! runs once in the smallest sizes, for the emulated GPU.

use std::time::Instant;

use cloze::prelude::*;
use cloze::tensor::random::Stream;
use cloze::tensor::{Dropout, Sequences, profile_kernels};
use cloze::train::Optimizer;
use cloze_benches::{Result, batch, median};
use serde_json::json;

/// Minimum duration of a measurement in seconds, after a warm-up of the same length.
const SECONDS: f64 = 0.3;
/// Random numbers that the operands repeat. To draw each would take the host longer than all measurements together.
const NORMALS: usize = 1 << 20;

struct Bench {
    device: Device,
    is_smoke: bool,
    normals: Vec<f32>,
}

impl Bench {
    /// Prints the median time of a call, and the `work` per second.
    fn time(&self, name: &str, (work, unit): (f64, &str), mut call: impl FnMut() -> Result) -> Result {
        let mut times = Vec::new();
        let begun = Instant::now();
        while times.is_empty() || !self.is_smoke && (begun.elapsed().as_secs_f64() < 2.0 * SECONDS || times.len() < 6) {
            let start = Instant::now();
            call()?;
            self.device.synchronize()?;
            times.push(start.elapsed().as_secs_f64());
        }
        let seconds = median(&mut times.split_off(times.len() / 2));
        println!("{}", json!({"name": name, "ms": seconds * 1e3, "per_second": work / seconds, "unit": unit}));
        Ok(())
    }

    /// Returns normally distributed numbers in bf16.
    fn normal(&self, shape: &[usize]) -> Result<Tensor> {
        let numbers = self.normals.iter().copied().cycle().take(shape.iter().product()).collect();
        Ok(Tensor::from_vec::<f32>(numbers, shape, &self.device)?.to_dtype(DType::BF16)?)
    }

    /// C = A Bᵀ with operands and product in bf16 and sums in f32.
    fn products(&self) -> Result {
        let all =
            [(65_536, 768, 768), (65_536, 3072, 768), (65_536, 768, 3072), (4096, 4096, 4096), (8192, 8192, 8192)];
        for &(m, n, k) in if self.is_smoke { &[(136, 72, 40)][..] } else { &all } {
            let (a, b) = (self.normal(&[m, k])?, self.normal(&[n, k])?.t()?);
            let work = (2.0 * m as f64 * n as f64 * k as f64, "FLOP");
            self.time(&format!("product {m} {n} {k}"), work, || {
                Precision::Bf16.scope(|| a.matmul(&b))?;
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Attention with queries, keys, values and its output in bf16.
    fn attention(&self) -> Result {
        let hidden = if self.is_smoke { 128 } else { 1024 };
        let (tokens, lengths) =
            if self.is_smoke { (96, &[48][..]) } else { (16_384, &[128, 512, 1024, 2048, 8192][..]) };
        for size in [64, 128] {
            for &length in lengths {
                let sequences = Sequences::new(&vec![length; tokens / length])?;
                let qkv = self.normal(&[tokens, 3 * hidden])?.requires_grad();
                let dy = self.normal(&[tokens, hidden])?;
                for p in [0.0, 0.1] {
                    let (heads, dropout) = (hidden / size, Dropout::new(p, 1, 0, 0)?);
                    let forward = || Precision::Bf16.scope(|| qkv.attention(&sequences, heads, &dropout));
                    let work = 4.0 * (tokens * length * hidden) as f64;
                    let name = format!("head {size} length {length} dropout {p}");
                    self.time(&format!("attention forward {name}"), (work, "FLOP"), || {
                        no_grad(forward)?;
                        Ok(())
                    })?;
                    self.time(&format!("attention both {name}"), (3.5 * work, "FLOP"), || {
                        Ok(forward()?.backward_with(&dy, &mut Gradients::new())?)
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Calls `run` with each model, length of its sequences, and a training step on 32,768 tokens: masked words and next
    /// sentences, 15 % of the tokens masked, dropout 0.1, clipping, AdamW. The largest comes first.
    fn each_step(&self, run: impl Fn(&str, usize, &mut dyn FnMut() -> Result) -> Result) -> Result {
        let all = [("large", BertConfig::large()), ("base", BertConfig::base())];
        let smoke = [("tiny", BertConfig::tiny(100))];
        for (name, config) in if self.is_smoke { &smoke[..] } else { &all[..] } {
            for length in if self.is_smoke { [24, 16] } else { [512, 128] } {
                let tokens = if self.is_smoke { 48 } else { 32_768 };
                let (batch, targets) = batch::of(config, tokens / length, length)?;
                let mut model = BertForPreTraining::new(config, &self.device, 7)?;
                let mut optimizer = Optimizer::new(AdamW::new(1e-4), &mut model, |_| true)?;
                let mut step = 0;
                run(&format!("step {name} length {length}"), tokens, &mut || {
                    step += 1;
                    let mode = Mode::Train { seed: 1, step };
                    // As the trainer runs a step.
                    self.device.as_graph(|| -> Result {
                        Precision::Bf16.scope(|| optimizer.backward(&model.loss(&batch, &targets, mode)?.loss))?;
                        optimizer.step_at(&mut model, 1e-4, Some(1.0))?;
                        Ok(())
                    })?
                })?;
            }
        }
        Ok(())
    }

    fn steps(&self) -> Result {
        self.each_step(|name, tokens, step| self.time(name, (tokens as f64, "tokens"), step))
    }

    /// Prints the time of each kernel of one step, after one that loads them.
    fn kernels(&self) -> Result {
        self.each_step(|name, _, step| {
            step()?;
            let (done, profile) = profile_kernels(&self.device, step)?;
            done?;
            for kernel in profile.kernels() {
                let ms = kernel.time.unwrap_or_default().as_secs_f64() * 1e3;
                let (bytes, operations) = (kernel.cost.bytes, kernel.cost.operations);
                println!(
                    "{}",
                    json!({"step": name, "kernel": kernel.name, "launches": kernel.launches, "ms": ms,
                    "bytes": bytes, "operations": operations})
                );
            }
            Ok(())
        })
    }
}

fn main() -> Result {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_smoke = arguments.iter().any(|argument| argument == "--smoke" || argument == "--test");
    let named: Vec<&str> = arguments.iter().map(String::as_str).filter(|name| !name.starts_with("--")).collect();
    let mut stream = Stream::seeded(1);
    let normals = Tensor::randn(&[NORMALS], 1.0, &mut stream, &Device::Cpu)?.to_vec::<f32>()?;
    let bench = Bench { device: Device::cuda(0)?, is_smoke, normals };
    for part in if named.is_empty() { &["steps", "products", "attention", "kernels"] } else { &named[..] } {
        match *part {
            "steps" => bench.steps()?,
            "products" => bench.products()?,
            "attention" => bench.attention()?,
            "kernels" => bench.kernels()?,
            unknown => return Err(format!("{unknown}: there are steps, products, attention and kernels").into()),
        }
    }
    Ok(())
}
