//! Compares training on a GPU with training on the CPU. Without a GPU, use the emulated one of `kernels/emulator`: put
//! the folder with its `libcuda.so.1` into `LD_LIBRARY_PATH`. Without either, the tests print that they are skipped, or
//! fail if `CLOZE_REQUIRE_GPU` is set.
#![cfg(feature = "cuda")]

mod on_gpu;

use cloze::prelude::*;
use cloze::tensor::optim::AdamWStep;
use cloze::tensor::random::{Purpose, Stream};
use cloze::tensor::{Dropout, ErrorKind, Gradients, ParameterArena, Sequences};
use cloze_examples::built_in::random_corpus;
use on_gpu::gpu;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Pre-trains a tiny BERT with dropout. Returns the loss of every step and all parameters at the end.
fn train(device: &Device, precision: Precision, steps: u32) -> Result<(Vec<f64>, Vec<f32>)> {
    let corpus = random_corpus()?;
    let tokenizer = Tokenizer::train(corpus.sentences(), 500, &TrainOptions::new())?;
    let mut model = BertForPreTraining::new(&BertConfig::tiny(tokenizer.vocab_size()), device, 3)?;
    let data = PreTraining::new(&corpus, &tokenizer)?.seq_len(32).seed(3);
    let trainer = Trainer::new(&mut model).optimizer(AdamW::new(1e-3)).batch_size(4).steps(steps).seed(3);
    let mut losses = Vec::new();
    let trainer = trainer.precision(precision).progress(false);
    trainer.run_with(&data, |_, step| {
        losses.push(step.loss);
        Ok(())
    })?;
    let mut values = Vec::new();
    for (_, parameter) in model.named_parameters() {
        assert_eq!(parameter.device(), *device);
        values.extend(parameter.to_vec::<f32>()?);
    }
    Ok((losses, values))
}

fn largest_difference<T: Copy + Into<f64>>(a: &[T], b: &[T]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(&a, &b)| (a.into() - b.into()).abs()).fold(0.0, f64::max)
}

#[test]
fn a_tiny_bert_has_the_losses_of_the_cpu() -> Result {
    let Some(gpu) = gpu() else { return Ok(()) };
    let (expected, _) = train(&Device::Cpu, Precision::F32, 20)?;
    let (losses, values) = train(&gpu, Precision::F32, 20)?;
    let difference = largest_difference(&losses, &expected);
    println!("f32: losses {:.4} to {:.4}, largest difference {difference:.1e}", losses[0], losses[19]);
    assert!(difference < 1e-3, "{difference}");
    let again = train(&gpu, Precision::F32, 20)?;
    assert!(again == (losses, values), "different bits");
    Ok(())
}

#[test]
fn bf16_and_f16_learn_alike() -> Result {
    let Some(gpu) = gpu() else { return Ok(()) };
    let (expected, _) = train(&Device::Cpu, Precision::F32, 20)?;
    for (precision, allowed) in [(Precision::Bf16, 3e-2), (Precision::F16, 4e-3)] {
        if !gpu.supports(precision) {
            let Err(error) = train(&gpu, precision, 1) else { panic!("{precision} is not rejected") };
            assert!(error.to_string().contains("multiplies f16, not bf16: use Precision::F16 (f16)"), "{error}");
            continue;
        }
        let (losses, _) = train(&gpu, precision, 20)?;
        let difference = largest_difference(&losses, &expected);
        println!("{precision}: largest difference from f32 {difference:.1e}");
        assert!(difference > 0.0 && difference < allowed, "{precision}: {difference}");
    }
    Ok(())
}

/// In bf16, the encoder computes in tensors of bf16. Nobody outside sees them, and adapters, frozen parameters and recomputed layers
/// work with them.
#[test]
fn the_encoder_is_bf16_inside() -> Result {
    let Some(gpu) = gpu() else { return Ok(()) };
    if !gpu.supports(Precision::Bf16) {
        return Ok(());
    }
    let mut model = BertForSequenceClassification::new(&BertConfig::tiny(50), &gpu, 1)?;
    model.add_adapters(&LoraConfig::new(4).targets(["query", "value", "dense"]), 2)?;
    let batch = Batch::packed((0..40).map(|i| i * 7 % 50).collect(), vec![0; 40], Sequences::new(&[33, 7])?)?;
    let gradients = |model: &BertForSequenceClassification, precision: Precision| -> Result<Vec<f32>> {
        let mode = Mode::Train { seed: 1, step: 1 };
        let hidden = precision.scope(|| model.bert().forward(&batch, mode))?;
        assert_eq!(hidden.dtype(), DType::F32);
        let gradients = hidden.exp()?.mean_all()?.backward()?;
        let trained = model.named_parameters().into_iter().filter_map(|(_, parameter)| gradients.get(&parameter));
        let values = trained.map(|gradient| Ok(gradient.to_vec::<f32>()?)).collect::<Result<Vec<_>>>()?;
        Ok(values.concat())
    };
    let expected = gradients(&model, Precision::F32)?;
    let found = gradients(&model, Precision::Bf16)?;
    let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    let worst = largest_difference(&found, &expected) / f64::from(largest);
    println!("gradients in bf16: {worst:.1e} of the largest");
    assert!(expected.len() > 1000 && worst > 0.0 && worst < 3e-2, "{worst}");
    model.bert_mut().encoder.gradient_checkpointing = true;
    assert!(gradients(&model, Precision::Bf16)? == found, "recomputed layers have other gradients");
    let hidden = Precision::Bf16.scope(|| model.bert().hidden(&batch))?;
    assert!(hidden.states.iter().chain(hidden.attentions.iter().flatten()).all(|state| state.dtype() == DType::F32));
    Ok(())
}

