//! The model: parameter counts, initial values, errors with module paths, options.

use std::collections::BTreeMap;

use cloze_bert::{
    Batch, BertConfig, BertForMaskedLM, BertForPreTraining, BertForSequenceClassification, BertModel,
    ClassifierPooling, ErrorKind, FillMask, LongText, Mode, OpenOptions, Pipeline, PreTrainedModel, PreTrainingTargets,
    Tokenizer, TrainOptions,
};
use cloze_tensor::{DType, Device, Module, Tensor, profile};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn small() -> BertConfig {
    BertConfig {
        hidden_size: 16,
        num_attention_heads: 2,
        intermediate_size: 24,
        max_position_embeddings: 12,
        ..BertConfig::tiny(40)
    }
}

fn count(model: &BertForPreTraining, part: &str) -> u64 {
    let parameters = model.named_parameters();
    parameters.iter().filter(|(name, _)| name.starts_with(part)).map(|(_, tensor)| tensor.elements() as u64).sum()
}

#[test]
fn parameter_counts_match_the_configuration() -> Result {
    let odd = BertConfig {
        hidden_size: 21,
        num_hidden_layers: 3,
        num_attention_heads: 3,
        intermediate_size: 17,
        max_position_embeddings: 11,
        type_vocab_size: 5,
        ..BertConfig::tiny(37)
    };
    for config in [BertConfig::tiny(101), odd] {
        let model = BertForPreTraining::new(&config, &Device::Cpu, 0)?;
        let counts = config.parameter_counts();
        assert_eq!(count(&model, "bert.embeddings."), counts.embeddings);
        assert_eq!(count(&model, "bert.encoder.layer.1."), counts.layer);
        assert_eq!(count(&model, "bert.encoder."), counts.encoder);
        assert_eq!(count(&model, "bert.pooler."), counts.pooler);
        assert_eq!(count(&model, "cls.predictions."), counts.mlm_head);
        assert_eq!(count(&model, "cls.seq_relationship."), counts.nsp_head);
        assert_eq!(model.parameter_count() as u64, counts.pre_training());
    }
    Ok(())
}

/// Compares with the number of parameters of bert-base-uncased with both heads, and with a model of one layer.
#[test]
fn base_has_110_million_parameters() -> Result {
    let counts = BertConfig::base().parameter_counts();
    assert_eq!(counts.pre_training(), 110_106_428);
    let one_layer = BertConfig { num_hidden_layers: 1, vocab_size: 50, ..BertConfig::base() };
    let model = BertForPreTraining::new(&one_layer, &Device::Cpu, 0)?;
    assert_eq!(count(&model, "bert.encoder."), counts.layer);
    assert_eq!(count(&model, "bert.pooler."), counts.pooler);
    Ok(())
}

#[test]
fn initial_values_have_their_distribution() -> Result {
    let config = BertConfig::tiny(2000);
    let model = BertForPreTraining::new(&config, &Device::Cpu, 5)?;
    let mut matrices: Vec<Vec<f32>> = Vec::new();
    for (name, tensor) in model.named_parameters() {
        let values = tensor.to_vec::<f32>()?;
        if name.ends_with("bias") {
            assert!(values.iter().all(|&x| x == 0.0), "{name}");
        } else if name.contains("LayerNorm") {
            assert!(values.iter().all(|&x| x == 1.0), "{name}");
        } else {
            assert!(
                matrices.iter().all(|other| other[..16] != values[..16]),
                "{name} has the values of another parameter"
            );
            matrices.push(values.clone());
            // The standard deviation of fewer values is too uncertain.
            if values.len() < 8192 {
                continue;
            }
            let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / values.len() as f64;
            let square = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / values.len() as f64;
            assert!((square.sqrt() / 0.02 - 1.0).abs() < 0.05, "{name}: {}", square.sqrt());
            assert!(mean.abs() < 0.001, "{name}: {mean}");
        }
    }
    assert!(matrices.len() > 15);

    let bits = |seed| -> Result<Vec<u32>> {
        let model = BertForPreTraining::new(&small(), &Device::Cpu, seed)?;
        let mut bits = Vec::new();
        for (_, tensor) in model.named_parameters() {
            bits.extend(tensor.to_vec::<f32>()?.into_iter().map(f32::to_bits));
        }
        Ok(bits)
    };
    assert_eq!(bits(5)?, bits(5)?);
    assert_ne!(bits(5)?, bits(6)?);
    Ok(())
}

