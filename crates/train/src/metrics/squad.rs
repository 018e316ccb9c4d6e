//! Exact match and F1 of answers, as SQuAD's official scripts compute them.

use std::collections::HashMap;

use super::check;
use crate::Result;

/// Which version's rules to apply. They differ for questions without an answer, and for answers that normalise to
/// nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SquadVersion {
    /// SQuAD 1.1: every question has an answer.
    #[default]
    V1_1,
    /// SQuAD 2.0: the right answer to an unanswerable question is the empty string.
    V2_0,
}

/// Exact match and F1 over a set of questions, in percent. The separate scores of questions with and without an answer
/// are NaN if there are no such questions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct SquadScores {
    /// Percentage of predictions that equal a right answer after [normalisation](squad_normalize).
    pub exact_match: f64,
    /// Mean word-level F1.
    pub f1: f64,
    /// Number of questions.
    pub total: usize,
    /// Exact match of questions that have an answer.
    pub has_answer_exact_match: f64,
    /// F1 of questions that have an answer.
    pub has_answer_f1: f64,
    /// Number of questions that have an answer.
    pub has_answer_total: usize,
    /// Exact match of questions without an answer, which is also their F1.
    pub no_answer_exact_match: f64,
    /// Number of questions without an answer.
    pub no_answer_total: usize,
}

impl SquadScores {
    /// Scores predicted answers against the right answers of each question. An empty prediction means "no answer", an
    /// empty list of right answers means that the question has none.
    ///
    /// Source: P. Rajpurkar, J. Zhang, K. Lopyrev, P. Liang, "SQuAD", 2016; P. Rajpurkar, R. Jia, P. Liang, "Know what
    /// you don't know", 2018; and their scripts `evaluate-v1.1.py` and `evaluate-v2.0.py`.
    ///
    /// # Errors
    /// Returns an error if there are no predictions, or if the numbers of predictions and questions differ.
    pub fn of<S: AsRef<str>, A: AsRef<str>>(
        predictions: &[S],
        answers: &[Vec<A>],
        version: SquadVersion,
    ) -> Result<SquadScores> {
        check(predictions.len(), answers.len())?;
        // Exact matches, sum of F1 and number of questions: first without an answer, then with one.
        let mut sums = [(0.0, 0.0, 0usize); 2];
        for (prediction, answers) in predictions.iter().zip(answers) {
            let (exact, f1, count) = &mut sums[usize::from(!answers.is_empty())];
            *exact += f64::from(u8::from(squad_exact_match(prediction.as_ref(), answers, version)));
            *f1 += squad_f1(prediction.as_ref(), answers, version);
            *count += 1;
        }
        let percent = |sum: f64, count: usize| if count == 0 { f64::NAN } else { 100.0 * sum / count as f64 };
        let [none, some] = sums;
        let total = none.2 + some.2;
        Ok(SquadScores {
            exact_match: percent(none.0 + some.0, total),
            f1: percent(none.1 + some.1, total),
            total,
            has_answer_exact_match: percent(some.0, some.2),
            has_answer_f1: percent(some.1, some.2),
            has_answer_total: some.2,
            no_answer_exact_match: percent(none.0, none.2),
            no_answer_total: none.2,
        })
    }
}

/// Normalises an answer for comparison: converts it to lower case, removes ASCII punctuation and the articles `a`, `an`
/// and `the`, and collapses white space.
///
/// ```
/// assert_eq!(cloze_train::metrics::squad_normalize(" The  Super-Bowl, of an era. "), "superbowl of era");
/// ```
pub fn squad_normalize(answer: &str) -> String {
    let lower = answer.to_lowercase();
    let without: String = lower.chars().filter(|character| !character.is_ascii_punctuation()).collect();
    // The script finds articles with `\b`, so that the `a` in "a—b" is one.
    let is_word = |character: char| character.is_alphanumeric();
    let mut text = String::with_capacity(without.len());
    let mut rest = without.as_str();
    while let Some(first) = rest.chars().next() {
        let ends = rest.find(|character: char| is_word(character) != is_word(first)).unwrap_or(rest.len());
        let (part, after) = rest.split_at(ends);
        text.push_str(if matches!(part, "a" | "an" | "the") { " " } else { part });
        rest = after;
    }
    words(&text).collect::<Vec<_>>().join(" ")
}

/// Splits text into words like Python's `str.split`, which also treats four control characters as white space.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_space = |c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c);
    text.split(is_space).filter(|word| !word.is_empty())
}

/// Returns whether a predicted answer equals one of the right answers after [normalisation](squad_normalize). If there
/// is no right answer, the prediction must be empty.
pub fn squad_exact_match<A: AsRef<str>>(prediction: &str, answers: &[A], version: SquadVersion) -> bool {
    let prediction = squad_normalize(prediction);
    normalized(answers, version).contains(&prediction)
}

/// Returns the word-level F1, in [0, 1], of a predicted answer and the right answer closest to it, both
/// [normalised](squad_normalize).
pub fn squad_f1<A: AsRef<str>>(prediction: &str, answers: &[A], version: SquadVersion) -> f64 {
    let prediction = squad_normalize(prediction);
    normalized(answers, version).iter().map(|answer| word_f1(&prediction, answer, version)).fold(0.0, f64::max)
}

