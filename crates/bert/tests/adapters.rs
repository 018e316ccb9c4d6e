//! Low-rank adapters: outputs, gradients, freezing and files.

use cloze_bert::{
    Batch, BertConfig, BertForSequenceClassification, BertModel, LoraConfig, Mode, ModelType, OpenOptions,
    PreTrainedModel, SentenceEncoder, SequenceLabels,
};
use cloze_tensor::random::{Purpose, Stream};
use cloze_tensor::{DType, Device, Module, Sequences, Tensor, save_safetensors};
use serde_json::{Value, json};

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
        ("use_dora", "true", "this method is not supported: must be false or absent"),
        ("init_lora_weights", "\"pissa\"", "init_lora_weights is \"pissa\": must be true, false, gaussian"),
        ("init_lora_weights", "\"olora\"", "init_lora_weights is \"olora\""),
        ("alpha_pattern", "{\"a{2}\": 2}", "alpha_pattern is {\"a{2}\":2}: must map names of modules"),
        ("trainable_token_indices", "[3]", "trainable_token_indices is [3]"),
        ("layer_replication", "[[0, 1]]", "layer_replication is [[0,1]]"),
        ("use_something", "true", "use_something is true: this field is not supported"),
    ] {
        let mut config = serde_json::json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["query"]});
        config[key] = serde_json::from_str(value)?;
        std::fs::write(folder.path().join("adapter_config.json"), config.to_string())?;
        let error = said(model.load_adapters(folder.path()));
        assert!(error.contains(what), "{error}");
    }
    Ok(())
}

/// `peft` leaves out what the settings do not name, or fails where a shape is another.
#[test]
fn settings_that_contradict_the_tensors_are_errors() -> Result {
    let folder = tempfile::tempdir()?;
    let mut adapted = model()?;
    adapted.add_adapters(&LoraConfig::new(2).targets(["query"]), 2)?;
    adapted.save_adapters(folder.path())?;
    let path = folder.path().join("adapter_config.json");
    let saved: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    for (field, value, what) in [
        ("r", json!(5), "r is 5 for bert.encoder.layer.0.attention.self.query, whose adapter has the rank 2"),
        ("rank_pattern", json!({"layer.1.*query": 3}), "rank_pattern is 3 for bert.encoder.layer.1"),
        ("rank_pattern", json!({"query": 2, "self.query": 3}), "rank_pattern has 2 and 3 for"),
        ("target_modules", json!(["key"]), "target_modules does not have bert.encoder.layer.0.attention.self.query"),
        ("exclude_modules", json!(".*layer.1.*"), "exclude_modules has bert.encoder.layer.1.attention.self.query"),
        (
            "layers_pattern",
            json!(["layer"]),
            "layers_pattern is [\"layer\"]: must be absent without layers_to_transform",
        ),
        (
            "modules_to_save",
            json!(["classifier", "pooler"]),
            "modules_to_save has the module of bert.pooler.dense.weight",
        ),
    ] {
        let mut config = saved.clone();
        config[field] = value;
        std::fs::write(&path, config.to_string())?;
        let error = model()?.load_adapters(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("adapter_config.json: {what}")), "{error}");
    }
    let mut config = saved.clone();
    (config["target_modules"], config["layers_to_transform"]) = (json!(["query"]), json!([1]));
    std::fs::write(&path, config.to_string())?;
    let error = model()?.load_adapters(folder.path()).unwrap_err().to_string();
    assert!(error.contains("layers_to_transform does not have bert.encoder.layer.0"), "{error}");
    Ok(())
}

/// Writes adapters for the modules of these names, with random numbers.
struct Adapters {
    tensors: Vec<(String, Tensor)>,
    stream: Stream,
}

impl Adapters {
    fn new() -> Adapters {
        Adapters { tensors: Vec::new(), stream: Stream::new(9, Purpose::User, 0, 0, 0) }
    }

    fn add(&mut self, name: String, shape: &[usize]) -> Result<Tensor> {
        let tensor = Tensor::randn(shape, 0.5, &mut self.stream, &Device::Cpu)?;
        self.tensors.push((format!("base_model.model.{name}"), tensor.clone()));
        Ok(tensor)
    }

    /// Adds an adapter, and its correction to the weight in `weights`.
    fn adapt(&mut self, weights: &mut Weights, name: &str, rank: usize, scale: f64, shape: [usize; 2]) -> Result {
        let b = self.add(format!("{name}.lora_B.weight"), &[shape[0], rank])?;
        let a = self.add(format!("{name}.lora_A.weight"), &[rank, shape[1]])?;
        weights.push((format!("{name}.weight"), b.matmul(&a)?.mul_scalar(scale)?));
        Ok(())
    }

