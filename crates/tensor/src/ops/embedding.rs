//! Embedding look-up, and BERT's input layer in one operation: the sum of the word, position and token-type embeddings,
//! normalised.
//!
//! The gradient of a table is zero except in the rows that were looked up. Rows are added in an order that does not
//! depend on the number of threads.

use crate::cpu::layer_norm::{NormOutputs, NormParameters, NormSaved};
use crate::cpu::{self, Target};
use crate::dispatch::{Float, Keep, Op, apply};
use crate::error::{Error, Result};
use crate::layout::Dims;
use crate::ops::check_indices;
use crate::ops::rows::GatherRows;
use crate::tensor::Tensor;

/// Ids of a packed batch: the rows of the three tables that each token looks up. All have length T.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddingIds<'a> {
    /// Token ids.
    pub words: &'a [u32],
    /// Position of each token in its sequence.
    pub positions: &'a [u32],
    /// Token types: the segment that each token belongs to.
    pub token_types: &'a [u32],
}

impl Tensor {
    /// Looks up rows of the table `self` [V, H]: [ids, H].
    ///
    /// # Errors
    /// Returns an error if this is not a matrix or an id is not below V.
    pub fn embedding(&self, ids: &[u32]) -> Result<Tensor> {
        apply(GatherRows { name: "embedding", index: "id", indices: ids.to_vec(), width: self.width() }, [self])
    }

    /// Computes `layer_norm(word[id] + position[position] + token_type[token_type])` for every token: [T, H]. `self` is
    /// the word table [V, H]; `position` is [P, H], `token_type` [S, H], `gamma` and `beta` `[H]`.
    ///
    /// # Errors
    /// Returns an error if the shapes do not match, or an id is not below the number of rows of its table; the error
    /// names the table.
    pub fn embeddings_layer_norm(
        &self,
        position: &Tensor,
        token_type: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        eps: f64,
        ids: EmbeddingIds<'_>,
    ) -> Result<Tensor> {
        let ids = [ids.words, ids.positions, ids.token_types].map(<[u32]>::to_vec);
        apply(EmbeddingsLayerNorm { ids, eps }, [self, position, token_type, gamma, beta])
    }
}

/// The sum of rows of three tables, normalised.
pub(crate) struct EmbeddingsLayerNorm {
    /// For each table, the row of each token.
    pub(crate) ids: [Vec<u32>; 3],
    pub(crate) eps: f64,
}

impl Op<5, 3, 3> for EmbeddingsLayerNorm {
    const OPERANDS: [&'static str; 5] = ["word", "position", "token_type", "gamma", "beta"];

    fn name(&self) -> &'static str {
        "embeddings_layer_norm"
    }

    fn shapes(&self, inputs: [&Tensor; 5]) -> Result<[Dims; 3]> {
        let op = self.name();
        let [word, position, token_type, gamma, beta] = inputs;
        let (width, tokens) = (word.width(), self.ids[0].len());
        let tables = [word, position, token_type];
        let fits = |table: &Tensor| table.rank() == 2 && table.width() == width;
        if !tables.into_iter().all(fits) || gamma.shape() != [width] || beta.shape() != [width] {
            let operands: [_; 5] = std::array::from_fn(|index| (Self::OPERANDS[index], inputs[index].shape()));
            return Err(Error::shape(
                op,
                "the tables must be matrices, and all operands as wide as the first",
                &operands,
            ));
        }
        let [_, positions, types] = self.ids.each_ref().map(Vec::len);
        if positions != tokens || types != tokens {
            let reason = format!("{tokens} token ids, {positions} positions and {types} token types given");
            return Err(Error::invalid(op, reason));
        }
        for ((name, ids), table) in ["token id", "position", "token type"].into_iter().zip(&self.ids).zip(tables) {
            check_indices(op, name, ids, table.size(0))?;
        }
        let hidden = Dims::new(op, &[tokens, width])?;
        Ok([hidden, hidden, Dims::new(op, &[2, tokens])?])
    }

    fn forward<T: Float>(
        &mut self,
        [word, position, token_type, gamma, beta]: [&[T]; 5],
        [y, z, statistics]: [&mut [T]; 3],
    ) {
        let (mean, rstd) = statistics.split_at_mut(statistics.len() / 2);
        let (tables, ids) = ([word, position, token_type], self.ids.each_ref().map(Vec::as_slice));
        let norm = NormParameters { gamma, beta, eps: self.eps };
        cpu::embedding::embed_forward(tables, ids, norm, z, NormOutputs { y, mean, rstd });
    }

    fn keeps(&self) -> [Keep; 3] {
        [Keep::Output(1), Keep::Input(3), Keep::Output(2)]
    }

    fn backward<T: Float>(
        &self,
        [z, gamma, statistics]: [&[T]; 3],
        dy: &[T],
        [word, position, token_type, dgamma, dbeta]: [Option<Target<'_, T>>; 5],
    ) {
        let (mean, rstd) = statistics.split_at(statistics.len() / 2);
        let (tables, ids) = ([word, position, token_type], self.ids.each_ref().map(Vec::as_slice));
        let saved = NormSaved { z, gamma, mean, rstd };
        cpu::embedding::embed_backward(dy, saved, ids, tables, dgamma, dbeta);
    }

    fn rows(&self, input: usize) -> Option<&[u32]> {
        self.ids.get(input).map(Vec::as_slice)
    }
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::normal;
    cases.add("embedding", "repeated", [normal(&[6, 5])], |x| x[0].embedding(&[3, 3, 0, 5]));
    cases.add("embedding", "none", [normal(&[6, 5])], |x| x[0].embedding(&[]));
    for (label, width) in [("narrow", 5), ("wide", 48)] {
        let tables =
            [normal(&[7, width]), normal(&[4, width]), normal(&[2, width]), normal(&[width]), normal(&[width])];
        cases.add("embeddings_layer_norm", label, tables, |x| {
            let ids = tests_ids();
            x[0].embeddings_layer_norm(&x[1], &x[2], &x[3], &x[4], 1e-12, ids)
        });
    }
}

#[cfg(test)]
fn tests_ids() -> EmbeddingIds<'static> {
    EmbeddingIds { words: &[1, 6, 6, 0, 2], positions: &[0, 1, 2, 0, 1], token_types: &[0, 0, 1, 0, 1] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{assert_same_with_gradients, normal};
    use crate::device::Device;
    use crate::dtype::DType;
    use crate::error::ErrorKind;

    #[test]
    fn fused_equals_composed() {
        let inputs = [normal(&[7, 9]), normal(&[4, 9]), normal(&[2, 9]), normal(&[9]), normal(&[9])];
        let ids = tests_ids();
        assert_same_with_gradients(
            &inputs,
            |x| x[0].embeddings_layer_norm(&x[1], &x[2], &x[3], &x[4], 1e-12, ids),
            |x| {
                let sum = x[0].embedding(ids.words)?.add(&x[1].embedding(ids.positions)?)?;
                sum.add(&x[2].embedding(ids.token_types)?)?.layer_norm(&x[3], &x[4], 1e-12)
            },
        );
    }

    #[test]
    fn ids_out_of_range_are_named() -> Result<()> {
        let table = Tensor::zeros(&[3, 2], DType::F32, &Device::Cpu)?;
        let Err(error) = table.embedding(&[0, 3]) else { panic!("3 is out of range") };
        assert!(matches!(error.kind(), ErrorKind::OutOfRange { value: 3, position: 1, limit: 3, .. }), "{error}");
        Ok(())
    }
}