#[test]
fn errors_have_the_path_of_the_module() -> Result {
    let batch = Batch::new(&[(vec![1, 2, 3], vec![0, 0, 1])])?;
    let wrong = Tensor::zeros(&[3, 5], DType::F32, &Device::Cpu)?;
    type Place = fn(&mut BertForPreTraining) -> &mut Tensor;
    let places: [(&str, Place); 5] = [
        ("bert.embeddings: ", |model| &mut model.bert.embeddings.position_embeddings.weight),
        ("bert.encoder.layer.1.attention.self: ", |model| {
            &mut model.bert.encoder.layer[1].attention.self_attention.key.weight
        }),
        ("bert.encoder.layer.0.attention.output: ", |model| {
            &mut model.bert.encoder.layer[0].attention.output.dense.weight
        }),
        ("bert.encoder.layer.1.output: ", |model| &mut model.bert.encoder.layer[1].output.layer_norm.bias),
        ("cls.predictions: ", |model| &mut model.cls.predictions.transform.dense.weight),
    ];
    let targets = PreTrainingTargets { rows: vec![1], labels: vec![7], next_sentence: vec![0] };
    for (place, parameter) in places {
        let mut model = BertForPreTraining::new(&small(), &Device::Cpu, 0)?;
        *parameter(&mut model) = wrong.clone();
        let error = model.loss(&batch, &targets, Mode::Eval).err().ok_or("a wrong shape was accepted")?.to_string();
        assert!(error.starts_with(place), "{error}");
    }
    let mut model = BertForPreTraining::new(&small(), &Device::Cpu, 0)?;
    model.bert.encoder.layer[1].attention.self_attention.key.weight = wrong;
    let error = model.bert.hidden(&batch).err().ok_or("a wrong shape was accepted")?.to_string();
    assert!(error.starts_with("bert.encoder.layer.1.attention.self: "), "{error}");
    Ok(())
}

#[test]
fn targets_without_a_loss_are_errors() -> Result {
    let model = BertForPreTraining::new(&small(), &Device::Cpu, 0)?;
    let batch = Batch::new(&[(vec![1, 2, 3], vec![0, 0, 1])])?;
    let good = PreTrainingTargets { rows: vec![1], labels: vec![7], next_sentence: vec![0] };
    let said = |targets: PreTrainingTargets| match model.loss(&batch, &targets, Mode::Eval) {
        Ok(_) => "no error".to_string(),
        Err(error) => error.to_string(),
    };
    assert_eq!(said(good.clone()), "no error");
    let label = said(PreTrainingTargets { labels: vec![40], ..good.clone() });
    assert!(label.starts_with("cls.predictions: cross_entropy: label 40"), "{label}");
    let label = said(PreTrainingTargets { next_sentence: vec![2], ..good.clone() });
    assert!(label.starts_with("cls.seq_relationship: cross_entropy: label 2"), "{label}");
    let none = said(PreTrainingTargets { rows: vec![], labels: vec![], ..good.clone() });
    assert!(none.contains("so there is no mean"), "{none}");
    let ignored = said(PreTrainingTargets { labels: vec![-100], ..good });
    assert!(ignored.contains("so there is no mean"), "{ignored}");
    Ok(())
}

