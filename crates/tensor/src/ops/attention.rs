//! Multi-head self-attention over packed sequences (A. Vaswani et al., 2017), in the manner of
//! FlashAttention (T. Dao et al., 2022): the scores exist a block of rows at a time, and only each row's
//! log-sum-exp is kept for the backward, which computes the probabilities again.
//!
//! T tokens of B sequences, N heads, D head size. For each sequence and head, S = Q Kᵀ / √D,
//! P = softmax(S), O = dropout(P) V. Sequences never see one another, so there is no mask.

use std::sync::Arc;

use crate::autograd::differentiable;
#[cfg(feature = "cuda")]
use crate::cuda;
use crate::dropout::{Dropout, RowCoordinate};
use crate::ops::{alike, float, in_f32, on_device};
use crate::tensor::Tensor;
use crate::{Error, Precision, Result, cpu};

/// Dropout's counter has 11 bits for blocks of 32 columns of scores: beyond that draws would come twice.
const LONGEST_WITH_DROPOUT: usize = 1 << 16;

/// How sequences lie one after another in a packed batch. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequences(Arc<Packed>);

#[derive(Debug, PartialEq, Eq)]
struct Packed {
    cu_seqlens: Vec<u32>,
    numbers: Vec<u32>,
    rows: Vec<RowCoordinate>,
}

impl Sequences {
    /// Sequences of these lengths, numbered from 0 within their optimizer step.
    ///
    /// # Errors
    /// When a length is 0 or there are too many tokens to count in 32 bits.
    pub fn new(lengths: &[usize]) -> Result<Sequences> {
        // There are fewer than 2^32 sequences where there are not too many tokens.
        Sequences::numbered(lengths, &(0..lengths.len()).map(|number| number as u32).collect::<Vec<_>>())
    }

    /// Sequences of these lengths with their global `numbers` within the optimizer step. The numbers decide
    /// what dropout drops, so a sequence is treated alike in whichever batch it comes.
    ///
    /// # Errors
    /// When a length is 0, there are not as many numbers as lengths, or too many tokens.
    pub fn numbered(lengths: &[usize], numbers: &[u32]) -> Result<Sequences> {
        const OP: &str = "sequences";
        if lengths.len() != numbers.len() {
            let reason = format!("{} lengths and {} sequence numbers given", lengths.len(), numbers.len());
            return Err(Error::invalid(OP, reason));
        }
        let (mut cu_seqlens, mut tokens) = (vec![0u32], 0u32);
        for (index, &length) in lengths.iter().enumerate() {
            if length == 0 {
                return Err(Error::invalid(OP, format!("sequence {index} is empty")));
            }
            let end = u32::try_from(length).ok().and_then(|length| tokens.checked_add(length));
            tokens = end.ok_or_else(|| Error::invalid(OP, format!("2^32 tokens or more, sequence {index} included")))?;
            cu_seqlens.push(tokens);
        }
        let mut rows = Vec::new();
        let lacking = |_| Error::invalid(OP, format!("cannot allocate the coordinates of {tokens} tokens"));
        rows.try_reserve_exact(tokens as usize).map_err(lacking)?;
        for (ends, &sequence) in cu_seqlens.windows(2).zip(numbers) {
            rows.extend((0..ends[1] - ends[0]).map(|position| RowCoordinate { sequence, position }));
        }
        Ok(Sequences(Arc::new(Packed { cu_seqlens, numbers: numbers.to_vec(), rows })))
    }

    /// Number of sequences: B.
    pub fn len(&self) -> usize {
        self.0.numbers.len()
    }

    /// Whether there is no sequence.
    pub fn is_empty(&self) -> bool {
        self.0.numbers.is_empty()
    }

    /// Number of tokens: T.
    pub fn tokens(&self) -> usize {
        self.0.rows.len()
    }

    /// Where each sequence starts, and T at the end: [B + 1].
    pub fn cu_seqlens(&self) -> &[u32] {
        &self.0.cu_seqlens
    }

