//! Low-rank adapters: outputs, gradients, freezing and files.

use cloze_bert::{Batch, BertConfig, BertForSequenceClassification, LoraConfig, Mode, PreTrainedModel, SequenceLabels};
use cloze_tensor::random::{Purpose, Stream};
use cloze_tensor::{Device, Module, Sequences, Tensor};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const ALL: [&str; 3] = ["query", "key", "dense"];

fn model() -> Result<BertForSequenceClassification> {
    let config = BertConfig { hidden_size: 16, num_attention_heads: 2, intermediate_size: 24, ..BertConfig::tiny(50) };
    Ok(BertForSequenceClassification::new(&config, &Device::Cpu, 1)?)
}

/// Draws B, which is zero in new adapters, to imitate training.
fn drawn(model: &mut BertForSequenceClassification) -> Result {
    let mut stream = Stream::new(3, Purpose::User, 0, 0, 0);
    let mut drawn = Ok(());
    model.visit_mut("", &mut |name, tensor| {
        if name.ends_with("lora_B.weight") {
            match Tensor::randn(tensor.shape(), 1.0, &mut stream, &Device::Cpu) {
                Ok(random) => *tensor = random.requires_grad(),
                Err(error) => drawn = Err(error),
            }
        }
    });
    Ok(drawn?)
}

fn batch() -> Result<Batch> {
    let ids: Vec<u32> = (0..18).map(|n| n * 7 % 50).collect();
    Ok(Batch::packed(ids, vec![0; 18], Sequences::new(&[5, 2, 11])?)?)
}

fn logits(model: &BertForSequenceClassification) -> Result<Vec<f32>> {
    Ok(model.forward(&batch()?, Mode::Eval)?.to_vec()?)
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).fold(0.0, |most, (a, b)| most.max((a - b).abs()))
}

#[test]
fn merged_weights_compute_the_same_as_adapters() -> Result {
    for targets in [&["query", "value"][..], &["attention.output.dense"], &["intermediate.dense"], &ALL] {
        let mut model = model()?;
        let (plain, count) = (logits(&model)?, model.parameter_count());
        model.add_adapters(&LoraConfig::new(3).alpha(6.0).targets(targets.iter().copied()), 2)?;
        assert_eq!(logits(&model)?, plain, "a new adapter must not change the output");
        assert!(model.parameter_count() > count);
        drawn(&mut model)?;
        let adapted = logits(&model)?;
        assert!(distance(&adapted, &plain) > 1e-4, "{targets:?}");
        model.merge_adapters()?;
        assert_eq!(model.parameter_count(), count);
        assert!(distance(&logits(&model)?, &adapted) < 2e-6, "{targets:?}");
    }
    Ok(())
}

/// Compares the gradients of A and B with those derived from the gradient of the merged weight, W + s B A.
#[test]
fn gradients_are_those_of_the_merged_weight() -> Result {
    let mut model = model()?;
    model.add_adapters(&LoraConfig::new(2).alpha(3.0).targets(ALL), 2)?;
    drawn(&mut model)?;
    let labels = SequenceLabels::Classes(vec![0, 1, 1]);
    let gradients = model.loss(&batch()?, &labels, Mode::Eval)?.backward()?;
    let mut merged = model.clone();
    merged.merge_adapters()?;
    let of_sum = merged.loss(&batch()?, &labels, Mode::Eval)?.backward()?;
    let layers = |model: &BertForSequenceClassification| -> Vec<cloze_bert::Linear> {
        let layers = model.bert.encoder.layer.iter();
        layers
            .flat_map(|layer| {
                let attention = &layer.attention;
                let own = &attention.self_attention;
                [&own.query, &own.key, &attention.output.dense, &layer.intermediate.dense, &layer.output.dense]
            })
            .cloned()
            .collect()
    };
    for (layer, sum) in layers(&model).iter().zip(layers(&merged)) {
        let adapter = layer.adapter.as_ref().ok_or("no adapter")?;
        let dw = of_sum.get(&sum.weight).ok_or("no gradient")?; // [out, in]
        // d(s B A): dA = s Bᵀ dW, dB = s dW Aᵀ.
        let da = adapter.lora_b.detach().t()?.matmul(&dw)?.mul_scalar(1.5)?.to_vec::<f32>()?;
        let db = dw.matmul(&adapter.lora_a.detach().t()?)?.mul_scalar(1.5)?.to_vec::<f32>()?;
        for (parameter, want) in [(&adapter.lora_a, da), (&adapter.lora_b, db)] {
            let found = gradients.get(parameter).ok_or("no gradient")?.to_vec::<f32>()?;
            let largest = want.iter().fold(0f32, |most, x| most.max(x.abs()));
            assert!(distance(&found, &want) < 1e-5 * largest.max(1e-2), "{}", distance(&found, &want));
        }
    }
    Ok(())
}

