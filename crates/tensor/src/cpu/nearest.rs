//! The rows of a matrix with the largest scores against a query, for rows in f32, in int8 with a step for each, and in bits.
//!
//! Blocks of rows are scored against all queries while they are in the cache. Each score is computed in the same order
//! whatever the number of queries and threads, so a query finds the same alone and among others.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::lanes::sum2;
use super::parallel::for_tasks;
use super::simd::simd;

/// Rows that are scored at a time.
const BLOCK: usize = 128;
/// The most rows of a task, which a thread takes.
const TASK: usize = 8192;

/// Rows of a width, and what they are compared with.
#[derive(Clone, Copy)]
pub(crate) enum Rows<'m> {
    /// The score is the product with a query in f32.
    F32 { rows: &'m [f32], width: usize },
    /// Whole numbers from -127 to 127, and for each row what they are multiplied by. The score is the product with a query of
    /// whole numbers, which is exact before it is multiplied by the two steps.
    Int8 { rows: &'m [i8], steps: &'m [f32], width: usize },
    /// A bit for each element, in words of which the rest is 0. The score is 1 - 2 d / `width`, with the number d of bits that
    /// differ from those of the query: the cosine of two vectors of -1 and 1.
    Bits { rows: &'m [u32], width: usize },
}

/// A query, in the form that the rows need.
#[derive(Clone, Copy)]
pub(crate) enum Query<'q> {
    Numbers(&'q [f32]),
    /// Whole numbers whose absolute values are at most [`most_level`], and what they are multiplied by.
    Levels(&'q [i16], f32),
    Bits(&'q [u32]),
}

/// Returns the largest whole number of a query of this width: the sum of its products with numbers up to 127 fits in an i32.
pub(crate) fn most_level(width: usize) -> i16 {
    (i32::MAX as usize / (127 * width.max(1))).min(i16::MAX as usize) as i16
}

impl Rows<'_> {
    pub(crate) fn count(self) -> usize {
        match self {
            Rows::F32 { rows, width } => rows.len() / width,
            Rows::Int8 { steps, .. } => steps.len(),
            Rows::Bits { rows, width } => rows.len() / width.div_ceil(32),
        }
    }

    fn score(self, range: Range<usize>, query: Query<'_>, scores: &mut [f32]) {
        match (self, query) {
            (Rows::F32 { rows, width }, Query::Numbers(query)) => {
                products(&rows[range.start * width..range.end * width], query, scores);
            }
            (Rows::Int8 { rows, steps, width }, Query::Levels(query, step)) => {
                int8_products(&rows[range.start * width..range.end * width], &steps[range], query, step, scores);
            }
            (Rows::Bits { rows, width }, Query::Bits(query)) => {
                let words = query.len();
                differing_bits(&rows[range.start * words..range.end * words], query, scores);
                scores.iter_mut().for_each(|score| *score = 1.0 - 2.0 * *score / width as f32);
            }
            _ => unreachable!("the caller prepares queries for the rows"),
        }
    }
}

simd! {
    fn products(rows: &[f32], query: &[f32], scores: &mut [f32]) {
        for (score, row) in scores.iter_mut().zip(rows.chunks_exact(query.len())) {
            *score = sum2(row, query, |x, y| x * y);
        }
    }

    fn int8_products(rows: &[i8], steps: &[f32], query: &[i16], query_step: f32, scores: &mut [f32]) {
        for ((score, row), &step) in scores.iter_mut().zip(rows.chunks_exact(query.len())).zip(steps) {
            let sum: i32 = row.iter().zip(query).map(|(&x, &y)| i32::from(x) * i32::from(y)).sum();
            *score = sum as f32 * (step * query_step);
        }
    }

    fn differing_bits(rows: &[u32], query: &[u32], scores: &mut [f32]) {
        for (score, row) in scores.iter_mut().zip(rows.chunks_exact(query.len())) {
            let differing: u32 = row.iter().zip(query).map(|(x, y)| (x ^ y).count_ones()).sum();
            *score = differing as f32;
        }
    }
}

/// Returns the `k` rows with the largest scores against each query with their scores, largest first, and rows of the same score
/// in their order.
pub(crate) fn nearest(rows: Rows<'_>, queries: &[Query<'_>], k: usize) -> Vec<Vec<(usize, f32)>> {
    let (count, k) = (rows.count(), k.min(rows.count()));
    let found: Vec<Mutex<Best>> = queries.iter().map(|_| Mutex::new(Best::new(k))).collect();
    let width = match rows {
        Rows::F32 { width, .. } | Rows::Int8 { width, .. } => width,
        Rows::Bits { width, .. } => width.div_ceil(32),
    };
    for_tasks(
        count.div_ceil(TASK),
        count.saturating_mul(width).saturating_mul(queries.len()),
        || [0f32; BLOCK],
        |scores, task| {
            let mut own: Vec<Best> = queries.iter().map(|_| Best::new(k)).collect();
            let end = ((task + 1) * TASK).min(count);
            for start in (task * TASK..end).step_by(BLOCK) {
                let range = start..(start + BLOCK).min(end);
                for (query, best) in queries.iter().zip(&mut own) {
                    let scores = &mut scores[..range.len()];
                    rows.score(range.clone(), *query, scores);
                    best.add(start, scores);
                }
            }
            for (all, own) in found.iter().zip(own) {
                all.lock().unwrap_or_else(PoisonError::into_inner).merge(own);
            }
        },
    );
    found.into_iter().map(|best| best.into_inner().unwrap_or_else(PoisonError::into_inner).into_sorted()).collect()
}

/// The rows with the largest scores so far.
struct Best {
    k: usize,
    candidates: Vec<(usize, f32)>,
    /// Lower scores cannot be among the best.
    least: f32,
}

fn order(a: &(usize, f32), b: &(usize, f32)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

impl Best {
    fn new(k: usize) -> Best {
        Best { k, candidates: Vec::new(), least: f32::NEG_INFINITY }
    }

    /// Adds the scores of the rows from `start` on.
    fn add(&mut self, start: usize, scores: &[f32]) {
        if self.k == 0 {
            return;
        }
        for (at, &score) in scores.iter().enumerate() {
            if score >= self.least {
                self.candidates.push((start + at, score));
            }
        }
        if self.candidates.len() >= 2 * self.k + BLOCK {
            self.cut();
        }
    }

    /// Drops all but the best.
    fn cut(&mut self) {
        if self.candidates.len() > self.k {
            self.candidates.select_nth_unstable_by(self.k - 1, order);
            self.candidates.truncate(self.k);
            self.least = self.candidates[self.k - 1].1;
        }
    }

    fn merge(&mut self, other: Best) {
        self.candidates.extend(other.candidates);
        self.cut();
    }

    fn into_sorted(mut self) -> Vec<(usize, f32)> {
        self.candidates.sort_unstable_by(order);
        self.candidates.truncate(self.k);
        self.candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::parallel::testing::with_threads;
    use crate::cpu::simd::testing::{at_each_level, steady_level};
    use crate::cpu::testing::{random_in, small_for_miri};

    fn expected(scores: &[f64], k: usize) -> Vec<usize> {
        let mut rows: Vec<usize> = (0..scores.len()).collect();
        rows.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        rows.truncate(k);
        rows
    }

    /// Compares with scores in f64. The numbers are small whole ones, so that every sum is exact.
    fn check(count: usize, width: usize) {
        let whole = |seed: u64, count: usize| -> Vec<i8> {
            random_in::<f32>(count, seed).iter().map(|x| (x * 3.0).round() as i8).collect()
        };
        let (rows, steps) = (whole(1, count * width), vec![0.5f32; count]);
        let queries: Vec<Vec<f32>> = (0..3).map(|q| whole(2 + q, width).into_iter().map(f32::from).collect()).collect();
        let product =
            |row: &[i8], query: &[f32]| row.iter().zip(query).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
        let wide: Vec<f32> = rows.iter().copied().map(f32::from).collect();
        let numbers: Vec<Query<'_>> = queries.iter().map(|query| Query::Numbers(query)).collect();
        for k in [0, 1, 7, count + 3] {
            let in_f32 = nearest(Rows::F32 { rows: &wide, width }, &numbers, k);
            let levels: Vec<Vec<i16>> = queries.iter().map(|query| query.iter().map(|&x| x as i16).collect()).collect();
            let levels: Vec<Query<'_>> = levels.iter().map(|levels| Query::Levels(levels, 1.0)).collect();
            let in_int8 = nearest(Rows::Int8 { rows: &rows, steps: &steps, width }, &levels, k);
            for (query, (in_f32, in_int8)) in queries.iter().zip(in_f32.iter().zip(&in_int8)) {
                let scores: Vec<f64> = rows.chunks_exact(width).map(|row| product(row, query)).collect();
                let best = expected(&scores, k);
                let pairs = |factor: f64| -> Vec<(usize, f32)> {
                    best.iter().map(|&row| (row, (factor * scores[row]) as f32)).collect()
                };
                assert_eq!((in_f32, in_int8), (&pairs(1.0), &pairs(0.5)), "{count} rows of {width}, {k}");
            }
        }
    }

    fn check_bits(count: usize, width: usize) {
        let bits = |seed: u64, rows: usize| -> Vec<bool> {
            random_in::<f32>(rows * width, seed).iter().map(|x| *x > 0.0).collect()
        };
        let pack = |bits: &[bool]| -> Vec<u32> {
            let word = |bits: &[bool]| bits.iter().enumerate().fold(0, |word, (at, &bit)| word | u32::from(bit) << at);
            bits.chunks(width).flat_map(|row| row.chunks(32).map(word)).collect()
        };
        let (rows, query) = (bits(1, count), bits(2, 1));
        let agreeing = |row: &[bool]| row.iter().zip(&query).map(|(a, b)| if a == b { 1.0 } else { -1.0 }).sum::<f64>();
        let scores: Vec<f64> = rows.chunks_exact(width).map(agreeing).collect();
        let best = expected(&scores, 5);
        let found = nearest(Rows::Bits { rows: &pack(&rows), width }, &[Query::Bits(&pack(&query))], 5);
        assert_eq!(found[0].iter().map(|(row, _)| *row).collect::<Vec<_>>(), best);
        for (row, score) in &found[0] {
            assert!((f64::from(*score) - scores[*row] / width as f64).abs() < 1e-6);
        }
    }

    #[test]
    fn the_best_rows_are_those_of_all_scores() {
        at_each_level(|_| {
            for (count, width) in [(1, 1), (5, 31), (300, 32), (130, 77), (small_for_miri(1000, 150), 8)] {
                check(count, width);
                check_bits(count, width);
            }
            assert!(nearest(Rows::F32 { rows: &[], width: 3 }, &[Query::Numbers(&[0.0; 3])], 2)[0].is_empty());
        });
    }

    #[test]
    fn the_largest_sums_fit() {
        for width in [1, 512, 768, 4096] {
            let most = most_level(width);
            let (rows, query) = (vec![-127i8; width], vec![most; width]);
            let found = nearest(Rows::Int8 { rows: &rows, steps: &[1.0], width }, &[Query::Levels(&query, 1.0)], 1);
            assert_eq!(found[0], [(0, (-127.0 * f64::from(most) * width as f64) as f32)]);
        }
    }

    #[test]
    fn neither_threads_nor_other_queries_change_a_bit() {
        let _steady = steady_level();
        let (count, width) = (small_for_miri(3 * TASK + 17, 200), 5);
        let (rows, queries) = (random_in::<f32>(count * width, 1), random_in::<f32>(9 * width, 2));
        let queries: Vec<Query<'_>> = queries.chunks_exact(width).map(Query::Numbers).collect();
        let rows = Rows::F32 { rows: &rows, width };
        let [one, two, five, team] = with_threads(|| nearest(rows, &queries, 40));
        assert!(one == two && one == five && one == team);
        assert_eq!(one[4], nearest(rows, &queries[4..5], 40)[0]);
    }
}
