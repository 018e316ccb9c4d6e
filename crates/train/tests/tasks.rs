//! Evaluations of tasks: named entities, answers to questions, similarity of sentences.

mod common;

use cloze_bert::{
    BertConfig, BertForQuestionAnswering, BertForSequenceClassification, BertForTokenClassification, Mode, Pipeline,
    PreTrainedModel, QuestionAnswering, SentenceEncoder, Tokenizer, TrainOptions, cosine_similarity,
};
use cloze_tensor::{Sequences, no_grad};
use cloze_train::metrics::{SpanMode, SquadVersion};
use cloze_train::{
    AdamW, AnswerSpan, ClassificationEvaluation, LabelledData, QuestionAnsweringEvaluation, QuestionExample,
    RegressionEvaluation, Squad, TaggedSentence, TokenClassificationEvaluation, Trainer,
};

use common::device;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const TEXTS: [&str; 4] = ["ana ran to rio", "the cat sat on mats", "so it was", "who sat where"];
const TAGS: [&str; 5] = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"];

fn tokenizer() -> Result<Tokenizer> {
    Ok(Tokenizer::train(TEXTS, 60, &TrainOptions::new())?)
}

fn model<M: PreTrainedModel>(labels: &[&str]) -> Result<M> {
    let config = BertConfig {
        hidden_size: 16,
        num_attention_heads: 2,
        intermediate_size: 32,
        max_position_embeddings: 32,
        initializer_range: 0.5,
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        ..BertConfig::tiny(tokenizer()?.vocab_size())
    };
    Ok(M::new(&config.with_labels(labels.iter().copied()), &device(), 1)?)
}

fn sentence(text: &str, tags: &str) -> TaggedSentence {
    let words = |text: &str| text.split(' ').map(str::to_string).collect();
    TaggedSentence { words: words(text), tags: words(tags) }
}

/// Compares with the prediction for the first piece of each word, one sentence at a time.
#[test]
fn words_have_the_tag_of_their_first_piece() -> Result {
    let (model, tokenizer): (BertForTokenClassification, _) = (model(&TAGS)?, tokenizer()?);
    let sentences = [
        sentence("ana ran", "B-PER O"),
        sentence("\u{7}", "O"),
        sentence("matsana \u{7} sat rio", "B-LOC I-LOC O B-LOC"),
        sentence("so", "I-PER"),
    ];
    for batch_size in [1, 2, 64] {
        let found = TokenClassificationEvaluation::run(&model, &sentences, &tokenizer, 32, batch_size)?;
        for (sentence, predictions) in sentences.iter().zip(&found.predictions) {
            let pieces: Vec<Vec<u32>> =
                sentence.words.iter().map(|word| tokenizer.ids(word)).collect::<std::result::Result<_, _>>()?;
            let ids = [vec![tokenizer.cls_id()], pieces.concat(), vec![tokenizer.sep_id()]].concat();
            let (length, types) = (ids.len(), vec![0; ids.len()]);
            let batch = cloze_bert::Batch::packed(ids, types, Sequences::numbered(&[length], &[0])?)?;
            let classes = no_grad(|| model.forward(&batch, Mode::Eval))?.argmax()?;
            let mut at = 1;
            let expected = pieces.iter().map(|pieces| {
                let class = if pieces.is_empty() { 0 } else { classes[at] };
                at += pieces.len();
                TAGS[class]
            });
            assert!(expected.eq(predictions.iter().map(String::as_str)), "{sentence:?}: {predictions:?}");
        }
        assert_eq!(found.lost_words, 2);
        assert_eq!(found.labels, sentences.each_ref().map(|sentence| sentence.tags.clone()));
        let names = TAGS.map(String::from);
        let (data, _) = LabelledData::of_words(&sentences, &names, &tokenizer, 32)?;
        let classes = ClassificationEvaluation::run(&model, &data, 64)?;
        assert!((classes.loss - found.loss).abs() < 1e-5, "{} and {}", classes.loss, found.loss);
        let right = found.accuracy() * 8.0;
        // The two words without a token are predicted as O, which is right for one of them.
        assert!((right - (classes.accuracy()? * 6.0 + 1.0)).abs() < 1e-9, "{right}");
    }
    Ok(())
}

#[test]
fn words_that_are_cut_off_are_not_found() -> Result {
    let (model, tokenizer): (BertForTokenClassification, _) = (model(&TAGS)?, tokenizer()?);
    let sentences = [sentence("so it ana", "O O B-PER")];
    let whole = TokenClassificationEvaluation::run(&model, &sentences, &tokenizer, 32, 8)?;
    let cut = TokenClassificationEvaluation::run(&model, &sentences, &tokenizer, 4, 8)?;
    assert_eq!((whole.lost_words, cut.lost_words, cut.predictions[0][2].as_str()), (0, 1, "O"));
    assert_eq!(cut.spans(SpanMode::Lenient)?.by_kind["PER"].recall, 0.0);
    let said = |sentences: &[TaggedSentence], max_length| {
        TokenClassificationEvaluation::run(&model, sentences, &tokenizer, max_length, 8).unwrap_err().to_string()
    };
    assert_eq!(said(&[], 32), "examples: no example was given");
    assert_eq!(said(&sentences, 1), "max_length is 1, must be at least 2 for the special tokens");
    let unseen = said(&[sentence("so", "B-ORG")], 32);
    assert!(unseen.starts_with("tags: sentence 0 has tag \"B-ORG\" for \"so\", known tags are "), "{unseen}");
    Ok(())
}

