//! The model against transformers: fixtures that `tests/fixtures/generate.py` computed in f64 with PyTorch.

use std::path::PathBuf;

use cloze::bert::{Batch, BertForPreTraining, Mode, PreTrainingTargets};
use cloze::tensor::{Device, Module, Tensor, TensorFile};
use cloze::train::{AdamW, Optimizer};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A small model, a batch for it, and what transformers says of both.
struct Fixture {
    model: BertForPreTraining,
    expected: TensorFile,
    batch: Batch,
    targets: PreTrainingTargets,
}

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

impl Fixture {
    fn open(name: &str) -> Result<Fixture> {
        let (model, report) = BertForPreTraining::open(folder(name), &Device::Cpu)?;
        assert!(report.missing.is_empty() && report.unexpected.is_empty(), "{report}");
        let expected = TensorFile::open(folder(name).join("expected.safetensors"))?;
        let integers = |name: &str| -> Result<Vec<i64>> { Ok(expected.tensor(name, &Device::Cpu)?.to_vec()?) };
        let ids = |name: &str| -> Result<Vec<u32>> { Ok(integers(name)?.into_iter().map(|id| id as u32).collect()) };
        let lengths: Vec<usize> = integers("lengths")?.into_iter().map(|length| length as usize).collect();
        let sequences = cloze::tensor::Sequences::new(&lengths)?;
        let batch = Batch::packed(ids("ids")?, ids("token_types")?, sequences)?;
        let targets = PreTrainingTargets {
            rows: ids("target_rows")?,
            labels: integers("target_ids")?,
            next_sentence: integers("next_sentence_labels")?,
            divisors: None,
        };
        Ok(Fixture { model, expected, batch, targets })
    }

    fn values(&self, name: &str) -> Result<Vec<f32>> {
        Ok(self.expected.tensor(name, &Device::Cpu)?.to_vec()?)
    }

    fn check(&self, name: &str, computed: &Tensor, tolerance: f32) -> Result {
        let expected = self.expected.tensor(name, &Device::Cpu)?;
        assert_eq!(computed.shape(), expected.shape(), "{name}");
        near(name, &computed.to_vec()?, &expected.to_vec()?, tolerance);
        Ok(())
    }
}

fn near(name: &str, computed: &[f32], expected: &[f32], tolerance: f32) {
    for (index, (a, b)) in computed.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance, "{name}[{index}]: {a} against {b}, tolerance {tolerance:e}");
    }
}

const FIXTURES: [&str; 2] = ["pretraining_a", "pretraining_b"];

#[test]
fn forward() -> Result {
    for name in FIXTURES {
        let fixture = Fixture::open(name)?;
        let (model, batch) = (&fixture.model, &fixture.batch);
        let hidden = model.bert.hidden(batch)?;
        fixture.check("embeddings", &hidden.states[0], 5e-6)?;
        for (index, state) in hidden.states.iter().enumerate().skip(1) {
            fixture.check(&format!("hidden.{index}"), state, 5e-6)?;
        }
        let longest = hidden.attentions[0].iter().max_by_key(|weights| weights.shape()[1]);
        fixture.check("attention.0", longest.ok_or("no sequence")?, 1e-6)?;
        let last = model.bert.forward(batch, Mode::Eval)?;
        let pooler = model.bert.pooler.as_ref().ok_or("no pooler")?;
        let cls = last.gather_rows(batch.sequences().starts())?;
        fixture.check("pooled", &pooler.forward(&cls)?, 5e-6)?;
        fixture.check("mlm_logits", &model.mlm_logits(&last.gather_rows(&fixture.targets.rows)?)?, 1e-5)?;
        fixture.check("nsp_logits", &model.nsp_logits(&cls)?, 5e-6)?;
        let loss = model.loss(batch, &fixture.targets, Mode::Eval)?;
        fixture.check("loss", &loss.loss.reshape(&[1])?, 5e-6)?;
        fixture.check("mlm_loss", &loss.mlm.reshape(&[1])?, 5e-6)?;
        fixture.check("nsp_loss", &loss.nsp.ok_or("no next-sentence loss")?.reshape(&[1])?, 5e-6)?;
    }
    Ok(())
}

#[test]
fn every_gradient() -> Result {
    for name in FIXTURES {
        let fixture = Fixture::open(name)?;
        let gradients = fixture.model.loss(&fixture.batch, &fixture.targets, Mode::Eval)?.loss.backward()?;
        let parameters = fixture.model.named_parameters();
        assert_eq!(fixture.expected.names().iter().filter(|name| name.starts_with("grad.")).count(), parameters.len());
        for (name, parameter) in parameters {
            let expected = fixture.values(&format!("grad.{name}"))?;
            // Relative to the largest of the parameter; key biases are zero by mathematics.
            let largest = expected.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            let gradient = gradients.get(&parameter).ok_or_else(|| format!("{name} has no gradient"))?;
            fixture.check(&format!("grad.{name}"), &gradient, (1e-5 * largest).max(1e-7))?;
        }
    }
    Ok(())
}

#[test]
fn twenty_steps_of_adamw() -> Result {
    for name in FIXTURES {
        let mut fixture = Fixture::open(name)?;
        let mut optimizer = Optimizer::new(AdamW::new(1e-3), &mut fixture.model, |_| true)?;
        let (mut losses, mut norms) = (Vec::new(), Vec::new());
        for rate in fixture.values("learning_rates")? {
            let loss = fixture.model.loss(&fixture.batch, &fixture.targets, Mode::Train { seed: 0, step: 0 })?.loss;
            optimizer.backward(&loss)?;
            losses.push(loss.item()? as f32);
            drop(loss);
            norms.push(optimizer.step(&mut fixture.model, rate.into(), Some(1.0))? as f32);
        }
        near("losses", &losses, &fixture.values("losses")?, 2e-5);
        near("norms", &norms, &fixture.values("norms")?, 1e-4);
        for (name, parameter) in fixture.model.named_parameters() {
            let expected = format!("final.{name}");
            if fixture.expected.shape(&expected).is_some() {
                fixture.check(&expected, &parameter, 2e-5)?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_model_saved_here_is_the_model_that_was_read() -> Result {
    let fixture = Fixture::open("pretraining_a")?;
    let dir = tempfile::tempdir()?;
    fixture.model.save(dir.path())?;
    let ours = TensorFile::open(dir.path().join("model.safetensors"))?;
    let theirs = TensorFile::open(folder("pretraining_a").join("model.safetensors"))?;
    assert_eq!(ours.names(), theirs.names());
    for name in ours.names() {
        let values = |file: &TensorFile| -> Result<Vec<f32>> { Ok(file.tensor(&name, &Device::Cpu)?.to_vec()?) };
        assert_eq!(values(&ours)?, values(&theirs)?, "{name}");
    }
    let (read, _) = BertForPreTraining::open(dir.path(), &Device::Cpu)?;
    let loss = |model: &BertForPreTraining| -> Result<f64> {
        Ok(model.loss(&fixture.batch, &fixture.targets, Mode::Eval)?.loss.item()?)
    };
    assert_eq!(loss(&read)?.to_bits(), loss(&fixture.model)?.to_bits());
    Ok(())
}
