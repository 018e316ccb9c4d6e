//! Low-rank adapters, exchanged with peft in both directions.

use cloze::prelude::*;
use cloze::tensor::random::{Purpose, Stream};
use cloze::tensor::{TensorFile, save_safetensors};

use crate::Result;
use crate::python::Python;

fn config() -> BertConfig {
    BertConfig {
        num_attention_heads: 3,
        hidden_size: 48,
        intermediate_size: 80,
        initializer_range: 0.1,
        ..BertConfig::tiny(43)
    }
}

/// Returns a batch of four sequences, and the tensors that describe it to Python.
fn batch() -> Result<(Batch, Vec<(String, Tensor)>)> {
    let sequences = [vec![2, 9, 4, 17, 3], vec![2], vec![2, 5, 5, 30, 3, 7, 3], vec![2, 28, 3]];
    let lengths = sequences.iter().map(|ids| ids.len() as i64).collect();
    let batch = Batch::new(&sequences.map(|ids: Vec<u32>| (ids.clone(), vec![0; ids.len()])))?;
    let integers = |values: Vec<i64>| Tensor::from_slice(&values, &[values.len()], &Device::Cpu);
    let tensors = vec![
        ("ids".to_string(), integers(batch.ids().iter().map(|&id| id.into()).collect())?),
        ("token_types".to_string(), integers(vec![0; batch.tokens()])?),
        ("lengths".to_string(), integers(lengths)?),
    ];
    Ok((batch, tensors))
}

/// Draws random adapters, because B is zero before training.
fn draw(model: &mut BertForSequenceClassification) -> Result {
    let mut stream = Stream::new(3, Purpose::User, 0, 0, 0);
    let mut drawn = Ok(());
    model.visit_mut("", &mut |name, tensor| {
        if name.ends_with("lora_B.weight") || name.starts_with("classifier.") {
            match Tensor::randn(tensor.shape(), 0.5, &mut stream, &Device::Cpu) {
                Ok(random) => *tensor = random.requires_grad(),
                Err(error) => drawn = Err(error),
            }
        }
    });
    Ok(drawn?)
}

#[test]
fn adapters_are_exchanged_with_peft() -> Result {
    let Some(python) = Python::of("adapters_are_exchanged_with_peft") else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let mut model =
        BertForSequenceClassification::new(&config().with_labels(["no", "maybe", "yes"]), &Device::Cpu, 11)?;
    model.save(dir.path().join("model"))?;
    model.add_adapters(&LoraConfig::new(4).alpha(6.0).targets(["query", "value", "output.dense"]), 2)?;
    draw(&mut model)?;
    model.save_adapters(dir.path().join("ours"))?;

    let (batch, mut tensors) = batch()?;
    let adapted: Vec<f32> = model.forward(&batch, Mode::Eval)?.to_vec()?;
    tensors.push(("adapted".to_string(), Tensor::from_slice(&adapted, &[adapted.len()], &Device::Cpu)?));
    save_safetensors(dir.path().join("outputs.safetensors"), tensors, &[])?;
    python.run("adapters.py", &[dir.path()])?;

    let mut model = BertForSequenceClassification::open(dir.path().join("model"), &Device::Cpu)?;
    model.load_adapters(dir.path().join("theirs"))?;
    let theirs = TensorFile::open(dir.path().join("theirs.safetensors"))?.tensor("adapted", &Device::Cpu)?;
    let theirs: Vec<f32> = theirs.to_vec()?;
    for merged in [false, true] {
        if merged {
            model.merge_adapters()?;
        }
        let ours: Vec<f32> = model.forward(&batch, Mode::Eval)?.to_vec()?;
        let largest = ours.iter().zip(&theirs).fold(0.0f32, |largest, (a, b)| largest.max((a - b).abs()));
        println!("adapters of peft in cloze, merged: {merged}: {largest:.1e}");
        assert!(ours.len() == theirs.len() && largest <= 1e-5, "outputs differ by {largest:.1e}");
    }
    Ok(())
}

/// Opens adapters of every form that peft writes, and gives them back to it.
#[test]
fn every_form_of_adapter_is_exchanged_with_peft() -> Result {
    let Some(python) = Python::of("every_form_of_adapter_is_exchanged_with_peft") else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let classifier = config().with_labels(["no", "maybe", "yes"]);
    BertForSequenceClassification::new(&classifier, &Device::Cpu, 11)?.save(dir.path().join("classifier"))?;
    BertModel::new(&config(), &Device::Cpu, 11)?.save(dir.path().join("encoder"))?;
    let (batch, tensors) = batch()?;
    save_safetensors(dir.path().join("outputs.safetensors"), tensors, &[])?;
    let run = |action: &str| python.run("adapter_forms.py", &[action.as_ref(), dir.path().as_os_str()]);
    run("write")?;

    let mut compared = 0;
    for entry in std::fs::read_dir(dir.path())? {
        let folder = entry?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !folder.join("adapter_config.json").is_file() || name.ends_with("-again") {
            continue;
        }
        let again = dir.path().join(format!("{name}-again"));
        let ours: Vec<f32> = if name.starts_with("encoder") {
            let mut model = BertModel::open(dir.path().join("encoder"), &Device::Cpu)?;
            model.load_adapters(&folder)?;
            model.save_adapters(again)?;
            [model.forward(&batch, Mode::Eval)?.to_vec::<f32>()?, model.pooled(&batch, Mode::Eval)?.to_vec()?].concat()
        } else {
            // The folder names its model.
            let model = BertForSequenceClassification::open(&folder, &Device::Cpu)?;
            model.save_adapters(again)?;
            model.forward(&batch, Mode::Eval)?.to_vec()?
        };
        let theirs =
            TensorFile::open(dir.path().join(format!("{name}.safetensors")))?.tensor("adapted", &Device::Cpu)?;
        let theirs: Vec<f32> = theirs.to_vec()?;
        let largest = ours.iter().zip(&theirs).fold(0.0f32, |largest, (a, b)| largest.max((a - b).abs()));
        println!("{name}: {largest:.1e}");
        assert!(ours.len() == theirs.len() && largest <= 1e-5, "{name}: outputs differ by {largest:.1e}");
        compared += 1;
    }
    assert_eq!(compared, 9);
    run("read")
}
