//! Properties of masking.

use cloze_tensor::random::Purpose;
use proptest::prelude::*;

use super::*;

const VOCAB: usize = 300;

fn stream(seed: u64, sequence: u32) -> Stream {
    Stream::new(seed, Purpose::Masking, 0, 0, sequence)
}

fn table() -> VocabularyTable {
    VocabularyTable::small(VOCAB)
}

/// Asserts that a count of successes is within four standard deviations of its mean.
#[track_caller]
fn binomial(what: &str, successes: usize, draws: usize, p: f64) {
    let (mean, sigma) = (draws as f64 * p, (draws as f64 * p * (1.0 - p)).sqrt());
    assert!(
        (successes as f64 - mean).abs() <= 4.0 * sigma,
        "{what}: {successes} of {draws}, expected {mean} +- {sigma}"
    );
}

/// Returns the targets of many sequences of `length` ordinary tokens between special ones, and their replacements.
fn many(masking: &Masking, sequences: u32, length: usize) -> (Vec<Target>, Vec<u32>) {
    let (mut targets, mut ids_now) = (Vec::new(), Vec::new());
    for sequence in 0..sequences {
        let mut ids = vec![2];
        ids.extend((0..length).map(|token| 5 + (token % 150) as u32));
        ids.push(3);
        let drawn = masking.mask(&mut ids, &table(), 0, &mut stream(1, sequence)).unwrap();
        ids_now.extend(drawn.iter().map(|target| ids[target.position as usize]));
        targets.extend(drawn);
    }
    (targets, ids_now)
}

#[test]
fn eighty_ten_ten() {
    for (masking, [mask, random, kept]) in [
        (Masking::bert(), [0.8, 0.1, 0.1]),
        (Masking::bert().selection(Selection::Bernoulli).unit(MaskingUnit::WholeWord), [0.8, 0.1, 0.1]),
        (Masking::bert().replacement(0.3, 0.5), [0.3, 0.5, 0.2]),
        (Masking::bert().replacement(1.0, 0.0), [1.0, 0.0, 0.0]),
    ] {
        let (targets, now) = many(&masking, 1_000, 100);
        let count = |kind| targets.iter().filter(|target| target.kind == kind).count();
        binomial("masked", count(TargetKind::Masked), targets.len(), mask);
        binomial("random", count(TargetKind::Random), targets.len(), random);
        binomial("kept", count(TargetKind::Kept), targets.len(), kept);
        for (target, id) in targets.iter().zip(now) {
            match target.kind {
                TargetKind::Masked => assert_eq!(id, 4),
                TargetKind::Random => assert!((5..VOCAB as u32).contains(&id)),
                TargetKind::Kept => assert_eq!(id, target.original),
            }
        }
    }
}

#[test]
fn random_tokens_are_uniform_over_the_ordinary_vocabulary() {
    let (_, now) = many(&Masking::bert().replacement(0.0, 1.0), 2_000, 100);
    let mut counts = [0usize; VOCAB];
    now.iter().for_each(|&id| counts[id as usize] += 1);
    // Five sigma instead of four, because there are 295 counts (of about 102 each).
    let mean = now.len() as f64 / (VOCAB - 5) as f64;
    assert!(counts[..5].iter().all(|&n| n == 0));
    assert!(counts[5..].iter().all(|&n| (n as f64 - mean).abs() < 5.0 * mean.sqrt()), "{counts:?}");
}

#[test]
fn selection_has_its_rate_and_favours_no_position() {
    let length = 41;
    let (fixed, _) = many(&Masking::bert(), 2_000, length);
    assert_eq!(fixed.len(), 2_000 * 6, "0.15 x 41 is 6.15: always six");
    let (bernoulli, _) = many(&Masking::bert().selection(Selection::Bernoulli), 2_000, length);
    binomial("targets", bernoulli.len(), 2_000 * length, 0.15);
    let ascends = |targets: &[Target]| targets.is_sorted_by(|a, b| a.position < b.position);
    assert!(fixed.chunks(6).all(ascends));

    for (targets, p) in [(fixed, 6.0f64 / 41.0), (bernoulli, 0.15)] {
        for position in 1..=length as u32 {
            let count = targets.iter().filter(|target| target.position == position).count() as f64;
            let (mean, sigma) = (2_000.0 * p, (2_000.0 * p * (1.0 - p)).sqrt());
            assert!((count - mean).abs() < 5.0 * sigma, "position {position}: {count}, expected {mean}");
        }
    }
}

