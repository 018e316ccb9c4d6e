//! Matrix products and attention in odd shapes, over views with any strides, against loops in f64. The elements have few
//! bits, so products are exact in every precision of floats. Attention is compared with its gradient.
#![no_main]

use cloze_fuzz::{Choices, checked, limited};
use cloze_tensor::{Device, Dropout, Gelu, Gradients, Precision, Sequences, Tensor};
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: rayon::ThreadPoolBuilder::new().num_threads(2).build_global().expect("there are no threads yet"),
    |data: &[u8]| {
    let mut choices = Choices::new(data);
    // Batches of matrices of up to 80 x 80.
    limited(1 << 20, || match choices.below(5) {
        0 | 1 => matmul(&mut choices),
        2 => linear(&mut choices),
        3 => attention(&mut choices),
        _ => refused(&mut choices),
    });
});

/// Returns a size that is small, odd or beside a block of the kernels.
fn size(choices: &mut Choices<'_>) -> usize {
    match choices.byte() {
        byte @ 0..=159 => usize::from(byte % 20),
        byte @ 160..=223 => [15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65][usize::from(byte % 12)],
        byte => usize::from(byte % 80),
    }
}

/// A matrix in row-major order, and a view with these elements whose strides are any.
struct Matrix {
    columns: usize,
    elements: Vec<f32>,
    view: Tensor,
}

impl Matrix {
    /// Makes a matrix of multiples of 1/16 below 8, and cuts its view out of a larger tensor, maybe a transposed one.
    fn new(choices: &mut Choices<'_>, rows: usize, columns: usize) -> Matrix {
        let seed = u32::from(choices.byte());
        let value = |i: usize| {
            let mixed = (i as u32).wrapping_add(seed << 8).wrapping_mul(0x9e37_79b1) >> 24;
            f32::from(mixed as u8 as i8) / 16.0
        };
        let elements: Vec<f32> = (0..rows * columns).map(value).collect();
        let form = choices.byte();
        let (before, after) = (usize::from(form / 2 % 4), usize::from(form / 8 % 4));
        let transposed = form % 2 == 1;
        let (height, width) = if transposed { (columns, rows) } else { (rows, columns) };
        let mut padded = vec![f32::NAN; (height + before + after) * (width + before + after)];
        for i in 0..height {
            for j in 0..width {
                let (row, column) = if transposed { (j, i) } else { (i, j) };
                padded[(i + before) * (width + before + after) + j + before] = elements[row * columns + column];
            }
        }
        let shape = [height + before + after, width + before + after];
        let whole = Tensor::from_slice(&padded, &shape, &Device::Cpu).expect("the shape fits");
        let cut = whole.narrow(0, before, height).and_then(|cut| cut.narrow(1, before, width)).expect("within");
        let view = if transposed { cut.t().expect("a matrix") } else { cut };
        Matrix { columns, elements, view }
    }

    fn at(&self, row: usize, column: usize) -> f64 {
        self.elements[row * self.columns + column].into()
    }
}

/// Multiplies in f64.
fn product(m: usize, n: usize, k: usize, a: impl Fn(usize, usize) -> f64, b: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    (0..m * n).map(|at| (0..k).map(|l| a(at / n, l) * b(l, at % n)).sum()).collect()
}

fn assert_exact(found: &Tensor, expected: &[f64], what: &str) {
    let found = found.to_vec::<f32>().expect("it is f32");
    assert_eq!(found.len(), expected.len());
    let wrong = found.iter().zip(expected).position(|(&found, &expected)| f64::from(found) != expected);
    assert!(wrong.is_none(), "{what}: element {wrong:?} of {} differs", found.len());
}

fn precision(choices: &mut Choices<'_>) -> Precision {
    choices.of(&[Precision::F32, Precision::F32, Precision::Bf16, Precision::F16])
}