/// f16 has a range of 30 powers of two. Because each operand has its own scale, operands may be anywhere in the range
/// of f32.
#[test]
fn f16_reaches_what_f32_does() -> Result {
    let Some(gpu) = gpu() else { return Ok(()) };
    let (rows, inner, columns) = (24, 40, 16);
    let mut stream = Stream::new(4, Purpose::User, 0, 0, 0);
    let mut random = |count: usize, size: f32| -> Vec<f32> {
        (0..count).map(|_| (stream.below(2000) as f32 / 1000.0 - 1.0) * size).collect()
    };
    for (of_a, of_b) in [(1e9, 1e-7), (1e-12, 3.0), (1e20, 1e15), (0.0, 1.0)] {
        let (a, b) = (random(rows * inner, of_a), random(inner * columns, of_b));
        let product = |device: &Device| -> Result<Vec<f32>> {
            let a = Tensor::from_vec(a.clone(), &[rows, inner], device)?;
            let b = Tensor::from_vec(b.clone(), &[inner, columns], device)?;
            Ok(Precision::F16.scope(|| a.matmul(&b))?.to_vec::<f32>()?)
        };
        let (there, expected) = (product(&gpu)?, product(&Device::Cpu)?);
        let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        // Both round to f16, so only the order of summation differs.
        let worst = there.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 3e-6 * largest, "{of_a} by {of_b}: {worst} of {largest}");
    }
    Ok(())
}

#[test]
fn dropout_drops_the_same_elements() -> Result {
    let Some(gpu) = gpu() else { return Ok(()) };
    let sequences = Sequences::numbered(&[3, 1, 40], &[7, 0, 12])?;
    for width in [5, 16, 37] {
        let dropout = Dropout::new(0.3, 5, 2, 9)?;
        let ones = Tensor::ones(&[sequences.tokens(), width], DType::F32, &Device::Cpu)?;
        let expected = ones.dropout(&dropout, sequences.rows())?.to_vec::<f32>()?;
        let there = ones.to_device(&gpu)?.dropout(&dropout, sequences.rows())?.to_vec::<f32>()?;
        assert_eq!(there, expected, "width {width}");
    }
    // If all values are 1, the output of attention is the sum of the kept probabilities. Queries of zero make these
    // equal.
    let (heads, size) = (2, 32);
    let mut row = vec![0f32; 2 * heads * size];
    row.extend(vec![1f32; heads * size]);
    let qkv = Tensor::from_vec(row.repeat(sequences.tokens()), &[sequences.tokens(), 3 * heads * size], &Device::Cpu)?;
    let dropout = Dropout::new(0.3, 5, 4, 9)?;
    let expected = qkv.attention(&sequences, heads, &dropout)?.to_vec::<f32>()?;
    for precision in [Precision::F32, Precision::Bf16, Precision::F16].into_iter().filter(|&of| gpu.supports(of)) {
        let there = precision.scope(|| qkv.to_device(&gpu)?.attention(&sequences, heads, &dropout))?.to_vec::<f32>()?;
        // A mask that differs in one of 40 elements changes the sum by at least 1/40.
        let worst = there.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-2, "{precision}: {worst}");
    }
    Ok(())
}

