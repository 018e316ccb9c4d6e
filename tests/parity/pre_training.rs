//! Both pre-training heads: logits, losses, the gradient of every parameter, and twenty steps of AdamW.

use cloze::bert::PreTrainingTargets;
use cloze::prelude::*;
use cloze::tensor::TensorFile;
use cloze::train::Optimizer;

use crate::Result;
use crate::fixture::{BERTS, Fixture, device};

fn open(name: &str) -> Result<(Fixture, BertForPreTraining, PreTrainingTargets)> {
    let fixture = Fixture::open(name)?;
    let (model, report) = BertForPreTraining::open_reported(fixture.folder(), &device(), &OpenOptions::new())?;
    assert!(report.missing.is_empty() && report.unexpected.is_empty(), "{report}");
    let targets = PreTrainingTargets {
        rows: fixture.target_rows()?,
        labels: fixture.integers("masked_lm.labels")?,
        next_sentence: fixture.integers("next_sentence.labels")?,
    };
    Ok((fixture, model, targets))
}

#[test]
fn logits_and_losses() -> Result {
    for name in BERTS {
        let (fixture, model, targets) = open(name)?;
        let hidden = model.bert.forward(&fixture.batch, Mode::Eval)?;
        let mlm_logits = model.mlm_logits(&hidden.gather_rows(&targets.rows)?)?;
        fixture.check("pre_training.mlm_logits", &mlm_logits, 5e-6)?;
        let cls = hidden.gather_rows(fixture.batch.sequences().starts())?;
        fixture.check("pre_training.nsp_logits", &model.nsp_logits(&cls)?, 5e-6)?;
        let loss = model.loss(&fixture.batch, &targets, Mode::Eval)?;
        let nsp = loss.nsp.ok_or("no next-sentence loss")?;
        for (name, loss) in [("loss", loss.loss), ("mlm_loss", loss.mlm), ("nsp_loss", nsp)] {
            fixture.check(&format!("pre_training.{name}"), &loss.reshape(&[1])?, 2e-6)?;
        }
    }
    Ok(())
}

#[test]
fn every_gradient() -> Result {
    for name in BERTS {
        let (fixture, model, targets) = open(name)?;
        let gradients = model.loss(&fixture.batch, &targets, Mode::Eval)?.loss.backward()?;
        fixture.check_gradients("pre_training.grad", &model, &gradients, |_| true)?;
    }
    Ok(())
}

#[test]
fn twenty_steps_of_adamw() -> Result {
    for name in BERTS {
        let (fixture, mut model, targets) = open(name)?;
        let mut optimizer = Optimizer::new(AdamW::new(1e-3), &mut model, |_| true)?;
        let (mut losses, mut norms) = (Vec::new(), Vec::new());
        for rate in fixture.floats("training.learning_rates")? {
            let loss = model.loss(&fixture.batch, &targets, Mode::Train { seed: 0, step: 0 })?.loss;
            optimizer.backward(&loss)?;
            losses.push(loss.item()? as f32);
            drop(loss);
            norms.push(optimizer.step_at(&mut model, rate.into(), Some(1.0))? as f32);
        }
        fixture.near("losses", &losses, &fixture.floats("training.losses")?, 5e-6);
        fixture.near("norms", &norms, &fixture.floats("training.norms")?, 1e-5);
        let mut finals = 0;
        for (name, parameter) in model.named_parameters() {
            let expected = format!("training.final.{name}");
            if fixture.names().contains(&expected) {
                fixture.check(&expected, &parameter, 5e-6)?;
                finals += 1;
            }
        }
        assert_eq!(finals, 9);
    }
    Ok(())
}

#[test]
fn a_saved_model_equals_the_opened_one() -> Result {
    let (fixture, model, targets) = open("head_size_24")?;
    let dir = tempfile::tempdir()?;
    model.save(dir.path())?;
    let ours = TensorFile::open(dir.path().join("model.safetensors"))?;
    let theirs = TensorFile::open(fixture.folder().join("model.safetensors"))?;
    assert_eq!(ours.names(), theirs.names());
    for name in ours.names() {
        let values = |file: &TensorFile| -> Result<Vec<f32>> { Ok(file.tensor(&name, &Device::Cpu)?.to_vec()?) };
        assert_eq!(values(&ours)?, values(&theirs)?, "{name}");
    }
    let read = BertForPreTraining::open(dir.path(), &device())?;
    let loss = |model: &BertForPreTraining| -> Result<f64> {
        Ok(model.loss(&fixture.batch, &targets, Mode::Eval)?.loss.item()?)
    };
    assert_eq!(loss(&read)?.to_bits(), loss(&model)?.to_bits());
    Ok(())
}