fn matmul(choices: &mut Choices<'_>) {
    let (m, k, n) = (size(choices), size(choices), size(choices));
    let (a, b) = (Matrix::new(choices, m, k), Matrix::new(choices, k, n));
    let precision = precision(choices);
    let batch = choices.below(4);
    let (left, right) = (a.view.clone().requires_grad(), b.view.clone().requires_grad());
    let repeated = |view: &Tensor, batch: usize| view.broadcast_to(&[batch, view.shape()[0], view.shape()[1]]);
    let y = precision.scope(|| match batch {
        0 | 1 => left.matmul(&right),
        _ => repeated(&left, batch).and_then(|left| left.matmul(&right)),
    });
    let y = checked(y).expect("the inner dimensions agree");
    let expected = product(m, n, k, |i, l| a.at(i, l), |l, j| b.at(l, j));
    assert_exact(&y, &expected.repeat(batch.max(1)), "matmul");
    if batch > 1 {
        return;
    }
    // With dy of ones: dA = sums over rows of B, dB = sums over columns of A.
    let mut gradients = Gradients::new();
    let ones = Tensor::ones(y.shape(), y.dtype(), &Device::Cpu).expect("small");
    precision.scope(|| y.backward_with(&ones, &mut gradients)).expect("the shapes agree");
    let (da, db) = (gradients.get(&left).expect("wanted"), gradients.get(&right).expect("wanted"));
    assert_exact(&da, &product(m, k, n, |_, _| 1.0, |j, l| b.at(l, j)), "dA");
    assert_exact(&db, &product(k, n, m, |l, i| a.at(i, l), |_, _| 1.0), "dB");
}

fn linear(choices: &mut Choices<'_>) {
    let (rows, inputs, outputs) = (size(choices), size(choices), size(choices));
    let (x, w) = (Matrix::new(choices, rows, inputs), Matrix::new(choices, outputs, inputs));
    let bias = Matrix::new(choices, 1, outputs);
    let vector = bias.view.reshape(&[outputs]).expect("one row");
    let precision = precision(choices);
    let kind = choices.below(4);
    let expected: Vec<f64> = product(rows, outputs, inputs, |i, l| x.at(i, l), |l, j| w.at(j, l));
    let expected: Vec<f64> = expected.iter().enumerate().map(|(at, sum)| sum + bias.at(0, at % outputs)).collect();
    match kind {
        0 | 1 => {
            let y = checked(precision.scope(|| x.view.linear(&w.view, &vector))).expect("the shapes agree");
            assert_exact(&y, &expected, "linear");
        }
        2 => {
            let layers = [(&w.view, &vector), (&w.view, &vector)];
            let y = checked(precision.scope(|| x.view.projections(&layers))).expect("the shapes agree");
            let twice: Vec<f64> = expected.chunks(outputs.max(1)).flat_map(|row| [row, row].concat()).collect();
            assert_exact(&y, &twice, "projections");
        }
        _ => {
            let y = checked(precision.scope(|| x.view.linear_gelu(&w.view, &vector, Gelu::Tanh)))
                .expect("the shapes agree");
            let gelu = |u: f64| 0.5 * u * (1.0 + (0.797_884_560_802_865_4 * (u + 0.044_715 * u * u * u)).tanh());
            let expected: Vec<f64> = expected.into_iter().map(gelu).collect();
            assert_close(&y, &expected, 1e-5, "linear_gelu");
        }
    }
    // int8 rounds each row to 129 and 255 levels.
    let y = checked(Precision::Int8.scope(|| x.view.linear(&w.view, &vector))).expect("the shapes agree");
    assert!(y.to_vec::<f32>().expect("it is f32").iter().all(|y| y.is_finite()));
}

fn assert_close(found: &Tensor, expected: &[f64], tolerance: f64, what: &str) {
    let found = found.to_vec::<f32>().expect("it is f32");
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(1.0f64, |most, x| most.max(x.abs()));
    for (at, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(found) - expected).abs();
        assert!(difference <= tolerance * scale, "{what}: element {at} is {found} instead of {expected}");
    }
}