    fn write(self, folder: &std::path::Path, config: &Value) -> Result {
        save_safetensors(folder.join("adapter_model.safetensors"), self.tensors, &[])?;
        Ok(std::fs::write(folder.join("adapter_config.json"), config.to_string())?)
    }
}

/// The sums that are added to parameters, by name.
type Weights = Vec<(String, Tensor)>;

/// Adds to the parameters of a model, each of whose names is `prefix` and a name in `weights`.
fn corrected(model: &mut impl Module, weights: &Weights, prefix: &str) -> Result {
    let mut found = 0;
    model.visit_mut("", &mut |name, parameter| {
        for (_, sum) in weights.iter().filter(|(own, _)| name == format!("{prefix}{own}")) {
            found += 1;
            if let Ok(tensor) = parameter.detach().add(sum) {
                *parameter = tensor;
            }
        }
    });
    assert_eq!(found, weights.len());
    Ok(())
}

#[test]
fn every_form_of_adapter_is_its_formula() -> Result {
    let (folder, mut adapters, mut sums) = (tempfile::tempdir()?, Adapters::new(), Vec::new());
    let layer = |index: usize, name: &str| format!("bert.encoder.layer.{index}.{name}");
    // alpha 6, stabilised: 6 / √3; an alpha of its own and another rank: 5 / √2, 8 / √1.
    let root = |rank: f64| rank.sqrt();
    adapters.adapt(&mut sums, &layer(0, "attention.self.query"), 3, 6.0 / root(3.0), [16, 16])?;
    adapters.adapt(&mut sums, &layer(1, "attention.self.query"), 2, 5.0 / root(2.0), [16, 16])?;
    adapters.adapt(&mut sums, &layer(1, "intermediate.dense"), 1, 8.0, [24, 16])?;
    adapters.adapt(&mut sums, "bert.pooler.dense", 3, 6.0 / root(3.0), [16, 16])?;
    adapters.adapt(&mut sums, "classifier", 3, 6.0 / root(3.0), [2, 16])?;
    let bias = adapters.add(layer(1, "attention.self.query.lora_B.bias"), &[16])?;
    sums.push((layer(1, "attention.self.query.bias"), bias.mul_scalar(5.0 / root(2.0))?));
    // A module stored as a whole: its values are those of the file, so the difference is added below.
    adapters.tensors.push((
        format!("base_model.model.{}", layer(0, "output.LayerNorm.weight")),
        Tensor::ones(&[16], DType::F32, &Device::Cpu)?,
    ));
    let norm = adapters.add(layer(0, "output.LayerNorm.bias"), &[16])?;
    sums.push((layer(0, "output.LayerNorm.bias"), norm)); // it is 0 in a new model
    adapters.write(
        folder.path(),
        &json!({"peft_type": "LORA", "r": 3, "lora_alpha": 6, "use_rslora": true, "target_modules": "all-linear",
            "alpha_pattern": {"layer.1.*(query|key)": 5, "^bert\\.encoder.layer.1.intermediate.dense": 8},
            "rank_pattern": {"layer.1.attention.self.query": 2, "intermediate.dense": 1}, "layers_to_transform": [0, 1], "lora_bias": true,
            "modules_to_save": ["layer.0.output.LayerNorm"],
            "init_lora_weights": "gaussian", "peft_version": "0.21.2", "loftq_config": {}, "use_dora": false}),
    )?;
    let (mut found, mut expected) = (model()?, model()?);
    found.load_adapters(folder.path())?;
    corrected(&mut expected, &sums, "")?;
    assert!(distance(&logits(&model()?)?, &logits(&expected)?) > 1e-2);
    assert!(distance(&logits(&found)?, &logits(&expected)?) < 1e-5);

    // Written and read again, with the same layers; the module stored as a whole still is.
    let again = tempfile::tempdir()?;
    found.save_adapters(again.path())?;
    let config: Value = serde_json::from_str(&std::fs::read_to_string(again.path().join("adapter_config.json"))?)?;
    assert_eq!(config["modules_to_save"], json!(["bert.encoder.layer.0.output.LayerNorm", "classifier"]));
    let mut read = model()?;
    read.load_adapters(again.path())?;
    assert!(distance(&logits(&read)?, &logits(&found)?) < 1e-5);
    found.merge_adapters()?;
    assert!(distance(&logits(&found)?, &logits(&expected)?) < 1e-5);
    Ok(())
}

