//! Every head learns: tiny models on words that give the answer away.

mod common;

use cloze_bert::{
    BertConfig, BertForMaskedLM, BertForMultipleChoice, BertForNextSentencePrediction, BertForQuestionAnswering,
    BertForSequenceClassification, BertForTokenClassification, Mode, PreTrainedModel, Tokenizer, TrainOptions,
};
use cloze_tensor::no_grad;
use cloze_tensor::random::{Purpose, Stream};
use cloze_train::metrics::Average;
use cloze_train::{
    AdamW, AnswerSpan, ChoiceExample, ClassificationEvaluation, Classify, Corpus, DataSet, LabelledData, Learn,
    PreTraining, QuestionExample, Schedule, TaggedSentence, Trainer, tag_names,
};

use common::device;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const ANIMALS: [&str; 4] = ["cat", "dog", "cow", "hen"];
const PLANTS: [&str; 4] = ["oak", "elm", "fig", "ivy"];
const VERBS: [&str; 4] = ["sat", "ran", "lay", "hid"];

/// Sentences of five words: verbs, and an animal or a plant at a random position.
struct Sentences {
    texts: Vec<String>,
    /// The position of the noun, and whether it is a plant.
    nouns: Vec<(usize, bool)>,
}

impl Sentences {
    fn new(count: usize) -> Sentences {
        let mut stream = Stream::new(5, Purpose::User, 0, 0, 0);
        let (mut texts, mut nouns) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (at, is_plant) = (stream.below(5), stream.below(2) == 1);
            let mut words: Vec<&str> = (0..5).map(|_| VERBS[stream.below(4)]).collect();
            words[at] = if is_plant { PLANTS } else { ANIMALS }[stream.below(4)];
            texts.push(words.join(" "));
            nouns.push((at, is_plant));
        }
        Sentences { texts, nouns }
    }

    fn classes(&self) -> Vec<i64> {
        self.nouns.iter().map(|&(_, is_plant)| i64::from(is_plant)).collect()
    }
}

fn tokenizer() -> Result<Tokenizer> {
    let words = [ANIMALS, PLANTS, VERBS].concat();
    Ok(Tokenizer::train(words, 80, &TrainOptions::new())?)
}

fn model<M: PreTrainedModel>(labels: &[&str]) -> Result<M> {
    let config = BertConfig {
        hidden_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 32,
        max_position_embeddings: 32,
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        labels: labels.iter().map(|label| label.to_string()).collect(),
        ..BertConfig::tiny(tokenizer()?.vocab_size())
    };
    Ok(M::new(&config, &device(), 1)?)
}

fn train<M: Learn<D::Batch>, D: DataSet>(model: &mut M, data: &D, steps: u32) -> Result<f64> {
    let trainer =
        Trainer::new(model).optimizer(AdamW::new(5e-3)).schedule(Schedule::Constant { warmup: 0.1 }).batch_size(16);
    Ok(trainer.steps(steps).progress(false).run(data)?.mean_of_last(5))
}

/// Trains until the loss is close to 0, and evaluates.
fn train_to_classify<L: Clone, M: Classify<L> + Learn<cloze_train::LabelledBatch<L>>>(
    model: &mut M,
    data: &LabelledData<L>,
) -> Result<ClassificationEvaluation> {
    let before = ClassificationEvaluation::run(model, data, 64)?;
    train(model, data, 150)?;
    let after = ClassificationEvaluation::run(model, data, 64)?;
    assert!(after.loss < 0.05 && before.loss > 0.5, "from {} to {}", before.loss, after.loss);
    assert!(after.accuracy()? > 0.99 && before.accuracy()? < 0.9, "{} to {}", before.accuracy()?, after.accuracy()?);
    assert!(after.f1(Average::Macro)? > 0.99);
    Ok(after)
}