    /// The first row of each sequence: its `[CLS]` token.
    pub fn starts(&self) -> &[u32] {
        &self.0.cu_seqlens[..self.len()]
    }

    /// Length of the longest sequence.
    pub fn longest(&self) -> usize {
        self.0.cu_seqlens.windows(2).map(|ends| (ends[1] - ends[0]) as usize).max().unwrap_or(0)
    }

    /// Global number of each sequence within its optimizer step.
    pub fn numbers(&self) -> &[u32] {
        &self.0.numbers
    }

    /// Where each of the T rows stands.
    pub fn rows(&self) -> &[RowCoordinate] {
        &self.0.rows
    }
}

impl Tensor {
    /// Self-attention of `self` [T, 3 N D], the queries, keys and values of all heads side by side:
    /// [T, N D]. Probabilities are dropped as `dropout` says.
    ///
    /// # Errors
    /// When the shapes do not fit, or a sequence has more than 65,536 tokens and `dropout` is not none.
    pub fn attention(&self, sequences: &Sequences, heads: usize, dropout: &Dropout) -> Result<Tensor> {
        const OP: &str = "attention";
        if let Some(y) = in_f32([self], |[qkv]| qkv.attention(sequences, heads, dropout))? {
            return Ok(y);
        }
        let hidden = self.check_attention(OP, sequences, heads)?;
        if !dropout.is_none() && sequences.longest() > LONGEST_WITH_DROPOUT {
            let reason = format!("a sequence of {} tokens, at most {LONGEST_WITH_DROPOUT} with dropout", sequences.longest());
            return Err(Error::invalid(OP, reason));
        }
        let (qkv, precision) = (self.values()?, Precision::current());
        on_device!(qkv, cpu => (), cuda => {
            let attention = cuda::attention::Attention { sequences, heads, dropout, precision };
            let (output, kept) = attention.forward(OP, &qkv)?;
            let (sequences, dropout) = (sequences.clone(), *dropout);
            return Ok(differentiable(OP, [self], [], output, move |[], dy, [dqkv]| {
                let attention = cuda::attention::Attention { sequences: &sequences, heads, dropout: &dropout, precision };
                dqkv.give_with(|| attention.backward(OP, &kept, &dy))
            }));
        });
        let tokens = sequences.tokens();
        let shapes = [&[tokens, hidden][..], &[tokens, heads]];
        let [output, log_sums] = float!(OP, qkv.dtype(), T => {
            Tensor::build_all(OP, shapes, &qkv.device(), |[out, log_sums]: [&mut [T]; 2]| {
                cpu::attention::forward(&plan(sequences, hidden, heads, dropout, precision), qkv.slice(), out, log_sums);
            })?
        });
        let (sequences, dropout) = (sequences.clone(), *dropout);
        let keeps = [&qkv, &output.clone(), &log_sums];
        Ok(differentiable(OP, [self], keeps, output, move |[qkv, out, log_sums], dy, [dqkv]| {
            let Some(mut dqkv) = dqkv.open()? else { return Ok(()) };
            float!(OP, dy.dtype(), T => {
                let plan = plan(&sequences, hidden, heads, &dropout, precision);
                let (qkv, out, log_sums) = (qkv.slice::<T>(), out.slice(), log_sums.slice());
                cpu::attention::backward(&plan, qkv, out, log_sums, dy.slice(), dqkv.target());
            });
            Ok(())
        }))
    }