/// Returns the normalised right answers, or a single empty one if the question has no answer.
fn normalized<A: AsRef<str>>(answers: &[A], version: SquadVersion) -> Vec<String> {
    let mut answers: Vec<String> = answers.iter().map(|answer| squad_normalize(answer.as_ref())).collect();
    if version == SquadVersion::V2_0 {
        answers.retain(|answer| !answer.is_empty());
    }
    if answers.is_empty() {
        answers.push(String::new());
    }
    answers
}

fn word_f1(prediction: &str, answer: &str, version: SquadVersion) -> f64 {
    let (predicted, right): (Vec<&str>, Vec<&str>) = (words(prediction).collect(), words(answer).collect());
    if version == SquadVersion::V2_0 && (predicted.is_empty() || right.is_empty()) {
        return f64::from(u8::from(predicted == right));
    }
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in &right {
        *left.entry(word).or_default() += 1;
    }
    let mut same = 0usize;
    for word in &predicted {
        if let Some(count) = left.get_mut(word).filter(|count| **count > 0) {
            *count -= 1;
            same += 1;
        }
    }
    if same == 0 {
        return 0.0;
    }
    let (precision, recall) = (same as f64 / predicted.len() as f64, same as f64 / right.len() as f64);
    2.0 * precision * recall / (precision + recall)
}

#[cfg(test)]
mod tests {
    use super::super::test_stream::Lcg;
    use super::*;

    const WORDS: [&str; 19] = [
        "the",
        "a",
        "an",
        "cat",
        "Cat.",
        "dog-house",
        "d'or",
        "\u{2014}",
        "a\u{2014}b",
        "The,",
        "\u{130}stanbul",
        "\u{bd}",
        "_x_",
        "na\u{ef}ve",
        "\x1c",
        "1,000",
        "\u{2026}",
        "AN",
        "ΟΔΟΣ",
    ];

    /// Returns 500 questions, each as its right answers (up to 3, of up to 4 words) and a prediction. In half of the
    /// cases the prediction is the first right answer.
    fn questions() -> Vec<(Vec<String>, String)> {
        let mut random = Lcg(11);
        let text = |random: &mut Lcg| {
            let count = random.below(5);
            let word =
                |random: &mut Lcg| [WORDS[random.below(WORDS.len())], ["", " ", " ", "  "][random.below(4)]].concat();
            (0..count).map(|_| word(random)).collect::<String>()
        };
        let mut question = || {
            let count = random.below(4);
            let answers: Vec<String> = (0..count).map(|_| text(&mut random)).collect();
            let first =
                if answers.is_empty() { None } else { answers.first().cloned().filter(|_| random.below(2) == 0) };
            let prediction = first.unwrap_or_else(|| text(&mut random));
            (answers, prediction)
        };
        (0..500).map(|_| question()).collect()
    }

    /// Expected values from `evaluate-v1.1.py` and `evaluate-v2.0.py` of SQuAD's site. For 1.1, only questions that
    /// have an answer.
    #[test]
    fn as_the_scripts_of_squad() {
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
        let (answers, predictions): (Vec<_>, Vec<_>) =
            questions().into_iter().filter(|(answers, _)| !answers.is_empty()).unzip();
        let found = SquadScores::of(&predictions, &answers, SquadVersion::V1_1).unwrap();
        assert_eq!(found.total, 372);
        close(found.exact_match, 60.215053763440864);
        close(found.f1, 42.74193548387098);
        let (answers, predictions): (Vec<_>, Vec<_>) = questions().into_iter().unzip();
        let found = SquadScores::of(&predictions, &answers, SquadVersion::V2_0).unwrap();
        assert_eq!((found.total, found.has_answer_total, found.no_answer_total), (500, 372, 128));
        close(found.exact_match, 43.8);
        close(found.f1, 47.000000000000014);
        close(found.has_answer_exact_match, 48.38709677419355);
        close(found.has_answer_f1, 52.68817204301077);
        close(found.no_answer_exact_match, 30.46875);
    }

    /// Expected values from `normalize_answer` of the same scripts.
    #[test]
    fn normalized_as_the_scripts_do() {
        for (text, expected) in [
            (" The  Super-Bowl, of an era. ", "superbowl of era"),
            ("a\u{2014}b", "\u{2014}b"),
            ("The a an", ""),
            ("ΟΔΟΣ", "οδος"),
            ("x_the_y", "xthey"),
            ("the\u{301}", "\u{301}"),
            ("\u{130}stanbul", "i\u{307}stanbul"),
        ] {
            assert_eq!(squad_normalize(text), expected);
        }
    }

    #[test]
    fn questions_without_an_answer() {
        let answers = [vec!["the cat"], vec![]];
        let scores = SquadScores::of(&["cat", "cat"], &answers, SquadVersion::V2_0).unwrap();
        assert_eq!((scores.exact_match, scores.has_answer_f1, scores.no_answer_exact_match), (50.0, 100.0, 0.0));
        let scores = SquadScores::of(&["", ""], &answers, SquadVersion::V2_0).unwrap();
        assert_eq!((scores.f1, scores.has_answer_f1, scores.no_answer_total), (50.0, 0.0, 1));
        let all = SquadScores::of(&["cat"], &answers[..1], SquadVersion::V1_1).unwrap();
        assert!(all.no_answer_exact_match.is_nan() && all.total == 1);
        let none: [Vec<&str>; 0] = [];
        let error = SquadScores::of(&[] as &[&str], &none, SquadVersion::V1_1).unwrap_err().to_string();
        assert_eq!(error, "metric: no predictions");
    }
}
