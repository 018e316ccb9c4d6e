//! Multi-head self-attention over packed sequences (A. Vaswani et al., 2017), in the manner of FlashAttention (T. Dao et
//! al., 2022): the scores exist for a block of rows at a time, and only each row's log-sum-exp is kept for the backward,
//! which computes the probabilities again.
//!
//! T tokens of B sequences, N heads, D head size. For each sequence and head, S = Q Kᵀ / √D, P = softmax(S),
//! O = dropout(P) V. Sequences never see one another, so there is no mask.

use crate::autograd::non_differentiable;
use crate::cpu::{self, Target};
use crate::device::Device;
use crate::dispatch::{Float, Keep, Op, apply};
use crate::dropout::Dropout;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout::Dims;
use crate::precision::Precision;
use crate::sequences::Sequences;
use crate::tensor::Tensor;

/// Dropout's counter has 11 bits for blocks of 32 columns of scores: beyond that, draws would repeat.
const LONGEST_WITH_DROPOUT: usize = 1 << 16;

impl Tensor {
    /// Computes self-attention of `self` [T, 3 N D], the queries, keys and values of all heads side by side: [T, N D].
    /// `dropout` applies to the probabilities.
    ///
    /// # Errors
    /// Returns an error if the shapes do not match, or a sequence has more than 65,536 tokens and `dropout` drops any.
    pub fn attention(&self, sequences: &Sequences, heads: usize, dropout: &Dropout) -> Result<Tensor> {
        apply(PackedAttention::new(self, sequences, heads, *dropout, Precision::current()), [self])
    }

    /// Computes the attention probabilities, for inspection: for each sequence of length L a tensor [N, L, L] whose entry
    /// (n, i, j) says how much token i attends to token j in head n. On the CPU, and not differentiable.
    ///
    /// # Errors
    /// Returns an error if the shapes do not match, or this tensor requires a gradient.
    pub fn attention_weights(&self, sequences: &Sequences, heads: usize) -> Result<Vec<Tensor>> {
        const OP: &str = "attention_weights";
        let attention = PackedAttention::new(self, sequences, heads, Dropout::NONE, Precision::F32);
        attention.hidden(OP, self)?;
        let dtype = self.dtype();
        let qkv = self.detach().to_device(&Device::Cpu)?;
        let weights = match dtype {
            DType::F64 => attention.weights::<f64>(OP, &qkv.contiguous()?)?,
            _ => attention.weights::<f32>(OP, &qkv.to_dtype(DType::F32)?.contiguous()?)?,
        };
        weights.iter().map(|weights| non_differentiable(OP, &[self], weights.to_dtype(dtype)?)).collect()
    }
}

/// Self-attention within each sequence.
#[derive(Clone)]
pub(crate) struct PackedAttention {
    pub(crate) sequences: Sequences,
    pub(crate) heads: usize,
    pub(crate) head_size: usize,
    pub(crate) dropout: Dropout,
    pub(crate) precision: Precision,
}

impl PackedAttention {
    fn new(qkv: &Tensor, sequences: &Sequences, heads: usize, dropout: Dropout, precision: Precision) -> Self {
        let head_size = qkv.width() / heads.saturating_mul(3).max(1);
        PackedAttention { sequences: sequences.clone(), heads, head_size, dropout, precision }
    }

    /// Checks the shape of `qkv` and returns N D.
    fn hidden(&self, op: &'static str, qkv: &Tensor) -> Result<usize> {
        let (sequences, heads) = (&self.sequences, self.heads);
        let wrong = |reason: String| Err(Error::shape(op, reason, &[("qkv", qkv.shape())]));
        match *qkv.shape() {
            [tokens, _] if tokens != sequences.tokens() => {
                wrong(format!("{tokens} rows given for {} tokens in {} sequences", sequences.tokens(), sequences.len()))
            }
            [_, width] if heads == 0 || heads > 256 || width % (3 * heads) != 0 => {
                wrong(format!("width {width} does not split into queries, keys and values of {heads} heads (1 to 256)"))
            }
            [_, 0] => wrong("width 0 leaves nothing to attend to".into()),
            [_, width] => Ok(width / 3),
            _ => wrong("qkv must be [tokens, 3 * heads * head size]".into()),
        }
    }

    /// The parameters of the loops.
    fn plan(&self) -> cpu::attention::AttentionProblem<'_> {
        cpu::attention::AttentionProblem {
            heads: self.heads,
            head_size: self.head_size,
            scale: 1.0 / (self.head_size.max(1) as f64).sqrt(),
            cu_seqlens: self.sequences.cu_seqlens(),
            sequences: self.sequences.numbers(),
            dropout: self.dropout,
            precision: self.precision.without_scales(),
        }
    }

    fn weights<T: Float>(&self, op: &'static str, qkv: &Tensor) -> Result<Vec<Tensor>> {
        let hidden = qkv.width() / 3;
        let plan = self.plan();
        let of_sequence = |ends: &[u32]| {
            let [start, end] = [ends[0] as usize, ends[1] as usize];
            Tensor::build(op, &[self.heads, end - start, end - start], &Device::Cpu, |weights: &mut [T]| {
                let qkv = &qkv.slice::<T>()[start * 3 * hidden..end * 3 * hidden];
                cpu::attention::weights(qkv, self.heads, plan.head_size, plan.scale, weights);
            })
        };
        self.sequences.cu_seqlens().windows(2).map(of_sequence).collect()
    }
}

impl Op<1, 2, 3> for PackedAttention {
    const OPERANDS: [&'static str; 1] = ["qkv"];

    fn name(&self) -> &'static str {
        "attention"
    }

