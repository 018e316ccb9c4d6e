//! The folders of `sentence-transformers`: every setting changes the vectors as it does there, or is refused by name.

use std::fs;
use std::path::Path;

use cloze_bert::{
    Batch, BertConfig, Mode, OpenOptions, Pipeline, PreTrainedModel, SentenceEmbedder, SentenceEncoder,
    SentencePooling, Similarity, Tokenizer, TokenizerOptions, TrainOptions,
};
use cloze_tensor::{Device, Tensor, save_safetensors};
use serde_json::{Value, json};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const TEXTS: [&str; 2] = ["The cat sat on the mat", "query: Is the CAT on the mat?"];

fn tokenizer() -> Result<Tokenizer> {
    let lines = TEXTS.map(str::to_string).into_iter().chain(TEXTS.map(str::to_lowercase));
    Ok(Tokenizer::train(lines, 90, &TrainOptions::new().tokenizer(TokenizerOptions::cased()))?)
}

fn encoder() -> Result<SentenceEncoder> {
    let config = BertConfig {
        hidden_size: 12,
        num_attention_heads: 2,
        intermediate_size: 20,
        max_position_embeddings: 32,
        initializer_range: 0.4,
        ..BertConfig::tiny(tokenizer()?.vocab_size())
    };
    Ok(SentenceEncoder::new(&config, &Device::Cpu, 5)?)
}

/// Writes a model folder with further side files.
fn folder(files: &[(&str, Value)]) -> Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    encoder()?.save(dir.path())?;
    tokenizer()?.save(dir.path())?;
    for (name, content) in files {
        fs::write(dir.path().join(name), content.to_string())?;
    }
    Ok(dir)
}

/// Computes the vectors of texts without any setting, of at most `length` tokens.
fn plain(texts: &[&str], length: usize) -> Result<Vec<Vec<f32>>> {
    Ok(SentenceEmbedder::new(encoder()?, tokenizer()?.with_max_length(length))?.embed(texts)?.value)
}

#[track_caller]
fn same(found: &[Vec<f32>], expected: &[Vec<f32>]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.len(), expected.len());
        found.iter().zip(expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{a} against {b}"));
    }
}

