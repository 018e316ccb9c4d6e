//! Files of weights from other programs: other names, copies of tied tensors, and invalid files.

use std::collections::BTreeMap;
use std::path::Path;

use cloze_bert::{
    Batch, BertConfig, BertForPreTraining, LmPredictionHead, LoadReport, Mode, OpenOptions, PreTrainedModel,
    PreTrainingTargets, WEIGHTS_FILE,
};
use cloze_tensor::{DType, Device, Module, Tensor, TensorFile, save_safetensors};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const WORDS: &str = "bert.embeddings.word_embeddings.weight";
const DECODER: &str = "cls.predictions.decoder.weight";
const BIAS: &str = "cls.predictions.bias";
const DECODER_BIAS: &str = "cls.predictions.decoder.bias";

/// Saves a small model, lets `change` modify its tensors, and opens the result.
fn reopened(
    change: impl FnOnce(&mut BTreeMap<String, Tensor>) -> Result,
) -> Result<cloze_bert::Result<(BertForPreTraining, LoadReport)>> {
    let folder = tempfile::tempdir()?;
    save(folder.path())?;
    let mut tensors = BTreeMap::new();
    {
        let file = TensorFile::open(folder.path().join(WEIGHTS_FILE))?;
        for name in file.names() {
            // A copy, because the file will be replaced.
            let tensor = file.tensor(&name, &Device::Cpu)?;
            tensors.insert(name, tensor.mul_scalar(1.0)?);
        }
    }
    tensors.insert(BIAS.to_string(), Tensor::ones(&[40], DType::F32, &Device::Cpu)?);
    change(&mut tensors)?;
    save_safetensors(folder.path().join(WEIGHTS_FILE), tensors.into_iter().collect::<Vec<_>>(), &[])?;
    Ok(BertForPreTraining::open_reported(folder.path(), &Device::Cpu, &OpenOptions::new()))
}

fn save(folder: &Path) -> Result {
    let config = BertConfig {
        hidden_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 24,
        max_position_embeddings: 12,
        ..BertConfig::tiny(40)
    };
    Ok(BertForPreTraining::new(&config, &Device::Cpu, 3)?.save(folder)?)
}

fn refused(change: impl FnOnce(&mut BTreeMap<String, Tensor>) -> Result) -> Result<String> {
    Ok(reopened(change)?.err().ok_or("the file was accepted")?.to_string())
}

fn changed(tensor: &Tensor, index: usize, value: f32) -> Result<Tensor> {
    let mut values = tensor.to_vec::<f32>()?;
    values[index] = value;
    Ok(Tensor::new(&values[..], &Device::Cpu)?.reshape(tensor.shape())?)
}

#[test]
fn copies_of_tied_tensors_are_accepted() -> Result {
    let (model, report) = reopened(|tensors| {
        tensors.insert(DECODER.into(), tensors[WORDS].clone());
        tensors.insert(DECODER_BIAS.into(), tensors[BIAS].clone());
        Ok(())
    })??;
    assert!(report.missing.is_empty() && report.unexpected.is_empty(), "{report}");
    assert_eq!(report.loaded, model.named_parameters().len());
    Ok(())
}

#[test]
fn a_tied_tensor_is_found_under_its_other_name() -> Result {
    let (model, report) = reopened(|tensors| {
        for (name, copy) in [(WORDS, DECODER), (BIAS, DECODER_BIAS)] {
            let tensor = tensors.remove(name).ok_or(name)?;
            tensors.insert(copy.into(), tensor);
        }
        Ok(())
    })??;
    assert!(report.missing.is_empty() && report.unexpected.is_empty(), "{report}");
    assert_eq!(model.cls.predictions.bias.to_vec::<f32>()?, [1.0; 40]);
    Ok(())
}

/// As in `transformers`, tensors that differ are not tied, and the decoder adds the bias under its own name.
#[test]
fn an_untied_decoder_is_loaded_and_saved() -> Result {
    let (model, report) = reopened(|tensors| {
        tensors.insert(DECODER.into(), changed(&tensors[WORDS], 639, 0.5)?);
        tensors.insert(DECODER_BIAS.into(), changed(&tensors[BIAS], 3, 0.5)?);
        Ok(())
    })??;
    assert_eq!((report.unexpected, report.missing.len()), (vec![BIAS.to_string()], 0));
    let predictions = &model.cls.predictions;
    let decoder = predictions.decoder.as_ref().ok_or("the decoder is tied")?;
    assert_eq!(decoder.to_vec::<f32>()?[639], 0.5);
    assert_ne!(model.bert.embeddings.word_embeddings.weight.to_vec::<f32>()?[639], 0.5);
    assert_eq!(predictions.bias.to_vec::<f32>()?[2..5], [1.0, 0.5, 1.0]);
    assert!(!model.config().tie_word_embeddings());
    assert_eq!(model.parameter_count() as u64, model.config().parameter_counts().pre_training());
    // The logits are those of the decoder.
    let hidden = Tensor::ones(&[1, 16], DType::F32, &Device::Cpu)?;
    let logits = model.mlm_logits(&hidden)?.to_vec::<f32>()?;
    let tied = LmPredictionHead { decoder: None, ..predictions.clone() };
    let other = tied.forward(&hidden, &model.bert.embeddings.word_embeddings.weight)?.to_vec::<f32>()?;
    assert_eq!(logits[..39], other[..39]);
    assert_ne!(logits[39], other[39]);

    let folder = tempfile::tempdir()?;
    model.save(folder.path())?;
    let names = TensorFile::open(folder.path().join(WEIGHTS_FILE))?.names();
    assert!(names.contains(&DECODER.to_string()) && names.contains(&DECODER_BIAS.to_string()), "{names:?}");
    let (mut again, report) = BertForPreTraining::open_reported(folder.path(), &Device::Cpu, &OpenOptions::new())?;
    assert_eq!((report.unexpected.len(), report.missing.len()), (0, 0));
    assert_eq!(again.mlm_logits(&hidden)?.to_vec::<f32>()?, logits);
    again.resize_token_embeddings(42, 0)?;
    assert_eq!(again.mlm_logits(&hidden)?.shape(), [1, 42]);
    Ok(())
}