#[test]
fn sequences_in_classes() -> Result {
    let sentences = Sentences::new(96);
    let (data, _) = LabelledData::of_texts(&sentences.texts, sentences.classes(), &tokenizer()?, 16)?;
    let mut model: BertForSequenceClassification = model(&["animal", "plant"])?;
    let evaluation = train_to_classify(&mut model, &data)?;
    assert_eq!(evaluation.labels, sentences.classes());
    Ok(())
}

/// Compares batches of any size with a computation by hand, one sequence at a time.
#[test]
fn an_evaluation_is_the_mean_over_examples() -> Result {
    let sentences = Sentences::new(11);
    let (data, _) = LabelledData::of_texts(&sentences.texts, sentences.classes(), &tokenizer()?, 16)?;
    let model: BertForSequenceClassification = model(&["animal", "plant"])?;
    let (mut loss, mut predictions) = (0.0, Vec::new());
    for batch in data.batches(1)? {
        let batch = batch?;
        let logits = no_grad(|| model.forward(&batch.batch, Mode::Eval))?.to_vec::<f32>()?;
        let exponents = [f64::from(logits[0]).exp(), f64::from(logits[1]).exp()];
        loss -= (exponents[batch.labels[0] as usize] / (exponents[0] + exponents[1])).ln() / 11.0;
        predictions.push(i64::from(logits[1] > logits[0]));
    }
    for batch_size in [1, 4, 100] {
        let evaluation = ClassificationEvaluation::run(&model, &data, batch_size)?;
        assert!((evaluation.loss - loss).abs() < 1e-5, "{} and {loss}", evaluation.loss);
        assert_eq!((&evaluation.predictions, evaluation.labels), (&predictions, sentences.classes()));
    }
    Ok(())
}

#[test]
fn sequences_with_numbers() -> Result {
    let sentences = Sentences::new(96);
    let values: Vec<f32> = sentences.classes().into_iter().map(|class| 3.0 * class as f32 - 1.0).collect();
    let (data, _) = LabelledData::of_texts(&sentences.texts, values.clone(), &tokenizer()?, 16)?;
    let mut model: BertForSequenceClassification = model(&["height"])?;
    let loss = train(&mut model, &data, 150)?;
    assert!(loss < 0.1, "{loss}");
    let batch = data.batches(96)?.next().ok_or("no batch")??;
    let said = no_grad(|| model.forward(&batch.batch, Mode::Eval))?.to_vec::<f32>()?;
    assert!(said.iter().zip(&values).all(|(said, value)| (said - value).abs() < 0.5), "{said:?}");
    Ok(())
}

#[test]
fn sequences_with_several_labels() -> Result {
    let sentences = Sentences::new(96);
    let labels: Vec<Vec<bool>> = sentences.nouns.iter().map(|&(_, is_plant)| vec![is_plant, !is_plant, true]).collect();
    let (data, _) = LabelledData::of_texts(&sentences.texts, labels.clone(), &tokenizer()?, 16)?;
    let mut model: BertForSequenceClassification = model(&["plant", "animal", "noun"])?;
    let loss = train(&mut model, &data, 150)?;
    assert!(loss < 0.2, "{loss}");
    let batch = data.batches(96)?.next().ok_or("no batch")??;
    let said = no_grad(|| model.forward(&batch.batch, Mode::Eval))?.to_vec::<f32>()?;
    assert!(said.iter().zip(labels.concat()).all(|(logit, label)| (*logit > 0.0) == label), "{said:?}");
    Ok(())
}

