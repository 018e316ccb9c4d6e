//! Splitting examples into a part to train on and a part to evaluate on.
//!
//! Each split is the same for the same examples, fraction and seed, and both parts keep the order of the examples.

use std::collections::BTreeMap;

use cloze_tensor::random::Stream;

use crate::{Error, Result};

/// Splits examples at random, and returns those to train on and those to evaluate on: `fraction` of all, rounded, but at
/// least one.
///
/// ```
/// use cloze_train::split_rows;
/// let (training, held_out) = split_rows((0..10).collect(), 0.2, 42)?;
/// assert_eq!((training.len(), held_out.len()), (8, 2));
/// # Ok::<(), cloze_train::Error>(())
/// ```
///
/// # Errors
/// Returns an error if `fraction` is not between 0 and 1, or there are fewer than two examples.
pub fn split_rows<T>(examples: Vec<T>, fraction: f64, seed: u64) -> Result<(Vec<T>, Vec<T>)> {
    let held_out = held_out(examples.len(), fraction)?;
    let mut order: Vec<usize> = (0..examples.len()).collect();
    Stream::seeded(seed).shuffle(&mut order);
    order.truncate(held_out);
    Ok(divided(examples, &order))
}

/// Splits examples like [`split_rows`], but takes the same fraction of each class, as nearly as whole examples allow. The last
/// example of a class is never held out, so a class with a single one is only trained on.
///
/// ```
/// use cloze_train::{Row, split_by_class};
/// let rows = (0..20).map(|line| Row::new(line, "a text", i64::from(line % 4 == 0))).collect();
/// let (training, held_out) = split_by_class(rows, 0.2, 42, |row: &Row| row.label.to_string())?;
/// let ones = |rows: &[Row]| rows.iter().filter(|row| row.label == 1.into()).count();
/// assert_eq!((training.len(), ones(&training), held_out.len(), ones(&held_out)), (16, 4, 4, 1));
/// # Ok::<(), cloze_train::Error>(())
/// ```
///
/// # Errors
/// Returns an error if `fraction` is not between 0 and 1, there are fewer than two examples, or no class has two.
pub fn split_by_class<T, C: Ord>(
    examples: Vec<T>,
    fraction: f64,
    seed: u64,
    class: impl Fn(&T) -> C,
) -> Result<(Vec<T>, Vec<T>)> {
    let held_out = held_out(examples.len(), fraction)?;
    let mut classes: Vec<Vec<usize>> = grouped(&examples, class);
    let most: usize = classes.iter().map(|members| members.len() - 1).sum();
    if most == 0 {
        let classes = classes.len();
        let why = format!("each of the {classes} classes has one: a split needs a class with at least two");
        return Err(Error::data("examples", why));
    }
    let sizes: Vec<usize> = classes.iter().map(Vec::len).collect();
    let shares = shares(&sizes, fraction, held_out.min(most));
    let mut stream = Stream::seeded(seed);
    for (members, share) in classes.iter_mut().zip(shares) {
        stream.shuffle(members);
        members.truncate(share);
    }
    Ok(divided(examples, &classes.concat()))
}

/// Splits examples like [`split_rows`], but keeps those of a group together, such as the documents of a query or the questions
/// about an article, so that nothing that is evaluated was seen in training. As many groups are held out as bring the number of
/// examples nearest to `fraction` of all, but at least one.
///
/// # Errors
/// Returns an error if `fraction` is not between 0 and 1, or there are fewer than two groups.
pub fn split_by_group<T, G: Ord>(
    examples: Vec<T>,
    fraction: f64,
    seed: u64,
    group: impl Fn(&T) -> G,
) -> Result<(Vec<T>, Vec<T>)> {
    let target = held_out(examples.len(), fraction)?;
    let mut groups = grouped(&examples, group);
    if groups.len() < 2 {
        let why = format!("all {} are in one group: a split needs at least two groups", examples.len());
        return Err(Error::data("examples", why));
    }
    Stream::seeded(seed).shuffle(&mut groups);
    let (mut held_out, mut is_any_left) = (Vec::new(), false);
    for (at, members) in groups.iter().enumerate() {
        let (now, then) = (held_out.len(), held_out.len() + members.len());
        if then.abs_diff(target) <= now.abs_diff(target) && (is_any_left || at + 1 < groups.len()) {
            held_out.extend_from_slice(members);
        } else {
            is_any_left = true;
        }
    }
    // All are too large.
    if held_out.is_empty()
        && let Some(smallest) = groups.iter().min_by_key(|members| members.len())
    {
        held_out.clone_from(smallest);
    }
    Ok(divided(examples, &held_out))
}