#[test]
fn questions_are_answered_as_one_by_one() -> Result {
    let (model, tokenizer): (BertForQuestionAnswering, _) = (model(&["a", "b"])?, tokenizer()?);
    let question = |question: &str, context: &str, answer: Option<&str>| QuestionExample {
        question: question.into(),
        context: context.into(),
        answer: answer.map(|text| AnswerSpan { text: text.into(), start: context.find(text).unwrap() }),
    };
    let long = "the cat sat on mats so it was ana ran to rio ".repeat(4);
    let mut questions = vec![
        question("who sat", "the cat sat on mats", Some("cat")),
        question("where", &long, Some("rio")),
        question("who ran", "ana ran", None),
    ];
    // More questions than are encoded together.
    questions.extend((0..70).map(|number| question("who", TEXTS[number % 4], None)));
    for (no_answer, window) in [(false, 32), (true, 20)] {
        let asked = QuestionAnswering::new(model.clone(), tokenizer.clone())?;
        let asked = asked.max_length(window).stride(4).no_answer(no_answer);
        let squad = Squad::of_questions(questions.clone());
        assert_eq!(squad.version, SquadVersion::V2_0);
        let found = QuestionAnsweringEvaluation::run(&asked, &squad)?;
        for (question, prediction) in questions.iter().zip(&found.predictions) {
            assert_eq!(asked.answer(&question.question, &question.context)?.text, *prediction);
        }
        assert_eq!((found.scores.total, found.scores.has_answer_total), (73, 2));
    }
    let blank = Squad::of_questions([question("who", "ana", None), question("who", " ", None)]);
    let error = QuestionAnsweringEvaluation::run(&QuestionAnswering::new(model, tokenizer)?, &blank).unwrap_err();
    assert!(
        error.to_string().contains("question 1: ") && error.to_string().contains("the context is blank"),
        "{error}"
    );
    Ok(())
}

#[test]
fn numbers_of_pairs() -> Result {
    let tokenizer = tokenizer()?;
    let (first, second) = (&TEXTS[..3], &TEXTS[1..]);
    let scores = vec![0.25f32, 0.5, 1.0];
    let encoder: SentenceEncoder = model(&["a", "b"])?;
    let (data, _) = LabelledData::of_sentences(first, second, scores.clone(), &tokenizer, 16)?;
    for batch_size in [1, 2, 8] {
        let found = RegressionEvaluation::run(&encoder, &data, batch_size)?;
        let mut expected = Vec::new();
        for (first, second) in first.iter().zip(second) {
            let vector = |text: &str| -> Result<Vec<f32>> {
                let batch = cloze_bert::Batch::from_encodings(&[tokenizer.encode(text)?])?;
                Ok(no_grad(|| encoder.forward(&batch, Mode::Eval))?.to_vec()?)
            };
            expected.push(cosine_similarity(&vector(first)?, &vector(second)?));
        }
        assert!(
            found.predictions.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6),
            "{found:?}, not {expected:?}"
        );
        let squares = expected.iter().zip(&scores).map(|(said, right)| (said - f64::from(*right)).powi(2));
        assert!((found.loss - squares.sum::<f64>() / 3.0).abs() < 1e-6);
    }
    let (pairs, _) = LabelledData::of_pairs(first, second, scores, &tokenizer, 16)?;
    let two: BertForSequenceClassification = model(&["a", "b"])?;
    let error = RegressionEvaluation::run(&two, &pairs, 8).unwrap_err().to_string();
    assert_eq!(error, "evaluation: the model predicts 2 numbers per example, regression needs 1");
    Ok(())
}

/// Trains a small encoder on all pairs of four sentences, until partners are the nearest neighbours.
#[test]
fn a_sentence_encoder_learns() -> Result {
    let tokenizer = tokenizer()?;
    let (first, second) = (["ana", "the cat", "so", "where"], ["ran to rio", "sat", "it was", "who"]);
    let mut encoder: SentenceEncoder = model(&["a", "b"])?;
    let (partners, _) = LabelledData::of_sentences(&first, &second, vec![(); 4], &tokenizer, 16)?;
    let pairs = |scores: &dyn Fn(usize, usize) -> f32| {
        let all: Vec<(usize, usize)> = (0..4).flat_map(|a| (0..4).map(move |b| (a, b))).collect();
        let of = |texts: [&'static str; 4], which: fn(&(usize, usize)) -> usize| {
            all.iter().map(|pair| texts[which(pair)]).collect::<Vec<_>>()
        };
        let labels = all.iter().map(|&(a, b)| scores(a, b)).collect();
        LabelledData::of_sentences(&of(first, |pair| pair.0), &of(second, |pair| pair.1), labels, &tokenizer, 16)
    };
    let (right, _) = pairs(&|a, b| f32::from(u8::from(a == b)))?;
    Trainer::new(&mut encoder).optimizer(AdamW::new(1e-3)).batch_size(4).steps(60).progress(false).run(&partners)?;
    let found = RegressionEvaluation::run(&encoder, &right, 16)?;
    let partners_and_others = |evaluation: &RegressionEvaluation| {
        let of = |label: f64| {
            evaluation.predictions.iter().zip(&evaluation.labels).filter(move |(_, l)| **l == label).map(|(p, _)| *p)
        };
        (of(1.0).fold(f64::INFINITY, f64::min), of(0.0).fold(f64::NEG_INFINITY, f64::max))
    };
    let (partner, other) = partners_and_others(&found);
    assert!(partner > other + 0.1, "{partner} and {other}");

    let mut encoder: SentenceEncoder = model(&["a", "b"])?;
    let before = RegressionEvaluation::run(&encoder, &right, 16)?.loss;
    Trainer::new(&mut encoder).optimizer(AdamW::new(1e-3)).batch_size(16).steps(150).progress(false).run(&right)?;
    let after = RegressionEvaluation::run(&encoder, &right, 16)?;
    assert!(after.loss < 0.1 * before && after.pearson()? > 0.95, "from {before} to {}", after.loss);
    Ok(())
}
