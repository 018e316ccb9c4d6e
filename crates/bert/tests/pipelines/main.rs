//! Pipelines: an answer equals the output of the head on the encoded text, independent of the batch and the thread.

mod answers;
mod classification;
mod long_texts;
mod vectors;

use cloze_bert::{
    Aggregation, Batch, BertConfig, BertForMaskedLM, BertForNextSentencePrediction, BertForQuestionAnswering,
    BertForSequenceClassification, BertForTokenClassification, CrossEncoder, Encoding, FillMask, Mode, NextSentence,
    OpenOptions, Pipeline, PreTrainedModel, ProblemType, QuestionAnswering, SentenceEmbedder, SentenceEncoder,
    SentencePooling, Similarity, TextClassification, TokenClassification, Tokenizer, TrainOptions, cosine_similarity,
};
use cloze_tensor::{Device, Module, Tensor};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const TEXTS: [&str; 5] = [
    "the cat sat on the mat.",
    "a cat",
    "the dog barked loudly, and the cat looked out of the window at the dog!",
    "mat",
    "it looked out; it sat; it barked.",
];

fn tokenizer() -> Result<Tokenizer> {
    Ok(Tokenizer::train(TEXTS, 90, &TrainOptions::new())?)
}

/// A model with weights large enough that its answers differ.
fn model<M: PreTrainedModel>(labels: usize, seed: u64) -> Result<M> {
    let config = BertConfig {
        hidden_size: 24,
        num_attention_heads: 3,
        intermediate_size: 40,
        max_position_embeddings: 64,
        initializer_range: 0.4,
        ..BertConfig::tiny(tokenizer()?.vocab_size())
    };
    Ok(M::new(&config.with_labels((0..labels).map(|label| format!("label {label}"))), &Device::Cpu, seed)?)
}

fn one(encoding: &Encoding) -> Result<Batch> {
    Ok(Batch::from_encodings(std::slice::from_ref(encoding))?)
}

fn softmax(logits: &Tensor) -> Result<Vec<f32>> {
    Ok(logits.softmax()?.to_vec()?)
}

fn near(a: f64, b: f32) {
    assert!((a - f64::from(b)).abs() < 1e-5, "{a} against {b}");
}