    fn shapes(&self, [qkv]: [&Tensor; 1]) -> Result<[Dims; 2]> {
        let (op, tokens, longest) = (self.name(), self.sequences.tokens(), self.sequences.longest());
        let hidden = self.hidden(op, qkv)?;
        if !self.dropout.is_none() && longest > LONGEST_WITH_DROPOUT {
            let reason = format!("a sequence of {longest} tokens, at most {LONGEST_WITH_DROPOUT} with dropout");
            return Err(Error::invalid(op, reason));
        }
        Ok([Dims::new(op, &[tokens, hidden])?, Dims::new(op, &[tokens, self.heads])?])
    }

    fn forward<T: Float>(&mut self, [qkv]: [&[T]; 1], [output, log_sums]: [&mut [T]; 2]) {
        cpu::attention::forward(&self.plan(), qkv, output, log_sums);
    }

    fn keeps(&self) -> [Keep; 3] {
        [Keep::Input(0), Keep::Output(0), Keep::Output(1)]
    }

    fn backward<T: Float>(&self, [qkv, output, log_sums]: [&[T]; 3], dy: &[T], [dqkv]: [Option<Target<'_, T>>; 1]) {
        if let Some(dqkv) = dqkv {
            cpu::attention::backward(&self.plan(), qkv, output, log_sums, dy, dqkv);
        }
    }
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::normal;
    let layouts: [(&str, &[usize], usize, usize); 6] = [
        ("mixed lengths", &[1, 7, 3], 2, 8),
        ("odd head size", &[5, 2], 3, 5),
        ("one token", &[1], 1, 4),
        ("beyond a block", &[35], 1, 6),
        ("no sequence", &[], 2, 4),
        ("on tensor cores", &[66, 2], 2, 32),
    ];
    for (label, lengths, heads, size) in layouts {
        for p in [0.0, 0.25] {
            let qkv = normal(&[lengths.iter().sum(), 3 * heads * size]);
            cases.add("attention", label, [qkv], move |x| {
                x[0].attention(&Sequences::new(lengths)?, heads, &Dropout::new(p, 11, 4, 2)?)
            });
        }
    }
    cases.add("attention", "extremes", [normal(&[6, 12]).scaled(1e2)], |x| {
        x[0].attention(&Sequences::new(&[4, 2])?, 1, &Dropout::NONE)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{assert_same_with_gradients, normal};

    /// One sequence's attention through matrix products and softmax.
    fn composed(qkv: &Tensor, heads: usize, size: usize) -> Result<Tensor> {
        let length = qkv.size(0);
        let part =
            |index| qkv.narrow(1, index * heads * size, heads * size)?.reshape(&[length, heads, size])?.transpose(0, 1);
        let (q, k, v): (Tensor, Tensor, Tensor) = (part(0)?, part(1)?, part(2)?);
        let scores = q.matmul(&k.t()?)?.mul_scalar(1.0 / (size as f64).sqrt())?;
        scores.softmax()?.matmul(&v)?.transpose(0, 1)?.reshape(&[length, heads * size])
    }

    #[test]
    fn impossible_sizes_are_refused() -> Result<()> {
        let device = crate::device::Device::Cpu;
        let narrow = Tensor::zeros(&[3, 0], crate::dtype::DType::F32, &device)?;
        assert!(narrow.attention(&Sequences::new(&[3])?, 1, &Dropout::NONE).is_err());
        for heads in [0, 257, usize::MAX / 3 + 1, usize::MAX] {
            let Err(error) = narrow.attention(&Sequences::new(&[3])?, heads, &Dropout::NONE) else {
                panic!("accepted")
            };
            assert!(error.to_string().contains(&format!("of {heads} heads (1 to 256)")), "{error}");
        }
        let long = Sequences::new(&[LONGEST_WITH_DROPOUT + 1])?;
        let qkv = Tensor::zeros(&[long.tokens(), 3], crate::dtype::DType::F32, &device)?;
        let Err(error) = qkv.attention(&long, 1, &Dropout::new(0.5, 0, 0, 0)?) else { panic!("it was accepted") };
        assert!(error.to_string().contains("at most 65536 with dropout"), "{error}");
        Ok(())
    }

    #[test]
    fn fused_equals_composed() {
        let (heads, size) = (3, 4);
        assert_same_with_gradients(
            &[normal(&[9, 36])],
            |x| x[0].attention(&Sequences::new(&[2, 7])?, heads, &Dropout::NONE),
            |x| {
                let (a, b) = (x[0].narrow(0, 0, 2)?, x[0].narrow(0, 2, 7)?);
                Tensor::concat(&[&composed(&a, heads, size)?, &composed(&b, heads, size)?], 0)
            },
        );
    }

    #[test]
    fn weights_are_the_probabilities() -> Result<()> {
        let qkv = normal(&[7, 24]).tensor();
        let sequences = Sequences::new(&[3, 4])?;
        let weights = qkv.attention_weights(&sequences, 2)?;
        assert_eq!(weights[1].shape(), [2, 4, 4]);
        let values = qkv.narrow(1, 16, 8)?.narrow(0, 3, 4)?.reshape(&[4, 2, 4])?.transpose(0, 1)?;
        let out = weights[1].matmul(&values)?.transpose(0, 1)?.reshape(&[4, 8])?.to_vec::<f64>()?;
        let expected = qkv.attention(&sequences, 2, &Dropout::NONE)?.narrow(0, 3, 4)?.to_vec::<f64>()?;
        out.iter().zip(expected).for_each(|(a, b)| approx::assert_abs_diff_eq!(*a, b, epsilon = 1e-12));
        Ok(())
    }
}
