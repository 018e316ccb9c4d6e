//! Answers of whole words, and the places of answers, words and entities in bytes.

use std::collections::BTreeMap;

use super::*;

/// Words in pieces, accents composed and decomposed, emoji of one and of several characters, and Chinese characters.
const CONTEXT: &str =
    "Olá, o coração 👩‍🚀 de José cated unsaidmatbarkedlooked: naïve — 漢字 ½ e\u{301}te\u{301} 🇧🇷 catmatdog, sat.";

/// The best score of an answer in a window, and the scores of all its spans.
type Scores = (f32, Vec<f32>);

/// The characters that a word of the context has in any window.
type Places = BTreeMap<u32, (usize, usize)>;

fn places(windows: &[Encoding]) -> Places {
    let mut places = Places::new();
    for window in windows {
        for at in (0..window.len()).filter(|&at| window.sequence_ids[at] == Some(1)) {
            let place = places.entry(window.word_ids[at].unwrap()).or_insert(window.offsets[at]);
            *place = (place.0.min(window.offsets[at].0), place.1.max(window.offsets[at].1));
        }
    }
    places
}

/// Compares with the definition: the best span of each pair of words, and the probability of all of them. Windows cut
/// words.
#[test]
fn answers_are_whole_words() -> Result {
    let (tokenizer, model) = (tokenizer()?, model::<BertForQuestionAnswering>(2, 4)?);
    let question = "where sat it?";
    let mut was_cut = false;
    for (max_length, stride, longest) in [(64, 16, 5), (24, 7, 4), (15, 3, 30), (12, 1, 2)] {
        let pipeline = QuestionAnswering::new(model.clone(), tokenizer.clone())?
            .max_length(max_length)
            .stride(stride)
            .max_answer_length(longest);
        let windows = pipeline.encode(question, CONTEXT)?;
        let places = places(&windows);
        // The best score and the spans of each answer, by window.
        let mut answers: BTreeMap<(usize, usize), Vec<Scores>> = BTreeMap::new();
        let mut all = Vec::new();
        for window in &windows {
            let logits = model.forward(&one(window)?, Mode::Eval)?.to_vec::<f32>()?;
            let mut here: BTreeMap<(usize, usize), Vec<f32>> = BTreeMap::new();
            let of_context = |at: &usize| window.sequence_ids[*at] == Some(1);
            for start in (0..window.len()).filter(of_context) {
                for end in (start..window.len().min(start + longest)).filter(of_context) {
                    let place = |at: usize| places[&window.word_ids[at].unwrap()];
                    was_cut |= place(start).0 < window.offsets[start].0 && start > 0 && !of_context(&(start - 1));
                    let score = logits[2 * start] + logits[2 * end + 1];
                    here.entry((place(start).0, place(end).1)).or_default().push(score);
                    all.push(f64::from(score));
                }
            }
            for (place, scores) in here {
                let best = scores.iter().copied().fold(f32::MIN, f32::max);
                answers.entry(place).or_default().push((best, scores));
            }
        }
        let sum: f64 = all.iter().map(|score| score.exp()).sum();
        let best_window =
            |windows: &Vec<Scores>| windows.iter().cloned().reduce(|a, b| if b.0 > a.0 { b } else { a }).unwrap();
        let mut expected: Vec<_> = answers.iter().map(|(place, windows)| (*place, best_window(windows))).collect();
        expected.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));

        let found = pipeline.top_k(question, CONTEXT, 7)?;
        assert_eq!(found.len(), 7);
        for (answer, (place, (score, scores))) in found.iter().zip(&expected) {
            assert_eq!((answer.start, answer.end), *place, "{max_length}");
            near(answer.score, *score);
            let probability: f64 = scores.iter().map(|score| f64::from(*score).exp()).sum::<f64>() / sum;
            assert!((answer.probability - probability).abs() < 1e-5);
            assert_eq!(&CONTEXT[answer.bytes.clone()], answer.text);
            let (start, end) = *place;
            assert!(CONTEXT.chars().skip(start).take(end - start).eq(answer.text.chars()));
        }
        assert_eq!(pipeline.answer(question, CONTEXT)?, found[0]);
        let all = pipeline.no_answer(true).top_k(question, CONTEXT, usize::MAX)?;
        assert_eq!(all.len(), expected.len() + 1);
        let none = all.iter().find(|answer| answer.is_none()).ok_or("the empty answer is missing")?;
        assert_eq!((none.bytes.clone(), none.start, none.end), (0..0, 0, 0));
    }
    assert!(was_cut, "no window begins within a word");
    Ok(())
}