    /// The attention probabilities, for looking at: for each sequence of length L a tensor [N, L, L] whose
    /// entry (n, i, j) says how much token i attends to token j in head n. On the CPU, and not differentiable.
    ///
    /// # Errors
    /// When the shapes do not fit, or this tensor wants a gradient.
    pub fn attention_weights(&self, sequences: &Sequences, heads: usize) -> Result<Vec<Tensor>> {
        const OP: &str = "attention_weights";
        let hidden = self.check_attention(OP, sequences, heads)?;
        let dtype = self.dtype();
        let qkv = self.detach().to_device(&crate::Device::Cpu)?;
        let qkv = if dtype.is_half() { qkv.to_dtype(crate::DType::F32)? } else { qkv };
        let qkv = qkv.contiguous()?;
        let plan = plan(sequences, hidden, heads, &Dropout::NONE, Precision::F32);
        sequences
            .cu_seqlens()
            .windows(2)
            .map(|ends| {
                let length = (ends[1] - ends[0]) as usize;
                let weights = float!(OP, qkv.dtype(), T => {
                    Tensor::build(OP, &[heads, length, length], &qkv.device(), |weights: &mut [T]| {
                        let qkv = &qkv.slice::<T>()[ends[0] as usize * 3 * hidden..ends[1] as usize * 3 * hidden];
                        cpu::attention::weights(qkv, heads, plan.head_size, plan.scale, weights);
                    })?
                });
                crate::autograd::non_differentiable(OP, &[self], weights.to_dtype(dtype)?)
            })
            .collect()
    }

    /// Checks the shapes, and gives N D.
    fn check_attention(&self, op: &'static str, sequences: &Sequences, heads: usize) -> Result<usize> {
        alike(op, &[("qkv", self)])?;
        let wrong = |reason: String| Err(Error::shape(op, reason, &[("qkv", self.shape())]));
        match *self.shape() {
            [tokens, _] if tokens != sequences.tokens() => {
                wrong(format!("{tokens} rows given for {} tokens in {} sequences", sequences.tokens(), sequences.len()))
            }
            [_, width] if heads == 0 || heads > 256 || width % (3 * heads) != 0 => {
                wrong(format!("width {width} does not split into queries, keys and values of {heads} heads (1 to 256)"))
            }
            [_, 0] => wrong("width 0 leaves nothing to attend to".into()),
            [_, width] => Ok(width / 3),
            _ => wrong("must be [tokens, 3 * heads * head size]".into()),
        }
    }
}

fn plan<'a>(
    sequences: &'a Sequences,
    hidden: usize,
    heads: usize,
    dropout: &Dropout,
    precision: Precision,
) -> cpu::attention::AttentionProblem<'a> {
    let head_size = hidden / heads;
    cpu::attention::AttentionProblem {
        heads,
        head_size,
        scale: 1.0 / (head_size.max(1) as f64).sqrt(),
        cu_seqlens: sequences.cu_seqlens(),
        sequences: sequences.numbers(),
        dropout: *dropout,
        precision: if precision == Precision::Int8 { Precision::F32 } else { precision },
    }
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::normal;
    let layouts: [(&str, &[usize], usize, usize); 5] = [
        ("mixed lengths", &[1, 7, 3], 2, 8),
        ("odd head size", &[5, 2], 3, 5),
        ("one token", &[1], 1, 4),
        ("beyond a block", &[35], 1, 6),
        ("no sequence", &[], 2, 4),
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
        let part = |index| qkv.narrow(1, index * heads * size, heads * size)?.reshape(&[length, heads, size])?.transpose(0, 1);
        let (q, k, v): (Tensor, Tensor, Tensor) = (part(0)?, part(1)?, part(2)?);
        let scores = q.matmul(&k.t()?)?.mul_scalar(1.0 / (size as f64).sqrt())?;
        scores.softmax()?.matmul(&v)?.transpose(0, 1)?.reshape(&[length, heads * size])
    }

    #[test]
    fn impossible_sizes_are_refused() -> Result<()> {
        for lengths in [&[usize::MAX, 2][..], &[1 << 32], &[u32::MAX as usize, 1]] {
            let Err(error) = Sequences::new(lengths) else { panic!("{lengths:?} were accepted") };
            assert!(error.to_string().contains("2^32 tokens or more"), "{error}");
        }
        let device = crate::Device::Cpu;
        let narrow = Tensor::zeros(&[3, 0], crate::DType::F32, &device)?;
        assert!(narrow.attention(&Sequences::new(&[3])?, 1, &Dropout::NONE).is_err());
        let long = Sequences::new(&[LONGEST_WITH_DROPOUT + 1])?;
        let qkv = Tensor::zeros(&[long.tokens(), 3], crate::DType::F32, &device)?;
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
