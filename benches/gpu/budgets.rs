//! What a training step and an answer ask of a GPU: nodes of the graph, bytes, nodes that change from step to step, memory. They
//! must stay within budgets, which are a regression test of speed that needs no GPU. Prints them, the time of the host, and with
//! `--kernels` each kernel.
//!
//! It needs the emulated GPU, as one of Hopper's that computes nothing:
//! `CLOZE_EMU_IDLE=1 CLOZE_EMU_ARCH=90 CLOZE_EMU_MEMORY=150000000000`.

use std::time::Instant;

use cloze::prelude::*;
use cloze::tensor::{Profile, profile};
use cloze::train::Optimizer;
use cloze_benches::{Result, batch};

/// The most that a step or an answer may ask for.
struct Budget {
    nodes: usize,
    gigabytes: f64,
    /// Nodes whose arguments differ from those of the step before.
    changed: usize,
}

struct Case {
    model: &'static str,
    sequences: usize,
    length: usize,
    training: Budget,
    answering: Budget,
    /// Gigabytes that a training step takes beside parameters, gradients and the state of the optimizer.
    activations: f64,
}

/// In the order of the memory that they take, because a device counts the most since the start.
const CASES: [Case; 3] = [
    Case {
        model: "base",
        sequences: 8,
        length: 128,
        training: Budget { nodes: 336, gigabytes: 6.4, changed: 102 },
        answering: Budget { nodes: 117, gigabytes: 0.8, changed: 5 },
        activations: 0.35,
    },
    Case {
        model: "base",
        sequences: 64,
        length: 512,
        training: Budget { nodes: 352, gigabytes: 57.0, changed: 103 },
        answering: Budget { nodes: 117, gigabytes: 19.1, changed: 5 },
        activations: 9.1,
    },
    Case {
        model: "large",
        sequences: 64,
        length: 512,
        training: Budget { nodes: 604, gigabytes: 149.5, changed: 175 },
        answering: Budget { nodes: 225, gigabytes: 50.0, changed: 5 },
        activations: 24.7,
    },
];

/// The steps of a measurement. The graph of the first is built, and addresses settle in those after it.
const STEPS: u32 = 6;

/// The kernels, changed nodes and host time of the last of several identical steps.
struct Asked {
    profile: Profile,
    changed: usize,
    /// The shortest time of the host.
    milliseconds: f64,
}

impl Asked {
    fn by(device: &Device, mut work: impl FnMut(u32) -> Result) -> Result<Asked> {
        let Device::Cuda(gpu) = device else { return Err("not a GPU".into()) };
        let mut last = None;
        let mut milliseconds = f64::INFINITY;
        for step in 1..=STEPS {
            let (before, start) = (gpu.graph_use(), Instant::now());
            let (done, profile) = profile(|| device.as_graph(|| work(step)));
            done??;
            milliseconds = milliseconds.min(start.elapsed().as_secs_f64() * 1e3);
            let after = gpu.graph_use();
            last = Some((profile, after.replayed - before.replayed, after.changed - before.changed));
        }
        let (profile, nodes, changed) = last.ok_or("no step")?;
        let asked = Asked { profile, changed, milliseconds };
        if asked.nodes() != nodes {
            return Err(format!("{} launches in the profile, {nodes} nodes in the graph", asked.nodes()).into());
        }
        Ok(asked)
    }

    fn nodes(&self) -> usize {
        self.profile.kernels().iter().map(|kernel| kernel.launches).sum()
    }

    fn gigabytes(&self) -> f64 {
        self.profile.kernels().iter().map(|kernel| kernel.cost.bytes as f64 / 1e9).sum()
    }

    /// Prints a row of the table. Returns whether it is within the budget.
    fn show(&self, name: &str, budget: &Budget, has_kernels: bool) -> bool {
        let (nodes, gigabytes, changed) = (self.nodes(), self.gigabytes(), self.changed);
        let operations: u64 = self.profile.kernels().iter().map(|kernel| kernel.cost.operations).sum();
        println!(
            "| {name} | {nodes} of {} | {gigabytes:.1} of {} GB | {:.2} TFLOP | {changed} of {} | {:.2} ms |",
            budget.nodes,
            budget.gigabytes,
            operations as f64 / 1e12,
            budget.changed,
            self.milliseconds
        );
        if has_kernels {
            for kernel in self.profile.kernels() {
                let (gigabytes, operations) = (kernel.cost.bytes as f64 / 1e9, kernel.cost.operations as f64 / 1e12);
                println!("    {:<34}{:>6}{gigabytes:>10.3} GB{operations:>9.3} TFLOP", kernel.name, kernel.launches);
            }
        }
        nodes <= budget.nodes && gigabytes <= budget.gigabytes && changed <= budget.changed
    }
}

fn main() -> Result {
    let has_kernels = std::env::args().any(|argument| argument == "--kernels");
    if std::env::var_os("CLOZE_EMU_IDLE").is_none() {
        println!("SKIPPED: budgets are counted on the emulated GPU with CLOZE_EMU_IDLE=1");
        return Ok(());
    }
    let device = Device::cuda(0)?;
    println!("| | nodes | bytes | products | nodes changed | host |\n|---|---|---|---|---|---|");
    let mut exceeded = Vec::new();
    for case in &CASES {
        let config = BertConfig::by_name(case.model, 30_522)?;
        let (batch, targets) = batch::of(&config, case.sequences, case.length)?;
        let name = format!("{} {} x {}", case.model, case.sequences, case.length);
        let mut model = BertForPreTraining::new(&config, &device, 7)?;
        let answer = Asked::by(&device, |_| {
            no_grad(|| Precision::Bf16.scope(|| model.bert.forward(&batch, Mode::Eval)))?;
            Ok(())
        })?;
        let mut optimizer = Optimizer::new(AdamW::new(1e-4), &mut model, |_| true)?;
        let step = Asked::by(&device, |step| {
            let mode = Mode::Train { seed: 1, step };
            Precision::Bf16.scope(|| optimizer.backward(&model.loss(&batch, &targets, mode)?.loss))?;
            optimizer.step_at(&mut model, 1e-4, Some(1.0))?;
            Ok(())
        })?;
        let memory = device.memory_use();
        for (name, asked, budget) in [
            (format!("{name}, answering"), answer, &case.answering),
            (format!("{name}, training"), step, &case.training),
        ] {
            if !asked.show(&name, budget, has_kernels) {
                exceeded.push(name);
            }
        }
        let activations = (memory.peak - memory.used) as f64 / 1e9;
        println!("{name}: activations {activations:.2} of {} GB", case.activations);
        if activations > case.activations {
            exceeded.push(format!("{name}, activations"));
        }
    }
    if !exceeded.is_empty() {
        return Err(format!("over the budget: {}", exceeded.join("; ")).into());
    }
    Ok(())
}