fn attention(choices: &mut Choices<'_>) {
    let lengths: Vec<usize> = (0..choices.below(4)).map(|_| 1 + size(choices) % 50).collect();
    let (heads, head_size) = (1 + choices.below(4), 1 + choices.below(40));
    let (tokens, width) = (lengths.iter().sum::<usize>(), heads * head_size);
    let qkv = Matrix::new(choices, tokens, 3 * width);
    let sequences = Sequences::new(&lengths).expect("lengths are above 0");
    // Small enough for probabilities that are not all 0 or 1.
    let scaled = qkv.view.mul_scalar(0.125).expect("any tensor can be scaled");
    let x = if choices.byte() % 2 == 0 {
        scaled
    } else {
        qkv.view.mul_scalar(0.125).and_then(|x| x.t()?.contiguous()?.t()).expect("a matrix")
    };
    let x = x.requires_grad();
    let y = checked(x.attention(&sequences, heads, &Dropout::NONE)).expect("the shape fits");
    let dy = Matrix::new(choices, tokens, width);
    let mut gradients = Gradients::new();
    y.backward_with(&dy.view, &mut gradients).expect("the shapes agree");
    let dx = gradients.get(&x).expect("wanted");
    let (mut expected, mut gradient) = (vec![0.0; tokens * width], vec![0.0; tokens * 3 * width]);
    let mut start = 0;
    for (number, &length) in lengths.iter().enumerate() {
        for head in 0..heads {
            let element =
                |part: usize, row: usize, d: usize| (start + row) * 3 * width + part * width + head * head_size + d;
            let value = |part: usize, row: usize, d: usize| f64::from(qkv.elements[element(part, row, d)]) / 8.0;
            let scale = 1.0 / (head_size as f64).sqrt();
            let p = probabilities(length, head_size, scale, &value);
            for i in 0..length {
                let out = |d: usize| (start + i) * width + head * head_size + d;
                let dout = |d: usize| f64::from(dy.elements[out(d)]);
                let dp = |j: usize| (0..head_size).map(|d| dout(d) * value(2, j, d)).sum::<f64>();
                let dp: Vec<f64> = (0..length).map(dp).collect();
                let mean: f64 = (0..length).map(|j| p[i * length + j] * dp[j]).sum();
                for j in 0..length {
                    let (p, ds) = (p[i * length + j], p[i * length + j] * (dp[j] - mean) * scale);
                    for d in 0..head_size {
                        expected[out(d)] += p * value(2, j, d);
                        gradient[element(0, i, d)] += ds * value(1, j, d);
                        gradient[element(1, j, d)] += ds * value(0, i, d);
                        gradient[element(2, j, d)] += p * dout(d);
                    }
                }
            }
            if head == 0 && number == 0 {
                let weights = checked(x.detach().attention_weights(&sequences, heads)).expect("the shape fits");
                let own = weights[0].narrow(0, 0, 1).and_then(|own| own.contiguous()).expect("there is a head");
                assert_close(&own, &p, 1e-5, "attention_weights");
            }
        }
        start += length;
    }
    assert_close(&y, &expected, 1e-5, "attention");
    assert_close(&dx, &gradient, 1e-4, "the gradient of attention");
}

/// Returns the probabilities of a head: softmax of Q Kᵀ times `scale`.
fn probabilities(length: usize, head_size: usize, scale: f64, value: &impl Fn(usize, usize, usize) -> f64) -> Vec<f64> {
    let score = |i: usize, j: usize| scale * (0..head_size).map(|d| value(0, i, d) * value(1, j, d)).sum::<f64>();
    let row = |i: usize| {
        let scores: Vec<f64> = (0..length).map(|j| score(i, j)).collect();
        let most = scores.iter().fold(f64::NEG_INFINITY, |most, &score| most.max(score));
        let sum: f64 = scores.iter().map(|score| (score - most).exp()).sum();
        scores.into_iter().map(move |score| (score - most).exp() / sum)
    };
    (0..length).flat_map(row).collect()
}

/// Calls with shapes that mostly do not fit. They are refused without a panic.
fn refused(choices: &mut Choices<'_>) {
    let tensor = |choices: &mut Choices<'_>| {
        let shape: Vec<usize> = (0..choices.below(5)).map(|_| choices.below(6)).collect();
        Tensor::full(0.5, &shape, cloze_tensor::DType::F32, &Device::Cpu).expect("small")
    };
    let (a, b, c) = (tensor(choices), tensor(choices), tensor(choices));
    checked(a.matmul(&b));
    checked(a.linear(&b, &c));
    checked(a.projections(&[(&b, &c), (&b, &c)]));
    checked(a.layer_norm(&b, &c, 1e-12));
    checked(a.softmax());
    checked(a.embedding(&[0, choices.size() as u32]));
    checked(a.cross_entropy(&[0, choices.size() as i64]));
    checked(a.top_k(choices.size()));
    let lengths: Vec<usize> = (0..choices.below(4)).map(|_| choices.below(5)).collect();
    let Some(sequences) = checked(Sequences::new(&lengths)) else { return };
    checked(a.attention(&sequences, choices.size(), &Dropout::NONE));
    checked(a.attention_weights(&sequences, choices.size()));
    checked(a.pool(&sequences, cloze_tensor::Pooling::Mean));
    let huge: Vec<usize> = (0..choices.below(4)).map(|_| choices.size()).collect();
    checked(a.broadcast_to(&huge));
    checked(a.reshape(&huge));
}