/// The gradient of a small weight over many rows is split into parts.
#[test]
fn long_products_agree_with_the_cpu() -> Result {
    let Some(gpu) = gpu() else { return Ok(()) };
    let (rows, inputs, outputs) = (2100, 40, 24);
    let mut stream = Stream::new(2, Purpose::User, 0, 0, 0);
    let mut random = |count: usize| (0..count).map(|_| stream.below(1000) as f32 / 500.0 - 1.0).collect::<Vec<_>>();
    let (x, weight, dy) = (random(rows * inputs), random(outputs * inputs), random(rows * outputs));
    let gradient = |device: &Device, precision: Precision| -> Result<Vec<f32>> {
        let x = Tensor::from_vec(x.clone(), &[rows, inputs], device)?;
        let weight = Tensor::from_vec(weight.clone(), &[outputs, inputs], device)?.requires_grad();
        let bias = Tensor::zeros(&[outputs], DType::F32, device)?;
        let dy = Tensor::from_vec(dy.clone(), &[rows, outputs], device)?;
        let mut gradients = Gradients::new();
        // Twice, to accumulate into an existing gradient.
        for _ in 0..2 {
            precision.scope(|| x.linear(&weight, &bias)?.backward_with(&dy, &mut gradients))?;
        }
        Ok(gradients.get(&weight).ok_or("no gradient")?.to_vec::<f32>()?)
    };
    let expected = gradient(&Device::Cpu, Precision::F32)?;
    let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    for (precision, allowed) in [(Precision::F32, 1e-5), (Precision::F16, 2e-3), (Precision::Bf16, 1e-2)] {
        if !gpu.supports(precision) {
            continue;
        }
        let there = gradient(&gpu, precision)?;
        let worst = there.iter().zip(&expected).map(|(a, b)| (a - b).abs() / largest).fold(0.0, f32::max);
        println!("{precision}: {worst:.1e} of the largest");
        assert!(worst < allowed, "{precision}: {worst}");
        assert!(there == gradient(&gpu, precision)?, "{precision}: different bits");
    }
    Ok(())
}

#[test]
fn the_device_is_usable_after_errors() -> Result {
    let Some(gpu) = gpu() else { return Ok(()) };
    let Err(error) = Device::cuda(99) else { panic!("there is no device 99") };
    assert!(error.to_string().starts_with("cuda: there is no device 99: "), "{error}");
    assert!(matches!(error.kind(), ErrorKind::Device { .. }));
    let Err(error) = Tensor::zeros(&[1 << 40], DType::F32, &gpu) else { panic!("4 TiB were allocated") };
    let said = error.to_string();
    assert!(
        said.contains("no memory on cuda:0 for 4194304.0 MiB more, ") && said.contains("lower the batch size"),
        "{said}"
    );
    let x = Tensor::new([1f32, 2.0], &gpu)?;
    assert_eq!(x.add(&x)?.to_vec::<f32>()?, [2.0, 4.0], "the device is unusable after an error");
    let Err(error) = x.add(&Tensor::new([1f32, 2.0], &Device::Cpu)?) else { panic!("two devices") };
    assert!(error.to_string().contains("right is on cpu, left on cuda:0"), "{error}");
    let table = Tensor::zeros(&[3, 4], DType::F32, &gpu)?;
    let Err(error) = table.embedding(&[0, 7]) else { panic!("there is no row 7") };
    assert!(error.to_string().contains('7'), "{error}");
    let Err(error) = table.cross_entropy(&[0, 1, 9]) else { panic!("there is no class 9") };
    assert!(error.to_string().contains('9'), "{error}");
    let Err(error) = Tensor::new([1f64, 2.0], &gpu)?.exp() else { panic!("f64") };
    assert!(error.to_string().contains("exp: tensor has dtype f64, expected f32, bf16 or f16 on a GPU"), "{error}");
    Ok(())
}

/// A model saved from one device opens on the other.
#[test]
fn models_move_between_devices() -> Result {
    let Some(gpu) = gpu() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let model = BertForPreTraining::new(&BertConfig::tiny(50), &gpu, 1)?;
    model.save(folder.path())?;
    let here = BertForPreTraining::open(folder.path(), &Device::Cpu)?;
    let there = BertForPreTraining::open(folder.path(), &gpu)?;
    let batch = Batch::packed((0..9).map(|i| i * 7 % 50).collect(), vec![0; 9], Sequences::new(&[4, 5])?)?;
    let of = |model: &BertForPreTraining| {
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(model.bert.forward(&batch, Mode::Eval)?.to_vec::<f32>()?)
    };
    let (a, b) = (of(&here)?, of(&there)?);
    assert_eq!(of(&model)?, b, "the saved model differs");
    let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-5, "{worst}");
    Ok(())
}