/// `peft` writes the adapters of a bare encoder without the prefix `bert.`, and those of a DistilBERT under its own
/// names.
#[test]
fn names_are_those_of_the_model() -> Result {
    let bare = BertConfig { hidden_size: 16, num_attention_heads: 2, intermediate_size: 24, ..BertConfig::tiny(50) };
    let distil = BertConfig { model_type: ModelType::DistilBert, type_vocab_size: 0, ..bare.clone() };
    let first = |folder: &std::path::Path| -> Result<(String, String)> {
        let config: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("adapter_config.json"))?)?;
        let names = cloze_tensor::TensorFile::open(folder.join("adapter_model.safetensors"))?.names();
        let name = names.into_iter().find(|name| name.contains("lora_A")).ok_or("there is no adapter")?;
        Ok((name, config["target_modules"][0].as_str().unwrap_or_default().to_string()))
    };
    let lora = LoraConfig::new(2).targets(["query", "q_lin"]);
    for (config, module) in
        [(&bare, "encoder.layer.0.attention.self.query"), (&distil, "transformer.layer.0.attention.q_lin")]
    {
        let folder = tempfile::tempdir()?;
        let mut encoder = SentenceEncoder::new(config, &Device::Cpu, 1)?;
        encoder.add_adapters(&lora, 2)?;
        encoder.save_adapters(folder.path())?;
        let expected = (format!("base_model.model.{module}.lora_A.weight"), module.to_string());
        assert_eq!(first(folder.path())?, expected);
        BertModel::new(config, &Device::Cpu, 1)?.load_adapters(folder.path())?;
        SentenceEncoder::new(config, &Device::Cpu, 1)?.load_adapters(folder.path())?;
    }
    let folder = tempfile::tempdir()?;
    let mut classifier = BertForSequenceClassification::new(&distil, &Device::Cpu, 1)?;
    classifier.add_adapters(&lora, 2)?;
    classifier.save_adapters(folder.path())?;
    assert_eq!(first(folder.path())?.1, "distilbert.transformer.layer.0.attention.q_lin");
    // Only the adapters of a bare model train.
    let mut model = BertModel::new(&bare, &Device::Cpu, 1)?;
    model.add_adapters(&lora, 2)?;
    let trained = model.named_parameters().into_iter().filter(|(_, tensor)| !tensor.is_frozen());
    assert!(trained.map(|(name, _)| name).all(|name| name.contains(".lora_")));
    Ok(())
}

/// The folder of a classifier or of a sentence encoder may hold only adapters, and name their model.
#[test]
fn folders_of_adapters_are_opened_on_their_model() -> Result {
    let (base, folder) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let mut model = model()?;
    model.save(base.path())?;
    let plain = {
        let encoder = SentenceEncoder::open(base.path(), &Device::Cpu)?;
        encoder.forward(&batch()?, Mode::Eval)?.to_vec::<f32>()?
    };
    model.add_adapters(&LoraConfig::new(2).alpha(5.0), 2)?;
    drawn(&mut model)?;
    model.save_adapters(folder.path())?;
    let path = folder.path().join("adapter_config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    let refused = BertForSequenceClassification::open(folder.path(), &Device::Cpu).err().ok_or("it was opened")?;
    assert!(refused.to_string().contains("base_model_name_or_path is null: must be the folder"), "{refused}");
    config["base_model_name_or_path"] = json!(base.path());
    std::fs::write(&path, config.to_string())?;
    let (opened, report) =
        BertForSequenceClassification::open_reported(folder.path(), &Device::Cpu, &OpenOptions::new())?;
    assert_eq!(logits(&opened)?, logits(&model)?);
    assert!(report.missing.is_empty());

    let folder = tempfile::tempdir()?;
    let mut encoder = SentenceEncoder::open(base.path(), &Device::Cpu)?;
    encoder.add_adapters(&LoraConfig::new(2).targets(["dense"]), 2)?;
    let mut stream = Stream::new(4, Purpose::User, 0, 0, 0);
    encoder.visit_mut("", &mut |name, tensor| {
        if name.ends_with("lora_B.weight")
            && let Ok(random) = Tensor::randn(tensor.shape(), 1.0, &mut stream, &Device::Cpu)
        {
            *tensor = random;
        }
    });
    encoder.save_adapters(folder.path())?;
    let path = folder.path().join("adapter_config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    config["base_model_name_or_path"] = json!(base.path());
    std::fs::write(&path, config.to_string())?;
    let opened = SentenceEncoder::open(folder.path(), &Device::Cpu)?;
    let (found, expected) = (opened.forward(&batch()?, Mode::Eval)?, encoder.forward(&batch()?, Mode::Eval)?);
    assert_eq!(found.to_vec::<f32>()?, expected.to_vec::<f32>()?);
    assert!(distance(&found.to_vec::<f32>()?, &plain) > 1e-3);
    Ok(())
}