/// The start of one word and the end of another, both cut, also if they are found independently.
#[test]
fn words_are_completed() -> Result {
    let (tokenizer, model) = (tokenizer()?, model::<BertForQuestionAnswering>(2, 4)?);
    for longest in 1..4 {
        let pipeline = QuestionAnswering::new(model.clone(), tokenizer.clone())?.max_answer_length(longest);
        let words = places(&pipeline.encode("who?", CONTEXT)?);
        let begins = |at: usize| words.values().any(|(start, _)| *start == at);
        let ends = |at: usize| words.values().any(|(_, end)| *end == at);
        let mut found = pipeline.top_k("who?", CONTEXT, usize::MAX)?;
        found.push(pipeline.independent("who?", CONTEXT)?);
        assert!(found.iter().all(|answer| begins(answer.start) && ends(answer.end)));
        let found = pipeline.align_to_words(false).top_k("who?", CONTEXT, usize::MAX)?;
        assert!(found.iter().any(|answer| !begins(answer.start)));
    }
    Ok(())
}

#[test]
fn bytes_and_characters_are_the_same_part_of_the_text() -> Result {
    let tokenizer = tokenizer()?;
    let encoding = tokenizer.encode_pair("José? 🇧🇷", CONTEXT)?;
    let bytes = encoding.byte_offsets(&["José? 🇧🇷", CONTEXT])?;
    for (at, (start, end)) in bytes.into_iter().enumerate() {
        let text = ["José? 🇧🇷", CONTEXT][encoding.sequence_ids[at].unwrap_or(0)];
        let (from, to) = encoding.offsets[at];
        assert!(text[start..end].chars().eq(text.chars().skip(from).take(to - from)));
    }
    let said = encoding.byte_offsets(&["José? 🇧🇷"]).unwrap_err().to_string();
    assert_eq!(said, "1 text(s) given: the encoding has 2");
    let said = encoding.byte_offsets(&["José", CONTEXT]).unwrap_err().to_string();
    assert_eq!(said, "text 0 ends before character 5: another was encoded");

    let texts = [CONTEXT, "mat", "\u{1f469}\u{200d}\u{1f680}e\u{301} É"];
    let config =
        BertConfig { max_position_embeddings: 24, ..model::<BertForTokenClassification>(2, 1)?.config().clone() };
    let config = config.with_labels(["B-X", "I-X", "O"]);
    let pipeline = TokenClassification::new(BertForTokenClassification::new(&config, &Device::Cpu, 3)?, tokenizer)?;
    let (words, entities) = (pipeline.words(&texts)?, pipeline.entities(&texts)?);
    for (text, (words, entities)) in texts.iter().zip(words.iter().zip(&*entities)) {
        let words = words.iter().map(|word| (&word.bytes, word.start, word.end, &word.text));
        let entities = entities.iter().map(|entity| (&entity.bytes, entity.start, entity.end, &entity.text));
        assert!(words.len() > 0 && entities.len() > 0, "{text}");
        for (bytes, start, end, part) in words.chain(entities) {
            assert_eq!(&text[bytes.clone()], part);
            assert!(text.chars().skip(start).take(end - start).eq(part.chars()));
        }
    }
    Ok(())
}
