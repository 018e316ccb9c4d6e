//! Embeddings, hidden states, attention probabilities and the pooled output.

use cloze::bert::{Batch, BertModel, Mode};
use cloze::prelude::*;

use crate::Result;
use crate::fixture::{BERTS, Fixture, device};

fn every_layer(name: &str) -> Result {
    let fixture = Fixture::open(name)?;
    let (model, report) = BertModel::open_reported(fixture.folder(), &device(), &OpenOptions::new())?;
    assert!(report.missing.iter().all(|name| name.contains("pooler")), "{report}");
    let hidden = model.hidden(&fixture.batch)?;
    let layers = model.config().num_hidden_layers;
    assert_eq!((hidden.states.len(), hidden.attentions.len()), (layers + 1, layers));
    fixture.check("embeddings", &hidden.states[0], 5e-6)?;
    for (index, state) in hidden.states.iter().enumerate().skip(1) {
        fixture.check(&format!("hidden.{index}"), state, 5e-6)?;
    }
    for (layer, attention) in hidden.attentions.iter().enumerate() {
        assert_eq!(attention.len(), fixture.batch.len());
        for (sequence, probabilities) in attention.iter().enumerate() {
            fixture.check(&format!("attention.{layer}.{sequence}"), probabilities, 1e-6)?;
        }
    }
    fixture.check(&format!("hidden.{layers}"), &model.forward(&fixture.batch, Mode::Eval)?, 5e-6)
}

#[test]
fn every_layer_of_bert() -> Result {
    BERTS.into_iter().try_for_each(every_layer)
}

#[test]
fn every_layer_of_distilbert() -> Result {
    every_layer("distilbert")
}

#[test]
fn pooled() -> Result {
    for name in BERTS {
        let fixture = Fixture::open(name)?;
        let model = BertModel::open(fixture.folder(), &device())?;
        fixture.check("pooled", &model.pooled(&fixture.batch, Mode::Eval)?, 5e-6)?;
    }
    Ok(())
}

/// A padded batch with a mask gives the bits of its packed sequences, whatever ids the padding has.
#[test]
fn padded_and_packed_agree() -> Result {
    for name in BERTS {
        let fixture = Fixture::open(name)?;
        let model = BertModel::open(fixture.folder(), &device())?;
        let packed = &fixture.batch;
        let length = packed.sequences().longest() + 2;
        let (mut ids, mut types, mut mask) = (Vec::new(), Vec::new(), Vec::new());
        for bounds in packed.sequences().cu_seqlens().windows(2) {
            let (start, end) = (bounds[0] as usize, bounds[1] as usize);
            let full = ids.len() + length;
            ids.extend(&packed.ids()[start..end]);
            types.extend(&packed.token_types()[start..end]);
            mask.resize(ids.len(), 1);
            ids.resize(full, 7);
            types.resize(full, 0);
            mask.resize(full, 0);
        }
        let padded = Batch::from_padded(&ids, &types, &mask, length)?;
        let states = model.hidden_states(&padded, Mode::Eval)?;
        for (index, state) in states.iter().enumerate().skip(1) {
            fixture.check(&format!("hidden.{index}"), state, 5e-6)?;
        }
        let bits = |batch: &Batch| -> Result<Vec<f32>> { Ok(model.forward(batch, Mode::Eval)?.to_vec()?) };
        assert_eq!(bits(&padded)?, bits(packed)?);
    }
    Ok(())
}