/// Returns the number of examples that are held out.
fn held_out(examples: usize, fraction: f64) -> Result<usize> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(Error::invalid("fraction", fraction, "above 0 and below 1"));
    }
    if examples < 2 {
        let why = format!("there are {examples}: a split needs at least two, to train on and to evaluate on");
        return Err(Error::data("examples", why));
    }
    Ok(((examples as f64 * fraction).round() as usize).clamp(1, examples - 1))
}

/// Returns the indices of the members of each class, in the order of the classes.
fn grouped<T, C: Ord>(examples: &[T], class: impl Fn(&T) -> C) -> Vec<Vec<usize>> {
    let mut classes: BTreeMap<C, Vec<usize>> = BTreeMap::new();
    for (index, example) in examples.iter().enumerate() {
        classes.entry(class(example)).or_default().push(index);
    }
    classes.into_values().collect()
}

/// Divides `total` between classes of these sizes in proportion, by largest remainders, and leaves at least one member of each.
fn shares(sizes: &[usize], fraction: f64, total: usize) -> Vec<usize> {
    let exact = |class: usize| sizes[class] as f64 * fraction;
    let mut shares: Vec<usize> = (0..sizes.len()).map(|class| (exact(class) as usize).min(sizes[class] - 1)).collect();
    let mut by_remainder: Vec<usize> = (0..sizes.len()).collect();
    by_remainder.sort_by(|&a, &b| exact(b).fract().total_cmp(&exact(a).fract()));
    let mut given: usize = shares.iter().sum();
    while given < total {
        for &class in &by_remainder {
            if given < total && shares[class] + 1 < sizes[class] {
                (shares[class], given) = (shares[class] + 1, given + 1);
            }
        }
    }
    shares
}