#[test]
fn every_mask_is_filled() -> Result {
    let (tokenizer, model) = (tokenizer()?, model::<BertForMaskedLM>(2, 2)?);
    let pipeline = FillMask::new(model.clone(), tokenizer.clone())?;
    let texts = ["the [MASK] sat on the [MASK].", "[MASK]"];
    let filled = pipeline.fill(&texts, 4)?;
    assert_eq!(filled.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
    for (text, masks) in texts.iter().zip(&filled) {
        let encoding = tokenizer.encode(text)?;
        for mask in masks {
            assert_eq!(encoding.ids[mask.position], tokenizer.mask_id());
            let logits = model.forward(&one(&encoding)?, &[mask.position as u32], Mode::Eval)?;
            let expected = softmax(&logits)?;
            assert!(mask.guesses.is_sorted_by(|a, b| a.probability >= b.probability));
            for guess in &mask.guesses {
                near(guess.probability, expected[guess.id as usize]);
                assert_eq!(Some(guess.token.as_str()), tokenizer.token(guess.id));
            }
        }
    }
    let said = pipeline.top_k(texts[0], 3).err().ok_or("two masks were accepted")?.to_string();
    assert!(said.contains("2 [MASK]"), "{said}");
    let pair = pipeline.fill_pairs(&[("the cat", "a [MASK]")], 1)?;
    assert_eq!(pair[0][0].position, 5);
    Ok(())
}

#[test]
fn next_sentence_probabilities_are_those_of_the_head() -> Result {
    let (tokenizer, model) = (tokenizer()?, model::<BertForNextSentencePrediction>(2, 3)?);
    let pipeline = NextSentence::new(model.clone(), tokenizer.clone())?;
    let pairs: Vec<(&str, &str)> = TEXTS.iter().copied().zip(TEXTS.iter().rev().copied()).collect();
    for ((a, b), found) in pairs.iter().zip(pipeline.probabilities(&pairs)?) {
        let logits = model.forward(&one(&tokenizer.encode_pair(a, b)?)?, Mode::Eval)?;
        near(found, softmax(&logits)?[0]);
    }
    Ok(())
}

/// Compares with the definition: all spans of all windows.
#[test]
fn unaligned_answers_are_the_best_spans_of_all_windows() -> Result {
    let (tokenizer, model) = (tokenizer()?, model::<BertForQuestionAnswering>(2, 4)?);
    let question = "where sat it?";
    let context = TEXTS.join(" ");
    for (max_length, stride) in [(64, 16), (24, 7), (16, 100)] {
        let pipeline = QuestionAnswering::new(model.clone(), tokenizer.clone())?
            .max_length(max_length)
            .stride(stride)
            .max_answer_length(3)
            .align_to_words(false);
        let windows = pipeline.encode(question, &context)?;
        assert_eq!(windows.len() > 1, max_length < 64, "{max_length}");
        let mut expected: Vec<(f32, (usize, usize))> = Vec::new();
        let mut none = f32::MAX;
        for window in &windows {
            assert!(window.len() <= max_length);
            let logits = model.forward(&one(window)?, Mode::Eval)?.to_vec::<f32>()?;
            none = none.min(logits[0] + logits[1]);
            for start in 0..window.len() {
                for end in start..window.len().min(start + 3) {
                    if window.sequence_ids[start] == Some(1) && window.sequence_ids[end] == Some(1) {
                        let place = (window.offsets[start].0, window.offsets[end].1);
                        expected.push((logits[2 * start] + logits[2 * end + 1], place));
                    }
                }
            }
        }
        let weights = |most: f32| expected.iter().map(|(score, _)| f64::from(score - most).exp()).sum::<f64>();
        let most = expected.iter().map(|(score, _)| *score).fold(f32::MIN, f32::max);
        let sum = weights(most);
        expected.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut seen = Vec::new();
        expected.retain(|(_, place)| {
            !seen.contains(place) && {
                seen.push(*place);
                true
            }
        });
        let answers = pipeline.top_k(question, &context, 6)?;
        assert_eq!(answers.len(), 6);
        for (answer, (score, (start, end))) in answers.iter().zip(&expected) {
            assert_eq!((answer.start, answer.end), (*start, *end));
            near(answer.score, *score);
            let text: String = context.chars().skip(*start).take(end - start).collect();
            assert_eq!(answer.text, text);
            assert!((answer.probability - f64::from(score - most).exp() / sum).abs() < 1e-5);
        }
        assert_eq!(pipeline.answer(question, &context)?, answers[0]);

        let all = pipeline.no_answer(true).top_k(question, &context, usize::MAX)?;
        let no_answer = all.iter().find(|answer| answer.is_none()).ok_or("the empty answer is missing")?;
        near(no_answer.score, none);
        assert_eq!((no_answer.text.as_str(), all.len()), ("", seen.len() + 1));
        assert!(all.is_sorted_by(|a, b| a.score >= b.score));
    }
    Ok(())
}

#[test]
fn a_question_that_fills_the_window_is_named() -> Result {
    let pipeline = QuestionAnswering::new(model(2, 4)?, tokenizer()?)?.max_length(8);
    let said = |question: &str, context: &str| pipeline.answer(question, context).err().map(|error| error.to_string());
    let long = said("the cat sat on the mat", "a dog").ok_or("it fits")?;
    assert!(long.contains("the question has 6 tokens") && long.contains("window of 8"), "{long}");
    assert_eq!(said("  ", "a dog").as_deref(), Some("the question is blank"));
    assert_eq!(said("dog?", "\n\t").as_deref(), Some("the context is blank"));
    Ok(())
}

#[test]
fn words_are_labelled_in_the_window_with_the_most_context() -> Result {
    let (tokenizer, model) = (tokenizer()?, model::<BertForTokenClassification>(3, 5)?);
    let text = [TEXTS.join(" ").as_str(), "cated unsaid"].concat();
    let whole = TokenClassification::new(model.clone(), tokenizer.clone())?;
    for (aggregation, index) in [(Aggregation::First, 0), (Aggregation::Average, 1), (Aggregation::Max, 2)] {
        let short = "the cated sat";
        let words = TokenClassification::new(model.clone(), tokenizer.clone())?.aggregation(aggregation);
        let words = words.words(&[short])?[0].clone();
        assert_eq!(words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>(), ["the", "cated", "sat"]);
        let encoding = tokenizer.encode(short)?;
        let pieces: Vec<usize> = (0..encoding.len()).filter(|&at| encoding.word_ids[at] == Some(1)).collect();
        assert!(pieces.len() > 1, "the word is in pieces");
        let rows = softmax(&model.forward(&one(&encoding)?, Mode::Eval)?)?;
        let row = |at: usize| rows[3 * at..][..3].to_vec();
        let largest = |row: &[f32]| row.iter().copied().fold(0.0, f32::max);
        let expected = match index {
            0 => row(pieces[0]),
            1 => (0..3).map(|c| pieces.iter().map(|&at| row(at)[c]).sum::<f32>() / pieces.len() as f32).collect(),
            _ => pieces.iter().map(|&at| row(at)).max_by(|a, b| largest(a).total_cmp(&largest(b))).ok_or("none")?,
        };
        near(words[1].score, largest(&expected));
    }
    // With windows every word is labelled once.
    let windowed = TokenClassification::new(model.clone(), tokenizer.clone().with_max_length(20))?;
    let (whole, windowed) = (whole.words(&[&text, "mat"])?, windowed.words(&[&text, "mat"])?);
    for (a, b) in whole.iter().zip(&windowed) {
        let places = |words: &[cloze_bert::LabelledWord]| -> Vec<(usize, usize, String)> {
            words.iter().map(|word| (word.start, word.end, word.text.clone())).collect()
        };
        assert_eq!(places(a), places(b));
    }
    assert_eq!(whole[1], windowed[1]);
    let first = tokenizer.encode(&text)?.ids[..19].to_vec();
    let mut ids = first;
    ids.push(tokenizer.sep_id());
    let window = Batch::new(&[(&ids[..], &[0u32; 20][..])])?;
    let rows = softmax(&model.forward(&window, Mode::Eval)?)?;
    near(windowed[0][2].score, rows[9..12].iter().copied().fold(0.0, f32::max));
    Ok(())
}

#[test]
fn eight_threads_get_the_same_bits_from_one_model() -> Result {
    let texts: Vec<String> = (0..48).map(|i| TEXTS[i % 5].repeat(1 + i % 3)).collect();
    let embedder = SentenceEmbedder::new(model(2, 6)?, tokenizer()?)?;
    let classifier = TextClassification::new(model(3, 7)?, tokenizer()?)?;
    let ask = |text: &str| -> cloze_bert::Result<(Vec<u32>, Vec<u64>)> {
        let vector = embedder.embed(&[text])?.value.remove(0);
        let scores = classifier.classify(&[text])?.value.remove(0).scores;
        Ok((vector.into_iter().map(f32::to_bits).collect(), scores.into_iter().map(f64::to_bits).collect()))
    };
    let alone = texts.iter().map(|text| ask(text)).collect::<cloze_bert::Result<Vec<_>>>()?;
    std::thread::scope(|scope| -> Result {
        let (ask, texts, alone) = (&ask, &texts, &alone);
        let threads = (0..8).map(|thread| {
            scope.spawn(move || -> cloze_bert::Result<bool> {
                for at in (0..texts.len()).map(|at| (at * 7 + thread * 5) % texts.len()) {
                    if ask(&texts[at])? != alone[at] {
                        return Ok(false);
                    }
                }
                Ok(true)
            })
        });
        for thread in threads.collect::<Vec<_>>() {
            assert!(thread.join().map_err(|_| "a thread panicked")??, "the bits differ");
        }
        Ok(())
    })
}

/// The texts need several batches.
#[test]
fn batches_do_not_change_answers() -> Result {
    let embedder = SentenceEmbedder::new(model(2, 6)?, tokenizer()?)?;
    let texts: Vec<&str> = (0..600).map(|i| TEXTS[i % 5]).collect();
    let many = embedder.embed(&texts)?;
    for (index, vector) in many.iter().enumerate() {
        let alone = &many[index % 5];
        assert!(vector.iter().zip(alone).all(|(a, b)| (a - b).abs() < 1e-5), "text {index}");
    }
    assert_eq!((many.len(), many[0].len()), (600, embedder.dimension()));
    assert!(embedder.embed(&[] as &[&str])?.is_empty());
    Ok(())
}

#[test]
fn invalid_inputs_are_named() -> Result {
    let blank = |texts: &[&str]| -> Result<String> {
        let pipeline = TextClassification::new(model(2, 1)?, tokenizer()?)?;
        Ok(pipeline.classify(texts).err().ok_or("it was accepted")?.to_string())
    };
    assert!(blank(&["a cat", " \t "])?.contains("text 1 has no tokens"));
    assert!(blank(&["", "a"])?.contains("text 0 has no tokens"));
    assert!(blank(&["a", "\u{7}\u{200d}"])?.contains("text 1 has no tokens: it is blank or"));

    // A pipeline needs a trained head. A model can be opened without one, to train it.
    let dir = tempfile::tempdir()?;
    model::<BertForMaskedLM>(2, 1)?.save(dir.path())?;
    tokenizer()?.save(dir.path())?;
    let said = TextClassification::open(dir.path()).err().ok_or("it was opened")?.to_string();
    assert!(said.contains("has no weights for") && said.contains("classifier.weight"), "{said}");
    let (opened, report) = BertForSequenceClassification::open_reported(dir.path(), &Device::Cpu, &OpenOptions::new())?;
    assert!(report.missing.iter().any(|name| name == "classifier.weight"), "{report}");
    assert_eq!(opened.parameter_count(), model::<BertForSequenceClassification>(2, 1)?.parameter_count());
    FillMask::open(dir.path())?.top_k("a [MASK]", 1)?;

    // The vocabulary of another model.
    let texts = ["quite another vocabulary, with far more words in it than the model has rows for, and letters: xyz"];
    Tokenizer::train(texts, 400, &TrainOptions::new())?.save(dir.path())?;
    let said = FillMask::open(dir.path()).err().ok_or("it was opened")?.to_string();
    assert!(said.contains("vocab_size is") && said.contains("the number of tokens of the tokenizer"), "{said}");
    let said = FillMask::open(dir.path().join("none")).err().ok_or("it was opened")?.to_string();
    assert!(said.contains("none: cannot read: no such folder"), "{said}");
    Ok(())
}

/// Returns a model with weights so large that attention computes infinity minus infinity.
fn overflowing<M: PreTrainedModel>() -> Result<M> {
    let mut model: M = model(2, 1)?;
    model.visit_mut("", &mut |name, parameter| {
        if name.ends_with("output.dense.weight") {
            *parameter = parameter.mul_scalar(0.0).and_then(|zeros| zeros.add_scalar(3e38)).unwrap();
        }
    });
    Ok(model)
}

#[test]
fn outputs_that_are_not_finite_are_errors() -> Result {
    fn said<T>(answer: cloze_bert::Result<T>) {
        let said = answer.err().map(|error| error.to_string());
        assert_eq!(said.as_deref(), Some("the model computes NaN: its weights are too large"));
    }
    let text = "a cat";
    said(FillMask::new(overflowing()?, tokenizer()?)?.top_k("a [MASK]", 2));
    said(NextSentence::new(overflowing()?, tokenizer()?)?.probability(text, text));
    said(TextClassification::new(overflowing()?, tokenizer()?)?.classify(&[text]));
    said(TokenClassification::new(overflowing()?, tokenizer()?)?.words(&[text]));
    said(QuestionAnswering::new(overflowing()?, tokenizer()?)?.answer(text, text));
    said(SentenceEmbedder::new(overflowing()?, tokenizer()?)?.embed(&[text]));
    Ok(())
}

/// Control characters are neither blank nor tokens.
#[test]
fn texts_without_tokens_are_handled() -> Result {
    let pipeline = QuestionAnswering::new(model(2, 1)?, tokenizer()?)?;
    let said = pipeline.answer("dog?", "\u{1}\u{2}").err().map(|error| error.to_string());
    assert_eq!(said.as_deref(), Some("the context has no tokens, so it has no answer"));
    assert!(pipeline.no_answer(true).answer("dog?", "\u{1}\u{2}")?.is_none());
    let pipeline = TokenClassification::new(model(2, 1)?, tokenizer()?)?;
    assert_eq!(pipeline.words(&["\u{1}", "cat"])?[0], []);
    Ok(())
}