/// A view may start at any element, but kernels that read 16 bytes at a time need aligned addresses.
#[test]
fn views_start_anywhere() -> Result {
    let Some(gpu) = gpu() else { return Ok(()) };
    let numbers: Vec<f32> = (0..129).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    let of = |device: &Device| -> Result<Vec<f32>> {
        let flat = Tensor::from_vec(numbers.clone(), &[129], device)?;
        let at = |start: usize, count: usize| flat.narrow(0, start, count);
        let x = at(1, 32)?.reshape(&[4, 8])?.requires_grad();
        let table = at(3, 40)?.reshape(&[5, 8])?;
        let y = x.layer_norm(&at(50, 8)?, &at(61, 8)?, 1e-12)?.add(&table.embedding(&[4, 0, 2, 1])?)?;
        let mut gradients = Gradients::new();
        y.backward_with(&at(97, 32)?.reshape(&[4, 8])?, &mut gradients)?;
        let mut found = y.to_vec::<f32>()?;
        found.extend(gradients.get(&x).ok_or("no gradient")?.to_vec::<f32>()?);
        Ok(found)
    };
    assert!(largest_difference(&of(&gpu)?, &of(&Device::Cpu)?) < 1e-5);
    Ok(())
}

/// Wide rows leave less shared memory for each warp.
#[test]
fn layers_may_be_wide() -> Result {
    let Some(gpu) = gpu() else { return Ok(()) };
    for width in [1537, 3076, 8192] {
        let numbers: Vec<f32> = (0..3 * width).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        let of = |device: &Device| -> Result<Vec<f32>> {
            let x = Tensor::from_vec(numbers.clone(), &[3, width], device)?.requires_grad();
            let gamma = Tensor::ones(&[width], DType::F32, device)?.requires_grad();
            let beta = Tensor::zeros(&[width], DType::F32, device)?;
            let y = x.layer_norm(&gamma, &beta, 1e-12)?;
            let mut gradients = Gradients::new();
            y.backward_with(&x.detach().mul(&x.detach())?, &mut gradients)?;
            let mut found = gradients.get(&x).ok_or("no gradient")?.to_vec::<f32>()?;
            found.extend(gradients.get(&gamma).ok_or("no gradient")?.to_vec::<f32>()?);
            Ok(found)
        };
        let worst = largest_difference(&of(&gpu)?, &of(&Device::Cpu)?);
        assert!(worst < 1e-4, "width {width}: {worst}");
    }
    Ok(())
}

/// Running out of memory while a graph is recorded does not hang, and earlier operations are executed.
#[test]
fn out_of_memory_in_a_graph() -> Result {
    let Some(gpu) = gpu() else { return Ok(()) };
    let table = Tensor::from_vec((0..8).map(|i| i as f32).collect(), &[4, 2], &gpu)?;
    let kept = gpu.as_graph(|| -> Result<Tensor> {
        let mut rows = table.embedding(&[3, 1])?;
        for _ in 0..4 {
            rows = rows.mul_scalar(2.0)?;
        }
        let Err(error) = Tensor::zeros(&[1 << 40], DType::F32, &gpu) else { panic!("4 TiB were allocated") };
        assert!(error.to_string().contains("no memory on cuda:0"), "{error}");
        Ok(rows.add(&table.embedding(&[3, 1])?)?)
    })??;
    assert_eq!(kept.to_vec::<f32>()?, [102.0, 119.0, 34.0, 51.0]);
    Ok(())
}

/// Kernels access the optimizer state by address only, so its size and device are checked first.
#[test]
fn mismatched_optimizer_state_is_refused() -> Result {
    let Some(gpu) = gpu() else { return Ok(()) };
    let mut model = BertModel::new(&BertConfig::tiny(20), &gpu, 1)?;
    let arena = ParameterArena::gather(&mut model, |_| true)?;
    let short = Tensor::zeros(&[arena.elements() - 1], DType::F32, &gpu)?;
    let Err(error) = arena.move_average(&mut model, &mut short.clone(), 0.5) else {
        panic!("a short state was accepted")
    };
    assert!(error.to_string().starts_with("moving average: "), "{error}");
    let mut means = [arena.zeros()?, Tensor::zeros(&[arena.elements()], DType::F32, &Device::Cpu)?];
    let x = model.forward(&Batch::packed(vec![1, 2], vec![0, 0], Sequences::new(&[2])?)?, Mode::Eval)?;
    let mut gradients = arena.gradients()?;
    let Err(error) = x.backward_with(&Tensor::ones(x.shape(), DType::F32, &Device::Cpu)?, &mut gradients) else {
        panic!("a gradient on another device was accepted")
    };
    assert!(error.to_string().contains("the gradient is on cpu, its tensor on cuda:0"), "{error}");
    x.mean_all()?.backward_into(&mut gradients)?;
    let step = |_| AdamWStep { learning_rate: 1e-3, weight_decay: 0.0, beta1: 0.9, beta2: 0.999, eps: 1e-8, step: 1 };
    let Err(error) = arena.adamw(&mut model, &gradients, &mut means, None, step) else {
        panic!("a state on another device was accepted")
    };
    assert!(error.to_string().starts_with("optimizer step: "), "{error}");
    Ok(())
}
