//! Model folders, in both directions.

use std::path::Path;
use std::process::Command;

use cloze::bert::{HiddenAct, ModelType};
use cloze::prelude::*;
use cloze::tensor::{Sequences, TensorFile, save_safetensors};
use cloze_examples::program;

use crate::Result;
use crate::python::Python;

const CHOICES: usize = 2;

/// Returns all outputs of a model in one flat vector, in the order of `outputs.py`.
trait Outputs: PreTrainedModel {
    fn outputs(&self, batch: &Batch) -> Result<Vec<f32>>;
}

/// Opens the model in a folder, and returns its outputs.
type Open = fn(&Path, &Batch) -> Result<Vec<f32>>;
/// Creates a model, saves it to a folder, and returns its outputs.
type Write = fn(&BertConfig, &Path, &Batch) -> Result<Vec<f32>>;

/// Implements [`Outputs`] for each model.
macro_rules! outputs {
    ($($model:ty: |$m:ident, $batch:ident| $tensors:expr;)*) => {
        $(impl Outputs for $model {
            fn outputs(&self, batch: &Batch) -> Result<Vec<f32>> {
                let ($m, $batch) = (self, batch);
                let tensors: Vec<Tensor> = $tensors;
                Ok(tensors.iter().map(Tensor::to_vec).collect::<std::result::Result<Vec<_>, _>>()?.concat())
            }
        })*

        /// All models, by the name of their class in transformers.
        const HEADS: &[(&str, Open, Write)] = &[$((<$model>::ARCHITECTURE, open::<$model>, write::<$model>)),*];
    };
}

outputs! {
    BertModel: |model, batch| {
        let mut outputs = vec![model.forward(batch, Mode::Eval)?];
        if model.pooler.is_some() {
            outputs.push(model.pooled(batch, Mode::Eval)?);
        }
        outputs
    };
    BertForPreTraining: |model, batch| {
        let hidden = model.bert.forward(batch, Mode::Eval)?;
        let cls = hidden.gather_rows(batch.sequences().starts())?;
        vec![model.mlm_logits(&hidden)?, model.nsp_logits(&cls)?]
    };
    BertForMaskedLM: |model, batch| {
        let rows: Vec<u32> = (0..batch.tokens() as u32).collect();
        vec![model.forward(batch, &rows, Mode::Eval)?]
    };
    BertForNextSentencePrediction: |model, batch| vec![model.forward(batch, Mode::Eval)?];
    BertForSequenceClassification: |model, batch| vec![model.forward(batch, Mode::Eval)?];
    BertForTokenClassification: |model, batch| vec![model.forward(batch, Mode::Eval)?];
    BertForQuestionAnswering: |model, batch| vec![model.forward(batch, Mode::Eval)?];
    BertForMultipleChoice: |model, batch| vec![model.forward(batch, CHOICES, Mode::Eval)?];
}

fn open<M: Outputs>(folder: &Path, batch: &Batch) -> Result<Vec<f32>> {
    let (model, report) = M::open_reported(folder, &Device::Cpu, &OpenOptions::new())?;
    assert!(report.missing.is_empty() && report.unexpected.is_empty(), "{}: {report}", folder.display());
    model.outputs(batch)
}

fn write<M: Outputs>(config: &BertConfig, folder: &Path, batch: &Batch) -> Result<Vec<f32>> {
    let model = M::new(config, &Device::Cpu, 11)?;
    model.save(folder)?;
    model.outputs(batch)
}

/// Models saved by transformers open in cloze: each architecture, and each storage format of weights.
#[test]
fn models_saved_by_transformers_open() -> Result {
    let Some(python) = Python::of("models_saved_by_transformers_open") else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    python.run("write_models.py", &[dir.path()])?;
    let expected = TensorFile::open(dir.path().join("expected.safetensors"))?;
    let stored = |name: &str| expected.tensor(name, &Device::Cpu);
    let numbers = |name: &str| -> Result<Vec<i64>> { Ok(stored(name)?.to_vec()?) };
    let unsigned = |name: &str| -> Result<Vec<u32>> { Ok(numbers(name)?.into_iter().map(|x| x as u32).collect()) };
    let lengths: Vec<usize> = numbers("lengths")?.into_iter().map(|x| x as usize).collect();
    let mut opened = 0;
    for name in expected.names() {
        let architecture = name.split('.').next().unwrap_or_default().replacen("DistilBert", "Bert", 1);
        let Some((_, open, _)) = HEADS.iter().find(|(head, ..)| *head == architecture) else { continue };
        // DistilBERT has no token types.
        let types = if name.starts_with("Distil") { vec![0; unsigned("ids")?.len()] } else { unsigned("token_types")? };
        let batch = Batch::packed(unsigned("ids")?, types, Sequences::new(&lengths)?)?;
        let outputs = open(&dir.path().join(&name), &batch).map_err(|error| format!("{name}: {error}"))?;
        let theirs: Vec<f32> = stored(&name)?.to_vec()?;
        assert_eq!(outputs.len(), theirs.len(), "{name}");
        let largest = outputs.iter().zip(&theirs).fold(0.0f32, |largest, (a, b)| largest.max((a - b).abs()));
        println!("{name}: {largest:.1e}");
        assert!(largest <= 1e-5, "{name}: outputs differ by {largest:.1e}");
        opened += 1;
    }
    assert_eq!(opened, expected.names().len() - 3);
    Ok(())
}

