//! Scores of texts and of pairs of texts.

use super::*;

#[test]
fn classes_labels_and_values_are_those_of_the_head() -> Result {
    let tokenizer = tokenizer()?;
    for problem in [None, Some(ProblemType::MultiLabel), Some(ProblemType::Regression)] {
        let dir = tempfile::tempdir()?;
        model::<BertForSequenceClassification>(3, 1)?.save(dir.path())?;
        let stored = BertConfig::open(dir.path())?;
        problem.map_or(stored.clone(), |problem| stored.with_problem_type(problem)).save(dir.path())?;
        tokenizer.save(dir.path())?;
        let pipeline = TextClassification::open(dir.path())?;
        let model = model::<BertForSequenceClassification>(3, 1)?;
        for (text, found) in TEXTS.iter().zip(pipeline.classify(&TEXTS)?) {
            let logits = model.forward(&one(&tokenizer.encode(text)?)?, Mode::Eval)?;
            let expected: Vec<f32> = match problem {
                None => softmax(&logits)?,
                Some(ProblemType::MultiLabel) => {
                    logits.to_vec::<f32>()?.into_iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect()
                }
                _ => logits.to_vec()?,
            };
            found.scores.iter().zip(&expected).for_each(|(a, b)| near(*a, *b));
            let best = expected.iter().copied().fold(f32::MIN, f32::max);
            near(found.score, best);
            assert_eq!((found.label, expected[found.id]), (format!("label {}", found.id), best));
        }
    }
    Ok(())
}

/// A model of one label is a binary classifier, unless it says that it is a regression.
#[test]
fn one_label_has_a_probability() -> Result {
    let tokenizer = tokenizer()?;
    for problem in [None, Some(ProblemType::Regression)] {
        let dir = tempfile::tempdir()?;
        let options = problem.map_or(OpenOptions::new(), |problem| OpenOptions::new().problem_type(problem));
        let model = model::<BertForSequenceClassification>(1, 1)?;
        model.save(dir.path())?;
        BertForSequenceClassification::open_with(dir.path(), &Device::Cpu, &options)?.save(dir.path())?;
        tokenizer.save(dir.path())?;
        let probability = |logit: f32| 1.0 / (1.0 + (-logit).exp());

        let found = TextClassification::open(dir.path())?.classify(&TEXTS)?;
        for (text, found) in TEXTS.iter().zip(found) {
            let logits: Vec<f32> = model.forward(&one(&tokenizer.encode(text)?)?, Mode::Eval)?.to_vec()?;
            near(found.score, if problem.is_none() { probability(logits[0]) } else { logits[0] });
        }
        let pairs: Vec<_> = TEXTS.iter().map(|text| ("a cat", *text)).chain([("a cat", "")]).collect();
        let logit = |(first, second): &(&str, &str)| -> Result<f32> {
            Ok(model.forward(&one(&tokenizer.encode_pair(first, second)?)?, Mode::Eval)?.to_vec()?[0])
        };
        let scores = CrossEncoder::open(dir.path())?.predict(&pairs)?.concat();
        for (pair, found) in pairs.iter().zip(&scores) {
            near(*found, if problem.is_none() { probability(logit(pair)?) } else { logit(pair)? });
        }
        // A folder that names no function, as `transformers` writes it, gives a probability for a regression, too.
        let file = dir.path().join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        config.as_object_mut().ok_or("no object")?.remove("sentence_transformers");
        std::fs::write(&file, config.to_string())?;
        let cross = CrossEncoder::open(dir.path())?;
        let scores = cross.predict(&pairs)?.concat();
        for (pair, found) in pairs.iter().zip(&scores) {
            near(*found, probability(logit(pair)?));
        }
        let ranked = cross.rank("a cat", &TEXTS, 3)?;
        assert!(ranked.len() == 3 && ranked.is_sorted_by(|a, b| a.1 >= b.1));
        ranked.iter().for_each(|(index, score)| assert!((score - scores[*index]).abs() < 1e-6));
        assert!(scores[..TEXTS.len()].iter().all(|score| *score <= ranked[0].1 + 1e-6));
    }
    let said = CrossEncoder::new(model(2, 1)?, tokenizer)?.rank("a", &["b"], 1).err().ok_or("it ranked")?.to_string();
    let expected = "the model has 2 labels: ranking needs one score per pair; CrossEncoder::predict returns the scores of all \
                    labels";
    assert_eq!(said, expected);
    Ok(())
}

/// The folders that version 6 of `sentence-transformers` writes name the activation and the prompt.
#[test]
fn settings_of_cross_encoders_are_read() -> Result {
    let dir = tempfile::tempdir()?;
    model::<BertForSequenceClassification>(1, 1)?.save(dir.path())?;
    tokenizer()?.save(dir.path())?;
    let plain = CrossEncoder::open(dir.path())?.predict(&[("it a cat", "mat"), ("a cat", "mat")])?.concat();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text);
    write(
        "config_sentence_transformers.json",
        r#"{"model_type": "CrossEncoder", "prompts": {"q": "it "},
        "default_prompt_name": "q", "activation_fn": "torch.nn.modules.linear.Identity"}"#,
    )?;
    near(CrossEncoder::open(dir.path())?.predict(&[("a cat", "mat")])?[0][0], plain[1] as f32);
    write("modules.json", r#"[{"path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}]"#)?;
    let logit = CrossEncoder::open(dir.path())?.predict(&[("a cat", "mat")])?[0][0];
    near(1.0 / (1.0 + (-logit).exp()), plain[0] as f32);
    let said = || CrossEncoder::open(dir.path()).err().map(|error| error.to_string()).unwrap_or_default();
    write("config_sentence_transformers.json", r#"{"model_type": "SentenceTransformer"}"#)?;
    assert!(said().contains("model_type is \"SentenceTransformer\": must be \"CrossEncoder\""), "{}", said());
    write("config_sentence_transformers.json", r#"{"activation_fn": "torch.nn.modules.activation.Tanh"}"#)?;
    assert!(
        said().contains(
            "config_sentence_transformers.json: activation_fn is \"torch.nn.modules.activation.Tanh\": must be"
        ),
        "{}",
        said()
    );
    Ok(())
}

/// Both heads are called `classifier`.
#[test]
fn a_classifier_of_texts_is_not_opened_as_one_of_words() -> Result {
    let dir = tempfile::tempdir()?;
    model::<BertForSequenceClassification>(3, 1)?.save(dir.path())?;
    tokenizer()?.save(dir.path())?;
    let said = TokenClassification::open(dir.path()).err().ok_or("it was opened")?.to_string();
    let reason = "has a BertForSequenceClassification, whose classifier does not fit a BertForTokenClassification: open it as that model";
    assert_eq!(said, format!("{}: {reason}", dir.path().display()));
    TextClassification::open(dir.path())?;
    // Without an architecture there is nothing to compare.
    let unsaid = BertConfig { architectures: Vec::new(), ..BertConfig::open(dir.path())? };
    unsaid.save(dir.path())?;
    TokenClassification::open(dir.path())?;
    Ok(())
}