fn fill_mask(max_length: usize) -> Result<FillMask> {
    let tokenizer = Tokenizer::train(["the cat sat on the mat"], 60, &TrainOptions::new())?;
    let tokenizer = tokenizer.with_max_length(max_length);
    let config = BertConfig { vocab_size: tokenizer.vocab_size() + 3, ..small() };
    Ok(FillMask::new(BertForMaskedLM::new(&config, &Device::Cpu, 0)?, tokenizer)?)
}

#[test]
fn pipelines_and_models_cross_threads() {
    fn check<T: Send + Sync + 'static>() {}
    check::<FillMask>();
    check::<BertForPreTraining>();
}

#[test]
fn fill_mask_returns_k_guesses() -> Result {
    let model = fill_mask(512)?;
    assert!(model.top_k("the [MASK] sat", 0)?.is_empty());
    assert_eq!(model.top_k("the [MASK] sat", 3)?.len(), 3);
    let all = model.top_k("the [MASK] sat", usize::MAX)?;
    assert!((all.iter().map(|guess| guess.probability).sum::<f64>() - 1.0).abs() < 1e-5);
    assert!(all.is_sorted_by(|a, b| a.probability >= b.probability));
    assert!(model.top_k("the cat sat", 3).unwrap_err().to_string().contains("no [MASK]"));
    Ok(())
}

#[test]
fn a_text_that_is_too_long_is_an_error_with_the_smaller_limit() -> Result {
    let text = "the [MASK] ".repeat(7); // 14 tokens, and 2 special tokens
    for (max_length, expected) in [(512, 12), (5, 5)] {
        let error = fill_mask(max_length)?.long_texts(LongText::Refuse).top_k(&text, 3).unwrap_err();
        let found =
            matches!(error.kind(), ErrorKind::TooLong { text: Some(0), tokens: 16, limit } if *limit == expected);
        assert!(found, "{error}");
    }
    Ok(())
}

/// Added tokens get new rows, and the logits of the others do not change.
#[test]
fn the_vocabulary_grows_with_added_tokens() -> Result {
    let tokenizer = Tokenizer::train(["the cat sat on the mat"], 60, &TrainOptions::new())?;
    let old = tokenizer.vocab_size();
    let grown = tokenizer.add_tokens(["<name>", "the", "covid-19"])?;
    assert_eq!(
        (grown.vocab_size(), grown.id("<name>"), grown.id("the")),
        (old + 2, Some(old as u32), tokenizer.id("the"))
    );
    let encoding = grown.encode("the <name> sat; Covid-19")?;
    assert_eq!(encoding.ids[2], old as u32);
    assert_eq!(encoding.ids[5], old as u32 + 1);
    assert!(tokenizer.add_tokens([" "]).is_err());

    let config = BertConfig { vocab_size: old, ..small() };
    let mut model = BertForMaskedLM::new(&config, &Device::Cpu, 3)?;
    let batch = Batch::from_encodings(&[tokenizer.encode("the cat sat")?])?;
    let before = model.forward(&batch, &[1, 2], Mode::Eval)?;
    model.resize_token_embeddings(grown.vocab_size(), 5)?;
    assert_eq!(model.config().vocab_size, old + 2);
    let after = model.forward(&batch, &[1, 2], Mode::Eval)?;
    assert_eq!(after.shape(), [2, old + 2]);
    let kept = after.narrow(1, 0, old)?.to_vec::<f32>()?;
    before.to_vec::<f32>()?.iter().zip(kept).for_each(|(a, b)| assert!((a - b).abs() < 1e-6));
    let words = &model.bert.embeddings.word_embeddings.weight;
    let mean = words.narrow(0, 0, old)?.mean(0)?.to_vec::<f32>()?;
    let rows = words.narrow(0, old, 2)?.to_vec::<f32>()?;
    assert!(rows.iter().zip(mean.iter().cycle()).all(|(x, mean)| (x - mean).abs() < 1e-5), "{rows:?}, not {mean:?}");
    assert!(rows[..16] != rows[16..]);
    assert!(model.cls.predictions.bias.narrow(0, old, 2)?.to_vec::<f32>()?.iter().all(|bias| bias.abs() < 1e-7));

    let dir = tempfile::tempdir()?;
    model.save(dir.path())?;
    grown.save(dir.path())?;
    let asked = FillMask::open(dir.path())?;
    assert_eq!(asked.top_k("the <name> [MASK]", usize::MAX)?.len(), old + 2);
    model.resize_token_embeddings(old, 5)?;
    assert_eq!(model.forward(&batch, &[1, 2], Mode::Eval)?.to_vec::<f32>()?, before.to_vec::<f32>()?);
    assert!(model.resize_token_embeddings(0, 5).unwrap_err().to_string().contains("vocab_size is 0"));
    Ok(())
}

