//! Metrics of re-ranking: whether the relevant documents of each query have the highest scores.

use std::collections::HashMap;

use super::check;
use crate::Result;

/// The scores of a ranking, each a mean over queries, from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RankingScores {
    /// Mean average precision.
    pub map: f64,
    /// Mean reciprocal rank of the first relevant document; 0 if it is not among the first k.
    pub mrr: f64,
    /// Normalised discounted cumulative gain of the first k documents.
    pub ndcg: f64,
    /// The number of queries.
    pub queries: usize,
}

/// Returns how well `scores` rank documents, of which `relevant` says whether they answer their query. The documents of
/// a query are those with the same entry in `queries`. Only the first `k` count for MRR and NDCG. A query without
/// relevant documents scores 0.
///
/// The results are those of `CrossEncoderRerankingEvaluator` of `sentence-transformers` if no two documents of a query have
/// the same score. With equal scores, MRR ranks relevant documents last.
///
/// Source: C. D. Manning, P. Raghavan, H. Schütze, "Introduction to Information Retrieval", 2008, section 8.4.
///
/// # Errors
/// Returns an error if there are no scores, or if the numbers of queries, documents and scores differ.
pub fn ranking<S: AsRef<str>>(queries: &[S], relevant: &[bool], scores: &[f64], k: usize) -> Result<RankingScores> {
    check(scores.len(), relevant.len())?;
    check(scores.len(), queries.len())?;
    let mut by_query: Vec<Vec<(f64, bool)>> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for ((query, &relevant), &score) in queries.iter().zip(relevant).zip(scores) {
        let place = *places.entry(query.as_ref()).or_insert(by_query.len());
        if place == by_query.len() {
            by_query.push(Vec::new());
        }
        by_query[place].push((score, relevant));
    }
    let mut sums = RankingScores { queries: by_query.len(), ..RankingScores::default() };
    for documents in &mut by_query {
        documents.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        sums.map += average_precision_of(documents);
        let first = documents.iter().take(k).position(|(_, relevant)| *relevant);
        sums.mrr += first.map_or(0.0, |rank| 1.0 / (rank + 1) as f64);
        sums.ndcg += ndcg(documents, k);
    }
    let count = by_query.len() as f64;
    Ok(RankingScores { map: sums.map / count, mrr: sums.mrr / count, ndcg: sums.ndcg / count, ..sums })
}

/// Returns the average precision of `scores`: the mean, over the relevant ones, of the fraction of relevant ones among those
/// that score as high or higher; 0 if none is relevant.
///
/// The result equals scikit-learn's `average_precision_score`.
///
/// # Errors
/// Returns an error if there are no scores, or if the numbers of scores differ.
pub fn average_precision(relevant: &[bool], scores: &[f64]) -> Result<f64> {
    check(scores.len(), relevant.len())?;
    let mut documents: Vec<(f64, bool)> = scores.iter().copied().zip(relevant.iter().copied()).collect();
    documents.sort_by(|a, b| b.0.total_cmp(&a.0));
    Ok(average_precision_of(&documents))
}

/// Computes the average precision of documents sorted by score, highest first. Equal scores are one step.
fn average_precision_of(documents: &[(f64, bool)]) -> f64 {
    let (mut seen, mut found, mut sum) = (0, 0, 0.0);
    for same in documents.chunk_by(|a, b| a.0 == b.0) {
        let more = same.iter().filter(|(_, relevant)| *relevant).count();
        (seen, found) = (seen + same.len(), found + more);
        sum += more as f64 * found as f64 / seen as f64;
    }
    if found == 0 { 0.0 } else { sum / found as f64 }
}

/// Computes the NDCG of the first `k` documents, sorted by score, highest first. Documents with equal scores share the mean
/// of their gains, as in scikit-learn's `ndcg_score`.
fn ndcg(documents: &[(f64, bool)], k: usize) -> f64 {
    let discounts = |ranks: std::ops::Range<usize>| -> f64 {
        (ranks.start..ranks.end.min(k)).map(|rank| 1.0 / (rank as f64 + 2.0).log2()).sum()
    };
    let (mut rank, mut gain, mut found) = (0, 0.0, 0);
    for same in documents.chunk_by(|a, b| a.0 == b.0) {
        let more = same.iter().filter(|(_, relevant)| *relevant).count();
        gain += more as f64 / same.len() as f64 * discounts(rank..rank + same.len());
        (rank, found) = (rank + same.len(), found + more);
    }
    if found == 0 { 0.0 } else { gain / discounts(0..found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEVANT: [bool; 12] = [false, true, false, true, false, false, false, true, false, false, false, true];
    const SCORES: [f64; 12] = [0.9, 0.3, 0.8, 0.85, 0.1, 0.2, 0.7, 0.75, 0.4, 0.5, 0.35, 0.05];

    /// Expected values from scikit-learn 1.9 (`average_precision_score`, `ndcg_score` with `k=3`) and the reciprocal rank of
    /// `CrossEncoderRerankingEvaluator` of sentence-transformers 6.2 with `at_k=3`, on the queries a (first 5 documents), b
    /// (next 4), c (one document that is not relevant) and d (last 2).
    #[test]
    fn scores_are_those_of_sentence_transformers() {
        let queries = ["a", "a", "a", "a", "a", "b", "b", "b", "b", "c", "d", "d"];
        let found = ranking(&queries, &RELEVANT, &SCORES, 3).unwrap();
        let expected = RankingScores { map: 0.5, mrr: 0.5, ndcg: 0.5044456402014997, queries: 4 };
        for (found, expected) in [(found.map, expected.map), (found.mrr, expected.mrr), (found.ndcg, expected.ndcg)] {
            assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
        }
        assert_eq!(found.queries, 4);
        // The order of the rows does not matter.
        let turned = |from: &[bool]| from.iter().rev().copied().collect::<Vec<_>>();
        let (mut backwards, mut scores) = (queries, SCORES);
        backwards.reverse();
        scores.reverse();
        let again = ranking(&backwards, &turned(&RELEVANT), &scores, 3).unwrap();
        assert!((again.map - found.map).abs() < 1e-12 && (again.mrr - found.mrr).abs() < 1e-12);
        assert!((average_precision(&RELEVANT, &SCORES).unwrap() - 0.41666666666666663).abs() < 1e-9);
    }

    /// Expected values from scikit-learn 1.9, with the scores rounded to one digit.
    #[test]
    fn equal_scores_are_those_of_sklearn() {
        let scores = SCORES.map(|score| (score * 5.0).round() / 5.0);
        assert!((average_precision(&RELEVANT, &scores).unwrap() - 0.3666666666666667).abs() < 1e-9);
        let found = ranking(&["q"; 12], &RELEVANT, &scores, 5).unwrap();
        assert!((found.ndcg - 0.3803197841178518).abs() < 1e-9, "{found:?}");
        // MRR ranks a relevant document after one that scores the same.
        assert_eq!(ranking(&["q"; 3], &[true, false, false], &[1.0, 1.0, 0.0], 10).unwrap().mrr, 0.5);
    }

    #[test]
    fn errors() {
        assert!(ranking(&[] as &[&str], &[], &[], 10).is_err());
        assert!(ranking(&["q"], &[true], &[0.5, 0.1], 10).is_err());
        assert!(ranking(&["q", "q"], &[true], &[0.5], 10).is_err());
        assert!(average_precision(&[], &[]).is_err());
    }
}
