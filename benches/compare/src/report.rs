//! The printed report of a comparison.

use crate::race::Race;
use crate::table;
use crate::workloads::{Tokens, Workload};

/// How to read the first table.
const TIMES: &str = "\
In each round, all contestants run the same batch one after the other, in rotating order, and time a step or forwards
after an untimed one. `x` is a peer's time divided by that of cloze in the same round (median over the rounds). *Of the
matrix peak* is the share of the arithmetic ceiling that cloze reaches if only matrix products count as work; the ceiling
(multiply-adds on registers, all threads) is measured in each round. Steps include dropout 0.1, clipping and AdamW. bf16
in torch is `torch.autocast`, in llama.cpp f16 weights; int8 is static quantization in OpenVINO, Q8_0 in llama.cpp, and
dynamic quantization otherwise. The versions name the form that was fastest for a peer.";

/// How to read the second table.
const CHECKS: &str = "\
Peak memory covers the whole life of a process. *Difference* is measured against torch in f32, or against cloze if torch
is missing: for training, the largest relative difference in the losses of three steps without dropout; for inference,
the largest difference of an output relative to the largest output; in int8, 1 minus the cosine of the outputs.";

/// Returns the tables of the races, and how to read them.
pub fn report(races: &[Race], texts: &Tokens, rounds: usize, smoke: bool, minilm: bool) -> String {
    let workloads: String = Workload::ALL
        .into_iter()
        .filter_map(|workload| races.iter().find(|race| race.workload == workload))
        .map(|race| describe(race, texts, smoke, minilm))
        .collect();
    format!(
        "Medians of {rounds} rounds, with ranges. {TIMES}\n\n{}\n{workloads}\n{CHECKS}\n\n{}",
        table::times(races),
        table::checks(races)
    )
}

/// Returns a line about a workload.
fn describe(race: &Race, texts: &Tokens, smoke: bool, minilm: bool) -> String {
    let Race { workload, tokens, padded_tokens, .. } = race;
    let model = match workload {
        _ if smoke => "a tiny model instead of the real one",
        Workload::Embed if minilm => "the published weights",
        _ => "random weights",
    };
    let (name, description, source) = (workload.name(), workload.description(), texts.source(*workload));
    format!("- {name}: {description}; {model}; {source}; {tokens:.0} of {padded_tokens:.0} tokens are not padding\n")
}