/// Models saved by cloze open in transformers without missing weights, and have the same outputs.
#[test]
fn saved_models_open_in_transformers() -> Result {
    let Some(python) = Python::of("saved_models_open_in_transformers") else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let sequences = [vec![2, 9, 4, 17, 3], vec![2], vec![2, 5, 5, 30, 3, 7, 3], vec![2, 28, 3]];
    let sequences = sequences.map(|ids: Vec<u32>| (ids.clone(), vec![0; ids.len()]));
    let batch = Batch::new(&sequences)?;
    let mut stored = Vec::new();
    let bert = BertConfig {
        num_attention_heads: 3,
        hidden_size: 48,
        intermediate_size: 80,
        // Large enough that logits show differences.
        initializer_range: 0.1,
        ..BertConfig::tiny(43)
    };
    let tanh = BertConfig { hidden_act: HiddenAct::GeluNew, ..bert.clone() };
    let silu = BertConfig { hidden_act: HiddenAct::Silu, ..bert.clone() }.with_tie_word_embeddings(false);
    let distilbert = BertConfig { model_type: ModelType::DistilBert, type_vocab_size: 0, ..bert.clone() };
    for (family, config) in [("bert", bert), ("tanh", tanh), ("silu", silu), ("distilbert", distilbert.clone())] {
        for (architecture, _, write) in HEADS {
            let config = match *architecture {
                "BertForPreTraining" | "BertForNextSentencePrediction" if family == "distilbert" => continue,
                "BertForSequenceClassification" | "BertForTokenClassification" => {
                    config.clone().with_labels(["no", "maybe", "yes"])
                }
                _ => config.clone(),
            };
            let name = format!("{family}_{architecture}");
            stored.push((name.clone(), write(&config, &dir.path().join(name), &batch)?));
        }
    }
    let model = BertForMaskedLM::new(&distilbert, &Device::Cpu, 12)?;
    model.save_with(dir.path().join("sharded"), &SaveOptions::new().max_shard_bytes(40_000))?;
    stored.push(("sharded".to_string(), model.outputs(&batch)?));
    let half = dir.path().join("f16");
    model.save_with(&half, &SaveOptions::new().dtype(DType::F16))?;
    stored.push(("f16".to_string(), open::<BertForMaskedLM>(&half, &batch)?));
    // What the example leaves after training without next sentences.
    let trained = dir.path().join("pretrained");
    let output = Command::new(program("pretrain")?)
        .args(["--no-nsp", "--vocab-size", "200", "--seq-len", "32", "--steps", "3", "--out"])
        .arg(&trained)
        .output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    stored.push(("pretrained".to_string(), open::<BertForMaskedLM>(&trained, &batch)?));

    let vector = |values: Vec<f32>| Tensor::from_slice(&values, &[values.len()], &Device::Cpu);
    let numbers = |values: Vec<i64>| Tensor::from_slice(&values, &[values.len()], &Device::Cpu);
    let lengths = batch.sequences().cu_seqlens().windows(2).map(|bounds| i64::from(bounds[1]) - i64::from(bounds[0]));
    let mut tensors = vec![
        ("ids".to_string(), numbers(batch.ids().iter().map(|&id| id.into()).collect())?),
        ("token_types".to_string(), numbers(batch.token_types().iter().map(|&id| id.into()).collect())?),
        ("lengths".to_string(), numbers(lengths.collect())?),
    ];
    for (name, outputs) in stored {
        tensors.push((name, vector(outputs)?));
    }
    save_safetensors(dir.path().join("outputs.safetensors"), tensors, &[])?;
    python.run("read_models.py", &[dir.path()])
}