#[test]
fn the_dropout_option_overrides_the_folder() -> Result {
    let dir = tempfile::tempdir()?;
    BertModel::new(&small(), &Device::Cpu, 3)?.save(dir.path())?;
    let open = |p| BertModel::open_with(dir.path(), &Device::Cpu, &OpenOptions::new().dropout(p));
    let config = open(0.25)?.config().clone();
    assert_eq!((config.hidden_dropout_prob, config.attention_probs_dropout_prob), (0.25, 0.25));
    let Err(error) = open(1.5) else { panic!("a dropout of 1.5 was accepted") };
    assert!(error.to_string().contains("hidden_dropout_prob is 1.5"), "{error}");
    Ok(())
}

/// Compares with the mean of the hidden states, computed here. The option is saved with the model.
#[test]
fn a_classifier_can_read_the_mean() -> Result {
    let dir = tempfile::tempdir()?;
    BertForSequenceClassification::new(&small().with_labels(["a", "b", "c"]), &Device::Cpu, 3)?.save(dir.path())?;
    let options = OpenOptions::new().classifier_pooling(ClassifierPooling::Mean);
    let model = BertForSequenceClassification::open_with(dir.path(), &Device::Cpu, &options)?;
    let batch = Batch::new(&[(vec![2, 5, 6, 3], vec![0; 4]), (vec![2, 9, 3], vec![0; 3])])?;
    let logits = model.forward(&batch, Mode::Eval)?.to_vec::<f32>()?;

    let hidden = model.bert.forward(&batch, Mode::Eval)?.to_vec::<f32>()?;
    let width = small().hidden_size;
    let values = |parameter: &Tensor| parameter.to_vec::<f32>();
    let pooler = model.bert.pooler.as_ref().ok_or("no pooler")?;
    let (pooler_weight, pooler_bias) = (values(&pooler.dense.weight)?, values(&pooler.dense.bias)?);
    let (weight, bias) = (values(&model.classifier.weight)?, values(&model.classifier.bias)?);
    let affine = |x: &[f64], weight: &[f32], bias: &[f32]| -> Vec<f64> {
        let rows = weight.chunks(width).zip(bias);
        rows.map(|(row, &b)| row.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum::<f64>() + f64::from(b)).collect()
    };
    for (at, rows) in [(0, &hidden[..4 * width]), (1, &hidden[4 * width..])] {
        let tokens = (rows.len() / width) as f64;
        let mean: Vec<f64> =
            (0..width).map(|i| rows.chunks(width).map(|row| f64::from(row[i])).sum::<f64>() / tokens).collect();
        let pooled: Vec<f64> = affine(&mean, &pooler_weight, &pooler_bias).into_iter().map(f64::tanh).collect();
        for (expected, found) in affine(&pooled, &weight, &bias).into_iter().zip(&logits[3 * at..]) {
            assert!((expected - f64::from(*found)).abs() < 1e-6, "{found} against {expected}");
        }
    }

    model.save(dir.path())?;
    let again = BertForSequenceClassification::open(dir.path(), &Device::Cpu)?;
    assert_eq!(again.forward(&batch, Mode::Eval)?.to_vec::<f32>()?, logits);
    Ok(())
}

