//! What is printed of a comparison.

use crate::race::Race;
use crate::table;
use crate::workloads::{Texts, Workload};

/// How to read the first table, but for the number of rounds.
const TIMES: &str = "\
In a round everybody has the same batch, one after the other, in an order that rotates, and times a step that follows another,
or forwards that follow another. `x`: a peer's time by cloze's of the same round, the median of the rounds; bold is the better
of torch's two ways. *Of the matrix peak*: how fast the step would be if it were its matrix products alone, done as fast as all
threads do multiply-adds from registers; that speed is measured in each round. Steps have dropout 0.1, clipping and AdamW in
them. torch's bf16 is `torch.autocast`; int8 is dynamic everywhere.";

/// How to read the second table.
const CHECKS: &str = "\
Peak memory is that of the whole life of a process. *Difference*: the largest relative one of the losses of three steps
without dropout, or the largest of an output by the largest output, from torch's in f32 (cloze's, where there is no torch); in
int8 what the cosine of the outputs lacks to 1.";

/// Tables of the races, and how to read them.
pub fn report(races: &[Race], texts: &Texts, rounds: usize, smoke: bool, minilm: bool) -> String {
    let workloads: String = Workload::ALL
        .into_iter()
        .filter_map(|workload| races.iter().find(|race| race.workload == workload))
        .map(|race| what(race, texts, smoke, minilm))
        .collect();
    format!(
        "Medians of {rounds} rounds (smallest to largest). {TIMES}\n\n{}\n{workloads}\n{CHECKS}\n\n{}",
        table::times(races),
        table::checks(races)
    )
}

/// A line about a workload.
fn what(race: &Race, texts: &Texts, smoke: bool, minilm: bool) -> String {
    let Race { workload, tokens, padded_tokens, .. } = race;
    let model = match workload {
        _ if smoke => "a tiny model in the place of the real one",
        Workload::Embed if minilm => "the published weights",
        _ => "random weights",
    };
    let (name, description, source) = (workload.name(), workload.description(), texts.source(*workload));
    format!("- {name}: {description}; {model}; {source}; {tokens:.0} of {padded_tokens:.0} tokens are no padding\n")
}
