//! The course's section on question answering: its tokens, its table of logits, and the order of its five best spans.

use std::path::PathBuf;

use cloze::bert::spans;
use cloze::prelude::*;
use serde::Deserialize;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The contents of `course/question_answering.json` in the data folder.
#[derive(Deserialize)]
struct Course {
    question: String,
    context: String,
    expected: Expected,
}

#[derive(Deserialize)]
struct Expected {
    answer: String,
    start: usize,
    end: usize,
    top5: Vec<(f32, String)>,
}

/// Returns the course's input and the window that the pipeline encodes, with the vocabulary of bert-base-uncased.
/// Returns `None` if the data are missing.
fn course() -> Result<Option<(Course, Encoding)>> {
    let Some(data) = std::env::var_os("CLOZE_DATA").map(PathBuf::from) else {
        println!(
            "SKIPPED: CLOZE_DATA is not set to a folder with course/question_answering.json and the vocabulary of \
             bert-base-uncased"
        );
        return Ok(None);
    };
    let course: Course = serde_json::from_str(&std::fs::read_to_string(data.join("course/question_answering.json"))?)?;
    let vocabulary = data.join("vocab/bert-base-uncased-vocab.txt");
    let tokenizer = Tokenizer::from_vocab_file(vocabulary, &TokenizerOptions::uncased())?;
    let config = BertConfig {
        hidden_size: 8,
        num_attention_heads: 1,
        intermediate_size: 8,
        num_hidden_layers: 1,
        ..BertConfig::tiny(tokenizer.vocab_size())
    };
    let model = BertForQuestionAnswering::new(&config, &Device::Cpu, 0)?;
    let mut windows = QuestionAnswering::new(model, tokenizer)?.encode(&course.question, &course.context)?;
    assert_eq!(windows.len(), 1);
    Ok(Some((course, windows.remove(0))))
}

fn text(context: &str, window: &Encoding, start: usize, end: usize) -> String {
    let (from, to) = (window.offsets[start].0, window.offsets[end].1);
    context.chars().skip(from).take(to - from).collect()
}

#[test]
fn the_answer_is_tokens_6_to_11() -> Result {
    let Some((course, window)) = course()? else { return Ok(()) };
    let Expected { answer, start, end, .. } = &course.expected;
    assert_eq!((*start, *end), (6, 11));
    assert_eq!(&text(&course.context, &window, *start, *end), answer);
    assert_eq!(window.tokens[..6], ["[CLS]", "who", "discovered", "brazil", "?", "[SEP]"]);
    let types: Vec<u32> = (0..window.len()).map(|at| u32::from(at > 5)).collect();
    assert_eq!(window.token_types, types);
    assert_eq!(window.tokens.last().map(String::as_str), Some("[SEP]"));
    Ok(())
}

/// Uses logits whose sums for the course's five spans are the course's scores. All other sums are lower.
#[test]
fn the_five_best_spans_in_order() -> Result {
    let Some((course, window)) = course()? else { return Ok(()) };
    let (context, top) = (&course.context, &course.expected.top5);
    let spans_of = |wanted: &str| -> Option<(usize, usize)> {
        let own: Vec<usize> = (0..window.len()).filter(|&at| window.sequence_ids[at] == Some(1)).collect();
        let pairs = own.iter().flat_map(|&i| own.iter().filter(move |&&j| j >= i).map(move |&j| (i, j)));
        pairs.into_iter().find(|&(i, j)| text(context, &window, i, j) == wanted)
    };
    let found = top
        .iter()
        .map(|(_, wanted)| spans_of(wanted))
        .collect::<Option<Vec<_>>>()
        .ok_or("a span is missing from the context")?;
    let (mut start, mut end) = (vec![-20.0f32; window.len()], vec![-20.0f32; window.len()]);
    let (first, last) = found[0];
    start[first] = 8.0;
    end[last] = top[0].0 - start[first];
    for ((score, _), &(i, j)) in top.iter().zip(&found).skip(1) {
        if i == first {
            end[j] = score - start[i];
        } else {
            start[i] = score - end[j];
        }
    }
    let allowed: Vec<bool> = window.sequence_ids.iter().map(|&sequence| sequence == Some(1)).collect();
    let best = spans::best(&start, &end, &allowed, 30, 5);
    assert_eq!(best.len(), 5);
    for (span, (score, expected)) in best.iter().zip(top) {
        assert_eq!(&text(context, &window, span.start, span.end), expected);
        assert!((span.score - score).abs() < 1e-5, "{} against {score}", span.score);
    }
    let independent = spans::independent(&start, &end, &allowed).ok_or("no token is allowed")?;
    assert_eq!((independent.start, independent.end), found[0]);
    Ok(())
}

/// Uses the logits of the course's table for `[CLS] Pedro Álvares Cabral descobriu`.
#[test]
fn the_table_of_five_tokens_gives_pedro_to_cabral() {
    let (start, end) = ([-5.3, 7.2, 5.8, 0.8, -0.4], [-5.0, 0.5, 6.1, 7.5, -2.1]);
    let best = spans::best(&start, &end, &[true; 5], 30, 1);
    assert_eq!((best[0].start, best[0].end), (1, 3));
    assert_eq!(spans::independent(&start, &end, &[true; 5]), Some(best[0]));
}