#[test]
fn streams_decide_the_draw() {
    let ids: Vec<u32> = (5..105).collect();
    let draw = |step, sequence| {
        let mut ids = ids.clone();
        let stream = &mut Stream::new(9, Purpose::Masking, 0, step, sequence);
        (Masking::bert().mask(&mut ids, &table(), 0, stream).unwrap(), ids)
    };
    assert_eq!(draw(3, 4), draw(3, 4));
    assert_ne!(draw(3, 4), draw(4, 4));
    assert_ne!(draw(3, 4), draw(3, 5));
}

/// Spans of 15 targets in 100 words: all tokens of a span have one replacement, and the budget is always met.
#[test]
fn spans_are_replaced_as_a_whole() {
    let masking = Masking::bert().unit(MaskingUnit::Span);
    let (mut spans, mut masked) = (0, 0);
    for sequence in 0..2_000 {
        let ids: Vec<u32> = (0..100).map(|token| 5 + token).collect();
        let (mut now, mut again) = (ids.clone(), ids.clone());
        let targets = masking.mask(&mut now, &table(), 0, &mut stream(4, sequence)).unwrap();
        assert_eq!(targets.len(), 15);
        assert_eq!(masking.mask(&mut again, &table(), 0, &mut stream(4, sequence)).unwrap(), targets);
        assert_eq!(now, again);
        // The spans as they were selected, from the same stream.
        let mut stream = stream(4, sequence);
        let mut selected = masking.select(masking.words(&ids, &table()), 0.15, &mut stream);
        selected.sort_unstable_by_key(|span| span.start);
        assert!(selected.iter().cloned().flatten().eq(targets.iter().map(|target| target.position as usize)));
        for span in selected {
            let kinds: Vec<TargetKind> = targets
                .iter()
                .filter(|target| span.contains(&(target.position as usize)))
                .map(|target| target.kind)
                .collect();
            assert!(kinds.iter().all(|&kind| kind == kinds[0]), "{kinds:?}");
            spans += 1;
            masked += usize::from(kinds[0] == TargetKind::Masked);
        }
    }
    binomial("masked spans", masked, spans, 0.8);
}

#[test]
fn units_have_names() {
    for (name, unit) in [("token", MaskingUnit::Token), ("word", MaskingUnit::WholeWord), ("span", MaskingUnit::Span)] {
        assert_eq!((unit.to_string().as_str(), name.parse::<MaskingUnit>().unwrap()), (name, unit));
    }
    let error = "line".parse::<MaskingUnit>().unwrap_err().to_string();
    assert_eq!(error, "masking unit is line, must be token, word or span");
}

#[test]
fn the_rate_is_that_of_the_step() {
    let masking = Masking::bert().rate(MaskingRate::Linear { from: 0.3, to: 0.15, steps: 100 });
    let count = |step| {
        let mut ids: Vec<u32> = (0..100).map(|token| 5 + token).collect();
        masking.mask(&mut ids, &table(), step, &mut stream(0, 0)).unwrap().len()
    };
    // From step 100 on, the rate is 15 %, also in evaluations.
    assert_eq!([0, 20, 40, 80, 99, 100, u32::MAX].map(count), [30, 27, 24, 18, 15, 15, 15]);
}

#[test]
fn words_longer_than_the_budget() {
    // Two words, of five and of three pieces (ids from 200 on continue a word); 15 % of eight tokens is one.
    let ids = [2, 5, 200, 201, 202, 203, 6, 204, 205, 3];
    for masking in [MaskingUnit::WholeWord, MaskingUnit::Span]
        .map(|unit| Masking::bert().unit(unit))
        .into_iter()
        .flat_map(|masking| [masking.clone(), masking.rate(1.0).max_targets(2)])
    {
        for sequence in 0..20 {
            let targets = masking.mask(&mut ids.clone(), &table(), 0, &mut stream(0, sequence)).unwrap();
            let positions: Vec<u32> = targets.iter().map(|target| target.position).collect();
            assert_eq!(positions, [6, 7, 8], "the shortest word");
        }
    }
}

#[test]
fn no_ordinary_token_no_target() {
    for masking in [Masking::bert(), Masking::bert().selection(Selection::Bernoulli)] {
        let mut ids = [2, 1, 3, 4, 0];
        assert_eq!(masking.mask(&mut ids, &table(), 0, &mut stream(0, 0)).unwrap(), []);
        assert_eq!(ids, [2, 1, 3, 4, 0]);
        assert_eq!(masking.mask(&mut [], &table(), 0, &mut stream(0, 0)).unwrap(), []);
    }
}