fn said<T>(result: cloze_bert::Result<T>) -> String {
    result.err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn prompts_stand_before_sentences() -> Result {
    const SETTINGS: &str = "config_sentence_transformers.json";
    let prompts = json!({"query": "query: ", "passage": "The ", "empty": null});
    let dir =
        folder(&[(SETTINGS, json!({"prompts": prompts, "default_prompt_name": "query", "__version__": {"x": 1}}))])?;
    let embedder = SentenceEmbedder::open(dir.path())?;
    let with = |prompt: &str| plain(&[&format!("{prompt}cat"), &format!("{prompt}mat")], 32);
    let texts = ["cat", "mat"];
    same(&embedder.embed(&texts)?, &with("query: ")?);
    same(&embedder.query(&texts)?, &with("query: ")?);
    same(&embedder.document(&texts)?, &with("")?);
    same(&embedder.prompted("passage", &texts)?, &with("The ")?);
    same(&embedder.prompted("empty", &texts)?, &with("")?);
    let refused = said(embedder.prompted("title", &texts));
    assert_eq!(refused, "no prompt is named \"title\": must be empty, passage, query");

    // The model writes them, too.
    let again = tempfile::tempdir()?;
    SentenceEncoder::open(dir.path(), &Device::Cpu)?.save(again.path())?;
    tokenizer()?.save(again.path())?;
    same(&SentenceEmbedder::open(again.path())?.embed(&texts)?, &with("query: ")?);

    for (settings, why) in [
        (json!({"default_prompt_name": "title"}), "no prompt is named \"title\""),
        (json!({"prompts": ["query"]}), "prompts is [\"query\"]: must map names to texts"),
        (json!({"model_type": "SparseEncoder"}), "model_type is \"SparseEncoder\": must be \"SentenceTransformer\""),
        (json!({"similarity_fn_name": "maxsim"}), "similarity_fn_name is \"maxsim\": must be one of cosine"),
        (json!({"mood": "good"}), "mood is \"good\": this field is not supported"),
    ] {
        fs::write(dir.path().join(SETTINGS), settings.to_string())?;
        let refused = said(SentenceEmbedder::open(dir.path()));
        assert!(refused.contains(SETTINGS) && refused.contains(why), "{refused}");
    }
    Ok(())
}

/// Positions are those of the whole text; only the pooling leaves the prompt out.
#[test]
fn prompts_are_left_out_of_the_pooling() -> Result {
    for pooling in SentencePooling::ALL {
        let dir = folder(&[("config_sentence_transformers.json", json!({"prompts": {"query": "query: "}}))])?;
        let config = json!({"pooling_mode": pooling.name(), "include_prompt": false});
        fs::write(dir.path().join("1_Pooling/config.json"), config.to_string())?;
        let found = SentenceEmbedder::open(dir.path())?.query(&["the cat"])?;

        let tokenizer = tokenizer()?;
        let skipped = tokenizer.encode("query: ")?.len() - 1;
        let batch = Batch::from_encodings(&[tokenizer.encode("query: the cat")?])?;
        let hidden: Vec<f32> = encoder()?.bert.forward(&batch, Mode::Eval)?.to_vec()?;
        let rows: Vec<&[f32]> = hidden.chunks(12).skip(skipped).collect();
        let count = rows.len() as f32;
        let weighted = |divide: f32, weight: &dyn Fn(usize) -> f32| -> Vec<f32> {
            (0..12)
                .map(|c| rows.iter().enumerate().map(|(at, row)| weight(at) * row[c]).sum::<f32>() / divide)
                .collect()
        };
        let position = |at: usize| (at + skipped + 1) as f32;
        let expected = match pooling {
            SentencePooling::Cls => rows[0].to_vec(),
            SentencePooling::Max => (0..12).map(|c| rows.iter().fold(f32::MIN, |most, row| most.max(row[c]))).collect(),
            SentencePooling::Mean => weighted(count, &|_| 1.0),
            SentencePooling::MeanSqrtLen => weighted(count.sqrt(), &|_| 1.0),
            SentencePooling::WeightedMean => weighted((0..rows.len()).map(position).sum(), &position),
            SentencePooling::LastToken => rows[rows.len() - 1].to_vec(),
        };
        same(&found, &[expected]);
    }
    Ok(())
}

#[test]
fn settings_of_the_encoder_take_precedence() -> Result {
    for name in [
        "sentence_bert_config.json",
        "sentence_roberta_config.json",
        "sentence_distilbert_config.json",
        "sentence_camembert_config.json",
        "sentence_albert_config.json",
        "sentence_xlm-roberta_config.json",
        "sentence_xlnet_config.json",
    ] {
        let dir = folder(&[(name, json!({"max_seq_length": 6, "do_lower_case": false}))])?;
        same(&SentenceEmbedder::open(dir.path())?.embed(&TEXTS)?, &plain(&TEXTS, 6)?);
        tokenizer()?.with_max_length(4).save(dir.path())?;
        same(&SentenceEmbedder::open(dir.path())?.embed(&TEXTS)?, &plain(&TEXTS, 6)?);
        fs::write(dir.path().join(name), json!({"max_seq_length": null}).to_string())?;
        same(&SentenceEmbedder::open(dir.path())?.embed(&TEXTS)?, &plain(&TEXTS, 4)?);
    }
    // What is said twice is reported.
    let dir = folder(&[
        ("sentence_bert_config.json", json!({"max_seq_length": 40})),
        ("sentence_xlnet_config.json", json!({"max_seq_length": 7})),
    ])?;
    tokenizer()?.with_max_length(16).save(dir.path())?;
    let (_, report) = SentenceEncoder::open_reported(dir.path(), &Device::Cpu, &OpenOptions::new())?;
    let said_twice = [
        "max_seq_length is 40 in sentence_bert_config.json, max_seq_length 7 in sentence_xlnet_config.json: 40 counts",
        "max_seq_length is 40 in sentence_bert_config.json, model_max_length 16 in tokenizer_config.json: 40 counts",
        "the maximum length of the tokenizer is 40, max_position_embeddings in config.json 32: 32 counts",
    ];
    assert_eq!(report.conflicts, said_twice);
    assert_eq!(SentenceEmbedder::open_reported(dir.path(), &Device::Cpu)?.1, report);
    assert_eq!(Similarity::open_reported(dir.path(), &Device::Cpu)?.1, report);
    // An empty file does not count.
    fs::write(dir.path().join("sentence_bert_config.json"), "{}")?;
    same(&SentenceEmbedder::open(dir.path())?.embed(&TEXTS)?, &plain(&TEXTS, 7)?);
    // The file of version 6 has no length. Files that come later in the list do not matter.
    let text = json!({"text": {"method": "forward", "method_output_name": "last_hidden_state"}});
    let new = json!({"transformer_task": "feature-extraction", "modality_config": text,
        "module_output_name": "token_embeddings"});
    let dir =
        folder(&[("sentence_bert_config.json", new), ("sentence_xlnet_config.json", json!({"max_seq_length": 3}))])?;
    same(&SentenceEmbedder::open(dir.path())?.embed(&TEXTS)?, &plain(&TEXTS, 32)?);
    for (field, value, why) in [
        ("max_seq_length", json!(0), "max_seq_length is 0: must be an integer above 0"),
        ("transformer_task", json!("fill-mask"), "transformer_task is \"fill-mask\": must be \"feature-extraction\""),
        ("query_length", json!(8), "query_length is 8: this field is not supported"),
        (
            "processor_kwargs",
            json!({"padding_side": "left"}),
            "processor_kwargs is {\"padding_side\":\"left\"}: must be {}",
        ),
    ] {
        fs::write(dir.path().join("sentence_bert_config.json"), json!({field: value}).to_string())?;
        let refused = said(SentenceEmbedder::open(dir.path()));
        assert!(refused.contains("sentence_bert_config.json: ") && refused.contains(why), "{refused}");
    }
    Ok(())
}

#[test]
fn text_is_lowered_before_a_cased_tokenizer() -> Result {
    let dir = folder(&[("sentence_bert_config.json", json!({"do_lower_case": true}))])?;
    let lowered = TEXTS.map(str::to_lowercase);
    let lowered: Vec<&str> = lowered.iter().map(String::as_str).collect();
    assert_ne!(plain(&TEXTS, 32)?, plain(&lowered, 32)?);
    same(&SentenceEmbedder::open(dir.path())?.embed(&TEXTS)?, &plain(&lowered, 32)?);
    // A token in brackets is still found, and accents stay: an uncased BERT would remove them.
    let tokenizer = SentenceEncoder::tokenizer(dir.path())?;
    assert_eq!(tokenizer.encode("The [MASK]")?.ids, tokenizer.encode("the [MASK]")?.ids);
    assert_eq!(tokenizer.encode("the [MASK]")?.ids[2], tokenizer.mask_id());
    assert_eq!(tokenizer.encode("C\u{e1}t")?.ids[1], tokenizer.unk_id());
    Ok(())
}

/// The embedding of a blank text is that of `[CLS]` and `[SEP]`.
#[test]
fn blank_texts_have_vectors() -> Result {
    let (tokenizer, encoder) = (tokenizer()?, encoder()?);
    let blank = Batch::new(&[([tokenizer.cls_id(), tokenizer.sep_id()], [0, 0])])?;
    let blank: Vec<f32> = encoder.forward(&blank, Mode::Eval)?.to_vec()?;
    let embedder = SentenceEmbedder::new(encoder, tokenizer)?;
    let found = embedder.embed(&[TEXTS[0], "", " \t", "\u{200d}"])?;
    same(&found[1..], &[blank.clone(), blank.clone(), blank]);
    same(&found[..1], &plain(&TEXTS[..1], 32)?);
    Ok(())
}

/// Writes a dense layer from 12 to `outputs` features, and returns W and b.
fn write_dense(dir: &Path, outputs: usize, config: &Value) -> Result<(Vec<f32>, Vec<f32>)> {
    let values = |count: usize, step: f32| (0..count).map(|n| (n as f32 * step).sin()).collect::<Vec<f32>>();
    let (weight, bias) = (values(outputs * 12, 0.7), values(outputs, 1.3));
    fs::create_dir_all(dir)?;
    let mut tensors = vec![("linear.weight".to_string(), Tensor::from_slice(&weight, &[outputs, 12], &Device::Cpu)?)];
    if config["bias"] != false {
        tensors.push(("linear.bias".to_string(), Tensor::from_slice(&bias, &[outputs], &Device::Cpu)?));
    }
    save_safetensors(dir.join("model.safetensors"), tensors, &[])?;
    fs::write(dir.join("config.json"), config.to_string())?;
    Ok((weight, bias))
}

#[test]
fn dense_layers_follow_the_pooling() -> Result {
    let list = |classes: &[&str]| -> Value {
        let entry = |(index, class): (usize, &&str)| {
            let path = if index == 0 { String::new() } else { format!("{index}_{class}") };
            let class = format!("sentence_transformers.models.{class}");
            json!({"idx": index, "name": index.to_string(), "path": path, "type": class})
        };
        classes.iter().enumerate().map(entry).collect()
    };
    let modules = list(&["Transformer", "Pooling", "Dense", "Normalize"]);
    let dir = folder(&[("modules.json", modules)])?;
    let pooled = plain(&TEXTS, 32)?;
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    let activations: [(&str, &dyn Fn(f32) -> f32); 4] = [
        ("torch.nn.modules.activation.Tanh", &f32::tanh),
        ("torch.nn.modules.linear.Identity", &|x| x),
        ("torch.nn.ReLU", &|x| x.max(0.0)),
        ("torch.nn.modules.activation.Sigmoid", &sigmoid),
    ];
    for ((class, f), bias) in activations.into_iter().zip([true, true, false, true]) {
        let config = json!({"in_features": 12, "out_features": 5, "bias": bias, "activation_function": class});
        let (w, b) = write_dense(&dir.path().join("2_Dense"), 5, &config)?;
        let expected: Vec<Vec<f32>> = pooled
            .iter()
            .map(|x| {
                let dot = |row: &[f32]| row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
                let y: Vec<f32> =
                    w.chunks(12).zip(&b).map(|(row, b)| f(dot(row) + if bias { *b } else { 0.0 })).collect();
                let norm = y.iter().map(|y| y * y).sum::<f32>().sqrt();
                y.iter().map(|y| y / norm).collect()
            })
            .collect();
        let embedder = SentenceEmbedder::open(dir.path())?;
        assert_eq!(embedder.dimension(), 5);
        same(&embedder.embed(&TEXTS)?, &expected);

        let again = tempfile::tempdir()?;
        SentenceEncoder::open(dir.path(), &Device::Cpu)?.save(again.path())?;
        tokenizer()?.save(again.path())?;
        same(&SentenceEmbedder::open(again.path())?.embed(&TEXTS)?, &expected);
    }

    let residual = json!({"in_features": 12, "out_features": 12, "use_residual": true});
    let (w, b) = write_dense(&dir.path().join("2_Dense"), 12, &residual)?;
    fs::write(dir.path().join("modules.json"), list(&["Transformer", "Pooling", "Dense"]).to_string())?;
    let expected = pooled.iter().map(|x| {
        let dot = |row: &[f32]| row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
        w.chunks(12).zip(&b).zip(x).map(|((row, b), x)| (dot(row) + b).tanh() + x).collect()
    });
    same(&SentenceEmbedder::open(dir.path())?.embed(&TEXTS)?, &expected.collect::<Vec<_>>());

    for (config, why) in [
        (json!({"in_features": 12}), "out_features is missing"),
        (json!({"in_features": 9, "out_features": 5}), "in_features is 9: must be 12"),
        (json!({"in_features": 12, "out_features": 7}), "linear.weight has shape [5, 12]"),
        (
            json!({"in_features": 12, "out_features": 5, "activation_function": "mine.Tanh"}),
            "activation_function is \"mine.Tanh\"",
        ),
        (json!({"in_features": 12, "out_features": 5, "module_input_name": "x"}), "module_input_name is \"x\""),
        (json!({"in_features": 12, "out_features": 5, "use_residual": true}), "use_residual is true"),
    ] {
        write_dense(&dir.path().join("2_Dense"), 5, &config)?;
        let refused = said(SentenceEmbedder::open(dir.path()));
        assert!(refused.contains("2_Dense") && refused.contains(why), "{refused}");
    }
    Ok(())
}

#[test]
fn vectors_are_truncated_and_normalised() -> Result {
    let whole = plain(&TEXTS, 32)?;
    let cut: Vec<Vec<f32>> = whole.iter().map(|vector| vector[..4].to_vec()).collect();
    let normalised: Vec<Vec<f32>> = cut
        .iter()
        .map(|vector| vector.iter().map(|x| x / vector.iter().map(|x| x * x).sum::<f32>().sqrt()).collect())
        .collect();
    let embedder =
        || -> Result<SentenceEmbedder> { Ok(SentenceEmbedder::new(encoder()?, tokenizer()?)?.truncated(4)?) };
    assert_eq!(embedder()?.dimension(), 4);
    same(&embedder()?.embed(&TEXTS)?, &cut);
    same(&embedder()?.normalized(true).embed(&TEXTS)?, &normalised);
    let dir = folder(&[("config_sentence_transformers.json", json!({"truncate_dim": 4}))])?;
    same(&SentenceEmbedder::open(dir.path())?.embed(&TEXTS)?, &cut);
    assert_eq!(said(embedder()?.truncated(13)), "dimension is 13: must be from 1 to 12");
    Ok(())
}

#[test]
fn similarities_follow_the_function_of_the_folder() -> Result {
    let vectors = plain(&TEXTS, 32)?;
    let pairs = || vectors[0].iter().zip(&vectors[1]).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    for (name, expected) in [
        ("dot", pairs().map(|(a, b)| a * b).sum::<f64>()),
        ("euclidean", -pairs().map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()),
        ("manhattan", -pairs().map(|(a, b)| (a - b).abs()).sum::<f64>()),
    ] {
        let dir = folder(&[("config_sentence_transformers.json", json!({"similarity_fn_name": name}))])?;
        let found = Similarity::open(dir.path())?.score(TEXTS[0], TEXTS[1])?.value;
        assert!((found - expected).abs() < 1e-4, "{name}: {found} against {expected}");
    }
    Ok(())
}
