//! Formats results as Markdown tables.

use std::collections::{BTreeMap, BTreeSet};

use crate::contestants::{Contestant, Kind};
use crate::protocol::Dtype;
use crate::race::{Lane, Race};

/// Formats rows of cells as a table. The first row is the header.
pub fn table(rows: &[Vec<String>]) -> String {
    let Some((head, body)) = rows.split_first() else { return String::new() };
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule = format!("|{}\n", "---|".repeat(head.len()));
    line(head) + &rule + &body.iter().map(|row| line(row)).collect::<String>()
}

/// Formats a time with three significant digits.
pub fn seconds(seconds: f64) -> String {
    match seconds {
        ..0.0995 => format!("{:.1} ms", 1e3 * seconds),
        ..0.9995 => format!("{:.0} ms", 1e3 * seconds),
        _ => format!("{seconds:.2} s"),
    }
}

/// Formats an amount of memory, or a dash if it is unknown.
pub fn gib(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".into(), |bytes| format!("{:.2} GiB", bytes as f64 / (1u64 << 30) as f64))
}

/// Returns the peers that took part in any race.
fn peers(races: &[Race]) -> Vec<Kind> {
    let there = |kind: &Kind| races.iter().any(|race| race.lanes.iter().any(|lane| lane.contestant.kind == *kind));
    Kind::ALL.into_iter().filter(|kind| *kind != Kind::Ours && there(kind)).collect()
}

/// Returns the table of times, with the ratio of each peer to cloze.
pub fn times(races: &[Race]) -> String {
    let peers = peers(races);
    let mut head: Vec<String> =
        ["workload", "type", "cloze", "of the matrix peak", "fastest peer"].map(String::from).to_vec();
    head.extend(peers.iter().map(|kind| kind.name().to_string()));
    let mut rows = vec![head];
    for race in races {
        let ours = race.lane(Kind::Ours, race.dtype);
        let mut own = ours.map_or_else(|| why(race, Kind::Ours), time);
        if let Some(ratio) =
            race.lane(Kind::Ours, Dtype::F32).filter(|_| race.dtype != Dtype::F32).and_then(|lane| race.ratio(lane))
        {
            own += &format!(", {ratio:.2}x its f32");
        }
        let fraction =
            race.fraction_of_peak().map_or_else(|| "-".into(), |fraction| format!("{:.0} %", 100.0 * fraction));
        let mut row = vec![race.workload.name().into(), race.dtype.name().into(), own, fraction, fastest(race, &peers)];
        row.extend(peers.iter().map(|&kind| match race.lane(kind, race.dtype) {
            None => why(race, kind),
            Some(lane) => time(lane) + &race.ratio(lane).map_or_else(String::new, |ratio| format!(", {ratio:.2}x")),
        }));
        rows.push(row);
    }
    table(&rows)
}

/// Returns the name of the fastest peer, and its ratio to cloze.
fn fastest(race: &Race, peers: &[Kind]) -> String {
    let others = peers.iter().filter(|kind| **kind != Kind::Before).filter_map(|&kind| race.lane(kind, race.dtype));
    let ratios = others.filter_map(|lane| Some((lane.contestant.kind.name(), race.ratio(lane)?)));
    let least = ratios.min_by(|a, b| a.1.total_cmp(&b.1));
    least.map_or_else(|| "-".into(), |(name, ratio)| format!("{name}, {ratio:.2}x"))
}

/// Formats the median and the range of a lane.
fn time(lane: &Lane) -> String {
    let Some(spread) = lane.spread() else { return "-".into() };
    format!("{} ({} to {})", seconds(spread.median), seconds(spread.min), seconds(spread.max))
}

/// Returns why a contestant has no time.
fn why(race: &Race, kind: Kind) -> String {
    let contestant = Contestant { kind, dtype: race.dtype };
    let lane = race.lanes.iter().find(|lane| lane.contestant == contestant);
    let why = lane.and_then(|lane| lane.not_run.as_ref());
    why.map_or_else(|| "-".into(), |why| format!("not run: {}", why.replace('|', "/")))
}

/// Returns the table of peak memory, and of the differences from the reference.
pub fn checks(races: &[Race]) -> String {
    let head = ["workload", "type", "contestant", "peak memory", "of the f32 weights", "difference", "allowed"];
    let mut rows = vec![head.map(String::from).to_vec()];
    for race in races {
        for lane in race.lanes.iter().filter(|lane| !lane.seconds.is_empty()) {
            let weights = |bytes: u64| format!("{:.2}", bytes as f64 / race.weight_bytes as f64);
            rows.push(vec![
                race.workload.name().into(),
                lane.contestant.dtype.name().into(),
                lane.contestant.kind.name().into(),
                gib(lane.peak_bytes),
                lane.peak_bytes.map_or_else(|| "-".into(), weights),
                lane.agreement.map_or_else(|| "-".into(), |agreement| format!("{:.1e}", agreement.difference)),
                lane.agreement.map_or_else(|| "-".into(), |agreement| format!("{:.0e}", agreement.limit)),
            ]);
        }
    }
    table(&rows)
}

/// Returns the versions of all libraries that took part: `torch 2.15.0, transformers 5.23.0`.
pub fn versions(races: &[Race]) -> String {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (library, version) in races.iter().flat_map(|race| &race.lanes).flat_map(|lane| &lane.versions) {
        versions.entry(library).or_default().insert(version);
    }
    let one = |(library, versions): (&str, BTreeSet<&str>)| format!("{library} {}", Vec::from_iter(versions).join("/"));
    versions.into_iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        assert_eq!(
            [0.0123, 0.0996, 0.1234, 0.9996, 12.345].map(seconds),
            ["12.3 ms", "100 ms", "123 ms", "1.00 s", "12.35 s"]
        );
    }

    #[test]
    fn tables_are_markdown() {
        let rows = [vec!["a".to_string(), "b".into()], vec!["1".into(), "2".into()]];
        assert_eq!(table(&rows), "| a | b |\n|---|---|\n| 1 | 2 |\n");
    }
}