/// The numbers of targets of a plain draw have a binomial distribution, zero included.
#[test]
fn without_a_minimum_each_token_is_drawn_on_its_own() {
    let masking = Masking::bert().selection(Selection::Bernoulli).without_minimum();
    let (sequences, tokens, rate) = (20_000u32, 6usize, 0.15f64);
    let mut counts = [0.0; 7];
    for sequence in 0..sequences {
        let mut ids = [2, 5, 6, 7, 8, 9, 10, 3];
        counts[masking.mask(&mut ids, &table(), 0, &mut stream(0, sequence)).unwrap().len()] += 1.0;
    }
    let choose = [1.0, 6.0, 15.0, 20.0, 15.0, 6.0, 1.0];
    for (k, count) in counts.iter().enumerate() {
        let p = choose[k] * rate.powi(k as i32) * (1.0 - rate).powi((tokens - k) as i32);
        let (mean, deviation) = (f64::from(sequences) * p, (f64::from(sequences) * p * (1.0 - p)).sqrt());
        assert!((count - mean).abs() <= 4.0 * deviation + 1.0, "{count} with {k} targets, not {mean}");
    }
    for unit in [MaskingUnit::Token, MaskingUnit::WholeWord, MaskingUnit::Span] {
        let none = Masking::bert().unit(unit).without_minimum();
        assert_eq!(none.mask(&mut [2, 5, 6, 3], &table(), 0, &mut stream(0, 0)).unwrap(), [], "0.15 of 2 tokens is 0");
    }
}

#[test]
fn settings_and_ids_are_checked() {
    let bert = Masking::bert;
    for (masking, name) in [
        (bert().rate(0.0), "masking rate is 0"),
        (bert().rate(1.5), "masking rate is 1.5"),
        (bert().rate(f64::NAN), "masking rate is NaN"),
        (bert().replacement(-0.1, 0.1), "fraction of masked targets is -0.1"),
        (bert().replacement(0.5, f64::NAN), "fraction of random targets is NaN"),
        (bert().replacement(0.8, 0.3), "fraction of masked and random targets is 1.1"),
        (bert().max_targets(0), "max_targets is 0"),
        (
            bert().unit(MaskingUnit::Span).selection(Selection::Bernoulli),
            "selection is Bernoulli, must be Fixed to mask",
        ),
    ] {
        let error = masking.mask(&mut [5, 6], &table(), 0, &mut stream(0, 0)).unwrap_err().to_string();
        assert!(error.starts_with(name), "{error}");
    }
    let mut ids = [5, 6, VOCAB as u32];
    let error = bert().rate(1.0).mask(&mut ids, &table(), 0, &mut stream(0, 0)).unwrap_err();
    assert!(error.to_string().starts_with("token id is 300"));
    assert_eq!(ids, [5, 6, 300]);
}

proptest! {
    #[test]
    fn properties(
        ids in prop::collection::vec(prop_oneof![1 => 0u32..5, 6 => 5..VOCAB as u32], 0..80),
        seed: u64,
        rate in 0.01..1.0f64,
        unit in prop::sample::select(vec![MaskingUnit::Token, MaskingUnit::WholeWord, MaskingUnit::Span]),
        bernoulli: bool,
        max_targets in prop::option::of(1usize..20),
    ) {
        let table = table();
        let (is_token, bernoulli) = (unit == MaskingUnit::Token, bernoulli && unit != MaskingUnit::Span);
        let selection = if bernoulli { Selection::Bernoulli } else { Selection::Fixed };
        let mut masking = Masking::bert().rate(rate).unit(unit).selection(selection);
        if let Some(max) = max_targets {
            masking = masking.max_targets(max);
        }
        let mut now = ids.clone();
        let targets = masking.mask(&mut now, &table, 0, &mut stream(seed, 0)).unwrap();

        let mut again = ids.clone();
        prop_assert_eq!(&masking.mask(&mut again, &table, 0, &mut stream(seed, 0)).unwrap(), &targets);
        prop_assert_eq!(&again, &now);

        let ordinary = ids.iter().filter(|&&id| !table.is_special(id)).count();
        prop_assert_eq!(targets.is_empty(), ordinary == 0);
        prop_assert!(targets.windows(2).all(|pair| pair[0].position < pair[1].position));

        let mut is_target = vec![false; ids.len()];
        for target in &targets {
            prop_assert!(!table.is_special(target.original));
            prop_assert_eq!(target.original, ids[target.position as usize]);
            is_target[target.position as usize] = true;
        }
        for position in 0..ids.len() {
            prop_assert!(is_target[position] || now[position] == ids[position]);
            let same_word = position > 0
                && table.continues_word(ids[position])
                && !table.is_special(ids[position - 1]);
            if !is_token && same_word {
                prop_assert_eq!(is_target[position], is_target[position - 1], "a word at {} is split", position);
            }
        }
        if ordinary > 0 && is_token {
            let limit = max_targets.unwrap_or(usize::MAX);
            prop_assert!(targets.len() <= limit);
            if !bernoulli {
                let count = ((rate * ordinary as f64).round() as usize).clamp(1, limit);
                prop_assert_eq!(targets.len(), count);
            }
        }
    }
}