/// Adding or loading adapters freezes the bare model; merging makes it trainable again.
#[test]
fn only_adapters_and_head_train() -> Result {
    let folder = tempfile::tempdir()?;
    let trainable = |model: &BertForSequenceClassification| -> Vec<String> {
        let parameters = model.named_parameters().into_iter();
        parameters.filter(|(_, tensor)| !tensor.is_frozen() && tensor.tracks_grad()).map(|(name, _)| name).collect()
    };
    let mut model = model()?;
    let all = trainable(&model);
    model.add_adapters(&LoraConfig::new(2).targets(["query"]), 2)?;
    let layer =
        |number: usize, matrix: &str| format!("bert.encoder.layer.{number}.attention.self.query.lora_{matrix}.weight");
    let mut expected: Vec<String> = (0..2).flat_map(|number| [layer(number, "A"), layer(number, "B")]).collect();
    expected.extend(["classifier.weight", "classifier.bias"].map(String::from));
    assert_eq!(trainable(&model), expected);
    let labels = SequenceLabels::Classes(vec![0, 1, 1]);
    let gradients = model.loss(&batch()?, &labels, Mode::Eval)?.backward()?;
    assert!(gradients.get(&model.bert.embeddings.word_embeddings.weight).is_none());
    assert!(gradients.get(&model.classifier.weight).is_some());
    model.save_adapters(folder.path())?;

    let mut loaded = self::model()?;
    loaded.load_adapters(folder.path())?;
    assert_eq!(trainable(&loaded), expected);
    loaded.merge_adapters()?;
    assert_eq!(trainable(&loaded), all);
    Ok(())
}

#[test]
fn saved_adapters_are_loaded() -> Result {
    let folder = tempfile::tempdir()?;
    let mut model = model()?;
    model.add_adapters(&LoraConfig::new(2).alpha(5.0), 2)?;
    drawn(&mut model)?;
    let refused = model.save(folder.path().join("whole")).err().ok_or("it was saved")?.to_string();
    assert!(refused.contains("merge_adapters()") && !folder.path().join("whole").exists(), "{refused}");
    model.save_adapters(folder.path())?;

    let mut read = self::model()?;
    let head = read.classifier.weight.to_vec::<f32>()?;
    read.load_adapters(folder.path())?;
    assert_eq!(logits(&read)?, logits(&model)?);
    assert_eq!(read.classifier.weight.to_vec::<f32>()?, head);

    let names = cloze_tensor::TensorFile::open(folder.path().join("adapter_model.safetensors"))?.names();
    let expected = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight";
    assert!(names.iter().any(|name| name == expected), "{names:?}");
    assert!(names.iter().any(|name| name == "base_model.model.classifier.weight"), "{names:?}");
    Ok(())
}

#[test]
fn adapters_that_do_not_fit_are_errors() -> Result {
    let mut model = model()?;
    let said = |result: cloze_bert::Result<()>| result.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(said(model.add_adapters(&LoraConfig::new(0), 1)).contains("rank of adapters is 0"));
    let none = said(model.add_adapters(&LoraConfig::new(1).targets(["q_proj", "uery"]), 1));
    assert!(none.contains("no linear layer of the encoder is called q_proj or uery"), "{none}");
    let folder = tempfile::tempdir()?;
    assert!(said(model.save_adapters(folder.path())).contains("has no adapters"));
    let missing = said(model.load_adapters(folder.path()));
    assert!(missing.contains("adapter_config.json: cannot read"), "{missing}");

    for (key, value, what) in [
        ("peft_type", "\"IA3\"", "peft_type is \"IA3\""),
        ("r", "0", "r is 0"),
        ("use_dora", "true", "use_dora is true"),
        ("bias", "\"all\"", "bias is \"all\""),
        ("target_modules", "\"all-linear\"", "target_modules is \"all-linear\""),
    ] {
        let mut config = serde_json::json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["query"]});
        config[key] = serde_json::from_str(value)?;
        std::fs::write(folder.path().join("adapter_config.json"), config.to_string())?;
        let error = said(model.load_adapters(folder.path()));
        assert!(error.contains(what), "{error}");
    }
    Ok(())
}