#[test]
fn tokens_in_classes() -> Result {
    let sentences = Sentences::new(96);
    let tagged: Vec<TaggedSentence> = sentences
        .texts
        .iter()
        .zip(&sentences.nouns)
        .map(|(text, &(at, is_plant))| {
            let words: Vec<String> = text.split(' ').map(str::to_string).collect();
            let tag = |word: usize| {
                if word != at {
                    "O"
                } else if is_plant {
                    "B-PLANT"
                } else {
                    "B-ANIMAL"
                }
            };
            TaggedSentence { tags: (0..5).map(|word| tag(word).to_string()).collect(), words }
        })
        .collect();
    let tags = tag_names(&tagged);
    let (data, _) = LabelledData::of_words(&tagged, &tags, &tokenizer()?, 32)?;
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let mut model: BertForTokenClassification = model(&tags)?;
    let evaluation = train_to_classify(&mut model, &data)?;
    // Special tokens have no label.
    assert_eq!((evaluation.labels.len(), evaluation.predictions.len()), (96 * 5, 96 * 5));
    assert!(!evaluation.labels.contains(&-100));
    Ok(())
}

#[test]
fn answers_to_questions() -> Result {
    let sentences = Sentences::new(96);
    let questions: Vec<QuestionExample> = sentences
        .texts
        .iter()
        .zip(&sentences.nouns)
        .map(|(text, &(at, is_plant))| {
            // A sentence with a plant has no answer.
            let answer = AnswerSpan { text: text[at * 4..at * 4 + 3].to_string(), start: at * 4 };
            QuestionExample {
                question: "cat".into(),
                context: text.as_str().into(),
                answer: (!is_plant).then_some(answer),
            }
        })
        .collect();
    let (data, _) = LabelledData::of_questions(&questions, &tokenizer()?, 32, 4)?;
    let mut model: BertForQuestionAnswering = model(&["none", "one"])?;
    assert!(train(&mut model, &data, 300)? < 0.1);
    let batch = data.batches(96)?.next().ok_or("no batch")??;
    let logits = no_grad(|| model.forward(&batch.batch, Mode::Eval))?.to_vec::<f32>()?; // [T, 2]
    for (ends, label) in batch.batch.sequences().cu_seqlens().windows(2).zip(data.labels()) {
        let best = |which: usize| {
            let logit = |row: u32| logits[2 * row as usize + which];
            (ends[0]..ends[1]).max_by(|&a, &b| logit(a).total_cmp(&logit(b))).map(|row| row - ends[0])
        };
        assert_eq!((best(0), best(1)), (Some(label.0), Some(label.1)));
    }
    Ok(())
}

#[test]
fn choices() -> Result {
    // The plant is the right choice at any position.
    let question = |number: usize| {
        let mut choices = vec![PLANTS[number % 4].to_string(), "cat".to_string(), "sat".to_string()];
        choices.rotate_right(number % 3);
        ChoiceExample { text: VERBS[number % 4].to_string(), choices, label: number % 3 }
    };
    let questions: Vec<ChoiceExample> = (0..96).map(question).collect();
    let (data, _) = LabelledData::of_choices(&questions, &tokenizer()?, 32)?;
    let mut model: BertForMultipleChoice = model(&["none", "one"])?;
    train_to_classify(&mut model, &data)?;
    Ok(())
}

#[test]
fn next_sentences() -> Result {
    let sentences = Sentences::new(96);
    let second: Vec<&str> = vec!["sat"; 96];
    let first: Vec<&str> = sentences.texts.iter().map(String::as_str).collect();
    let (data, _) = LabelledData::of_pairs(&first, &second, sentences.classes(), &tokenizer()?, 32)?;
    let mut model: BertForNextSentencePrediction = model(&["none", "one"])?;
    train_to_classify(&mut model, &data)?;
    Ok(())
}

#[test]
fn masked_words() -> Result {
    let corpus = Corpus::from_documents(vec![vec!["cat sat dog ran cow lay hen hid".into(); 40]; 2])?;
    let data = PreTraining::new(&corpus, &tokenizer()?)?.next_sentence(false).seq_len(10);
    let mut model: BertForMaskedLM = model(&["none", "one"])?;
    let first = train(&mut model, &data, 1)?;
    let last = train(&mut model, &data, 150)?;
    assert!(first > 3.0 && last < 1.5, "from {first} to {last}");
    Ok(())
}