/// Returns the examples whose index is not in `held_out`, and those whose index is.
fn divided<T>(examples: Vec<T>, held_out: &[usize]) -> (Vec<T>, Vec<T>) {
    let mut is_held_out = vec![false; examples.len()];
    held_out.iter().for_each(|&index| is_held_out[index] = true);
    let (held_out, training): (Vec<_>, Vec<_>) =
        examples.into_iter().zip(is_held_out).partition(|(_, is_held_out)| *is_held_out);
    let only = |part: Vec<(T, bool)>| part.into_iter().map(|(example, _)| example).collect();
    (only(training), only(held_out))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fractions_and_too_few_examples_are_refused() {
        let said = |count: usize, fraction: f64| split_rows(vec![(); count], fraction, 1).unwrap_err().to_string();
        for fraction in [0.0, 1.0, -0.1, 1.5, f64::NAN, f64::INFINITY] {
            let expected = format!("fraction is {fraction}, must be above 0 and below 1");
            assert!(said(9, fraction).contains(&expected), "{}", said(9, fraction));
        }
        assert!(said(1, 0.5).ends_with("there are 1: a split needs at least two, to train on and to evaluate on"));
        let said = split_by_class(vec![1, 2, 3], 0.5, 1, |class| *class).unwrap_err().to_string();
        assert!(said.ends_with("each of the 3 classes has one: a split needs a class with at least two"), "{said}");
        let said = split_by_group(vec![1, 2, 3], 0.5, 1, |_| ()).unwrap_err().to_string();
        assert!(said.ends_with("all 3 are in one group: a split needs at least two groups"), "{said}");
    }

    /// As in scikit-learn's `train_test_split` with `stratify`, where that leaves no choice.
    #[test]
    fn shares_of_classes() {
        assert_eq!(shares(&[33, 33, 34], 0.1, 10), [3, 3, 4]);
        assert_eq!(shares(&[7, 13, 20], 0.3, 12), [2, 4, 6]);
        assert_eq!(shares(&[2, 5, 93], 0.2, 20), [0, 1, 19]);
        // Classes of one example give none.
        assert_eq!(shares(&[1, 1, 4, 2], 0.9, 4), [0, 0, 3, 1]);
    }

    #[test]
    fn a_large_group_is_held_out_only_if_there_is_no_other() {
        // Whatever the order, 5 is nearer to 3 of 30 than 0 is, and 25 is not.
        let sizes = |seed| {
            let examples: Vec<usize> = (0..30).collect();
            let (training, held_out) = split_by_group(examples, 0.1, seed, |index| *index < 25).unwrap();
            (training.len(), held_out.len())
        };
        assert!((0..20).all(|seed| sizes(seed) == (25, 5)));
    }

    proptest! {
        #[test]
        fn parts_have_all_examples_in_order(
            classes in prop::collection::vec(0u8..5, 2..80), fraction in 0.01f64..0.99, seed in any::<u64>(),
        ) {
            let examples: Vec<(usize, u8)> = classes.iter().copied().enumerate().collect();
            let count = |part: &[(usize, u8)], class| part.iter().filter(|example| example.1 == class).count();
            let expected = ((examples.len() as f64 * fraction).round() as usize).clamp(1, examples.len() - 1);
            let plain = split_rows(examples.clone(), fraction, seed).unwrap();
            prop_assert_eq!(plain.1.len(), expected);
            let by_class = split_by_class(examples.clone(), fraction, seed, |example| example.1);
            let by_group = split_by_group(examples.clone(), fraction, seed, |example| example.1);
            for (training, held_out) in by_class.iter().chain(&by_group).chain([&plain]) {
                prop_assert!(training.is_sorted() && held_out.is_sorted() && !training.is_empty() && !held_out.is_empty());
                let mut all = [&training[..], held_out].concat();
                all.sort_unstable();
                prop_assert_eq!(&all, &examples);
            }
            prop_assert_eq!(&plain, &split_rows(examples.clone(), fraction, seed).unwrap());
            if let Ok((training, held_out)) = by_class {
                for class in 0..5 {
                    let all = count(&examples, class);
                    prop_assert!(all == 0 || count(&training, class) > 0);
                    let exact = all as f64 * fraction;
                    // Each class takes its share, rounded up or down, unless others cannot give theirs.
                    let is_near = (count(&held_out, class) as f64 - exact).abs() < 1.0;
                    prop_assert!(is_near || held_out.len() == expected || all == 1 || exact > all as f64 - 1.0);
                }
            }
            if let Ok((training, held_out)) = by_group {
                prop_assert!((0..5).all(|class| count(&training, class) == 0 || count(&held_out, class) == 0));
            }
        }

        /// Without classes that are too small to give their share.
        #[test]
        fn each_class_gives_its_share(
            sizes in prop::collection::vec(10usize..40, 1..6), fraction in 0.1f64..0.9, seed in any::<u64>(),
        ) {
            let examples: Vec<usize> = sizes.iter().enumerate().flat_map(|(class, size)| vec![class; *size]).collect();
            let expected = (examples.len() as f64 * fraction).round() as usize;
            let (_, held_out) = split_by_class(examples, fraction, seed, |class| *class).unwrap();
            prop_assert_eq!(held_out.len(), expected);
            for (class, size) in sizes.iter().enumerate() {
                let count = held_out.iter().filter(|other| **other == class).count();
                prop_assert!((count as f64 - *size as f64 * fraction).abs() < 1.0, "{count} of {size}");
            }
        }
    }

    #[test]
    fn another_seed_is_another_split() {
        let held_out = |seed| split_rows((0..100).collect::<Vec<u32>>(), 0.1, seed).unwrap().1;
        assert_ne!(held_out(1), held_out(2));
    }
}
