//! Attention, matrix products and training steps on a GPU. Prints a line of JSON for each, which `report.py` compares
//! with PyTorch's from `peers.py`. With `--smoke`, runs each once in the smallest sizes, for the emulated GPU.

use std::time::Instant;

use cloze::prelude::*;
use cloze::tensor::random::{Purpose, Stream};
use cloze::tensor::{Dropout, Sequences};
use cloze::train::Optimizer;
use cloze_benches::{Result, batch, median};

/// Minimum duration of a measurement in seconds, after a warm-up of the same length.
const SECONDS: f64 = 0.3;

struct Bench {
    device: Device,
    is_smoke: bool,
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
        println!(
            "{{\"name\": \"{name}\", \"ms\": {:.4}, \"per_second\": {:.4e}, \"unit\": \"{unit}\"}}",
            seconds * 1e3,
            work / seconds
        );
        Ok(())
    }

    fn normal(&self, shape: &[usize]) -> Result<Tensor> {
        let mut stream = Stream::new(1, Purpose::User, 0, 0, 0);
        Ok(Tensor::randn(shape, 1.0, &mut stream, &self.device)?)
    }

    /// C = A Bᵀ in bf16 with accumulation in f32. Operands and product are f32, and the time includes rounding them.
    fn products(&self) -> Result {
        let all =
            [(65_536, 768, 768), (65_536, 3072, 768), (65_536, 768, 3072), (4096, 4096, 4096), (8192, 8192, 8192)];
        for &(m, n, k) in if self.is_smoke { &[(130, 70, 40)][..] } else { &all } {
            let (a, b) = (self.normal(&[m, k])?, self.normal(&[n, k])?.t()?);
            let work = (2.0 * m as f64 * n as f64 * k as f64, "FLOP");
            self.time(&format!("product {m} {n} {k}"), work, || {
                Precision::Bf16.scope(|| a.matmul(&b))?;
                Ok(())
            })?;
        }
        Ok(())
    }

    fn attention(&self) -> Result {
        let hidden = if self.is_smoke { 128 } else { 1024 };
        let (tokens, lengths) =
            if self.is_smoke { (96, &[48][..]) } else { (16_384, &[128, 512, 1024, 2048, 8192][..]) };
        for size in [64, 128] {
            for &length in lengths {
                for p in [0.0, 0.1] {
                    let sequences = Sequences::new(&vec![length; tokens / length])?;
                    let (heads, dropout) = (hidden / size, Dropout::new(p, 1, 0, 0)?);
                    let qkv = self.normal(&[tokens, 3 * hidden])?.requires_grad();
                    let forward = || Precision::Bf16.scope(|| qkv.attention(&sequences, heads, &dropout));
                    let dy = self.normal(&[tokens, hidden])?;
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

    /// Masked words and next sentences, 15 % of the tokens masked, dropout 0.1, clipping, AdamW.
    fn training(&self) -> Result {
        let large = BertConfig::large();
        let all = [("base", BertConfig::base()), ("large", large)];
        let smoke = [("tiny", BertConfig::tiny(100))];
        for (name, config) in if self.is_smoke { &smoke[..] } else { &all[..] } {
            for length in if self.is_smoke { [16, 24] } else { [128, 512] } {
                let tokens = if self.is_smoke { 48 } else { 16_384 };
                let (batch, targets) = batch::of(config, tokens / length, length)?;
                let mut model = BertForPreTraining::new(config, &self.device, 7)?;
                let mut optimizer = Optimizer::new(AdamW::new(1e-4), &mut model, |_| true)?;
                let mut step = 0;
                self.time(&format!("step {name} length {length}"), (tokens as f64, "tokens"), || {
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
}

fn main() -> Result {
    let is_smoke = std::env::args().any(|argument| argument == "--smoke" || argument == "--test");
    let bench = Bench { device: Device::cuda(0)?, is_smoke };
    bench.products()?;
    bench.attention()?;
    bench.training()
}