#[test]
fn the_configuration_may_untie_the_decoder() -> Result {
    let folder = tempfile::tempdir()?;
    save(folder.path())?;
    BertConfig::open(folder.path())?.with_tie_word_embeddings(false).save(folder.path())?;
    let (model, report) = BertForPreTraining::open_reported(folder.path(), &Device::Cpu, &OpenOptions::new())?;
    assert_eq!(report.missing, [DECODER]);
    // Both tables learn.
    let batch = Batch::new(&[(vec![1, 2, 3], vec![0, 0, 1])])?;
    let targets = PreTrainingTargets { rows: vec![1], labels: vec![5], next_sentence: vec![] };
    let gradients = model.loss(&batch, &targets, Mode::Eval)?.loss.backward()?;
    for table in [model.cls.predictions.decoder.as_ref(), Some(&model.bert.embeddings.word_embeddings.weight)] {
        let gradient = gradients.get(table.ok_or("the decoder is tied")?).ok_or("no gradient")?;
        assert!(gradient.to_vec::<f32>()?.iter().any(|&x| x != 0.0));
    }
    Ok(())
}

#[test]
fn old_names_are_accepted_but_not_together_with_new_names() -> Result {
    let (new, old) = ("bert.embeddings.LayerNorm.weight", "bert.embeddings.LayerNorm.gamma");
    let (_, report) = reopened(|tensors| {
        let tensor = tensors.remove(new).ok_or(new)?;
        tensors.insert(old.into(), tensor);
        Ok(())
    })??;
    assert!(report.missing.is_empty() && report.unexpected.is_empty(), "{report}");
    let said = refused(|tensors| {
        tensors.insert(old.into(), tensors[new].clone());
        Ok(())
    })?;
    assert!(said.contains(new) && said.contains(old), "{said}");
    Ok(())
}

#[test]
fn weights_that_are_not_finite_are_errors() -> Result {
    let name = "bert.encoder.layer.0.output.dense.weight";
    for value in [f32::NAN, f32::INFINITY] {
        let said = refused(|tensors| {
            tensors.insert(name.into(), changed(&tensors[name], 7, value)?);
            Ok(())
        })?;
        assert!(said.contains(&format!("{name} is {value} at element 7")), "{said}");
    }
    Ok(())
}

/// No memory is allocated for parameters before the file is known to have them.
#[test]
fn embeddings_and_encoder_are_checked_first() -> Result {
    let folder = tempfile::tempdir()?;
    save(folder.path())?;
    let small = BertConfig::open(folder.path())?;
    let said = || -> Result<String> {
        let opened = BertForPreTraining::open(folder.path(), &Device::Cpu);
        let error = opened.err().ok_or("the folder was accepted")?.to_string();
        let path = folder.path().join(WEIGHTS_FILE).display().to_string();
        Ok(error.strip_prefix(&path).ok_or(error.clone())?.to_string())
    };
    // The error names the word embeddings, not a head with as many rows.
    BertConfig { vocab_size: 41, ..small.clone() }.save(folder.path())?;
    assert_eq!(said()?, format!(": {WORDS} has shape [40, 16], the configuration requires [41, 16]"));
    BertConfig { num_hidden_layers: 2, intermediate_size: 24, ..small.clone() }.save(folder.path())?;
    let name = "bert.encoder.layer.1.attention.self.query.weight";
    assert_eq!(said()?, format!(": {name} is missing (16 parameters of embeddings and encoder in total)"));
    // The first matrix of the head would need 4 TiB.
    BertConfig { hidden_size: 1 << 20, num_hidden_layers: 1, ..small }.save(folder.path())?;
    save_safetensors(folder.path().join(WEIGHTS_FILE), Vec::<(String, Tensor)>::new(), &[])?;
    let count = "21 parameters of embeddings and encoder in total";
    assert_eq!(said()?, format!(": {WORDS} is missing ({count}): the file has no tensors"));
    Ok(())
}