/// Masks are drawn with multiples of 1/256, which matters only where dropout does something.
#[test]
fn a_dropout_that_is_too_small_only_stops_training() -> Result {
    let config = BertConfig { hidden_dropout_prob: 0.0005, ..small() };
    let model = BertForPreTraining::new(&config, &Device::Cpu, 0)?;
    let batch = Batch::new(&[(vec![1, 2, 3], vec![0, 0, 1])])?;
    model.bert.forward(&batch, Mode::Eval)?;
    let said = model.bert.forward(&batch, Mode::Train { seed: 1, step: 1 }).err().ok_or("it trains")?.to_string();
    assert!(said.contains("dropout: probability 0.0005 would be rounded to 0: train with 0, or with 1/256"), "{said}");
    Ok(())
}

/// They are those of inspection, but computed with the operations of the forward alone: without the queries and keys that
/// attention probabilities need again. Gradients go through them.
#[test]
fn hidden_states_come_without_attention() -> Result {
    let model = BertModel::new(&small(), &Device::Cpu, 3)?;
    let batch = Batch::new(&[(vec![1, 2, 3], vec![0, 0, 1]), (vec![4; 9], vec![0; 9])])?;
    let calls = |profile: cloze_tensor::Profile| {
        profile.operations().iter().map(|time| (time.op, time.calls)).collect::<BTreeMap<_, _>>()
    };
    let (hidden, inspection) = profile(|| model.hidden(&batch));
    let (states, computed) = profile(|| model.hidden_states(&batch, Mode::Eval));
    let (_, forward) = profile(|| model.forward(&batch, Mode::Eval));
    let forward = calls(forward);
    assert_eq!(calls(computed), forward);
    assert_ne!(calls(inspection), forward);
    let (hidden, states) = (hidden?.states, states?);
    assert_eq!((states.len(), hidden.len()), (3, 3));
    for (a, b) in states.iter().zip(&hidden) {
        assert_eq!(a.to_vec::<f32>()?, b.to_vec::<f32>()?);
    }
    assert_eq!(states[2].to_vec::<f32>()?, model.forward(&batch, Mode::Eval)?.to_vec::<f32>()?);
    let gradients = states[1].mean_all()?.backward()?;
    assert!(gradients.get(&model.encoder.layer[0].output.dense.weight).is_some());
    assert!(gradients.get(&model.encoder.layer[1].output.dense.weight).is_none());
    Ok(())
}

#[test]
fn sequences_that_are_too_long_are_named() -> Result {
    let model = BertModel::new(&small(), &Device::Cpu, 3)?;
    let batch = Batch::new(&[(vec![1; 12], vec![0; 12]), (vec![1; 13], vec![0; 13]), (vec![1; 14], vec![0; 14])])?;
    let said = model.forward(&batch, Mode::Eval).err().ok_or("it fits")?.to_string();
    assert_eq!(said, "batch: sequence 1 has 13 tokens: max_position_embeddings is 12");

    let tokenizer = Tokenizer::train(["a cat sat"], 40, &TrainOptions::new())?;
    let options = cloze_bert::EncodeOptions::new().max_length(5);
    let said = tokenizer.encode_batch(&["a cat", "cat sat a", "a cat sat a"], &options).err().ok_or("they fit")?;
    let expected = "text 2 has 6 tokens with its special tokens, 5 fit: shorten it, or choose to truncate it or to read it in \
                    windows";
    assert_eq!(said.to_string(), expected);
    let texts = ["a cat".to_string(), "cat sat a".to_string()];
    let encodings = tokenizer.encode_batch(&texts, &options)?;
    assert_eq!(encodings, [tokenizer.encode(&texts[0])?, tokenizer.encode(&texts[1])?]);
    Ok(())
}
