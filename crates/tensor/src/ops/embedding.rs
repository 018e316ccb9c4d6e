//! Embedding look-up, and BERT's input layer in one operation: the sum of the word, position and token-type
//! embeddings, normalised.
//!
//! The gradient of a table is zero but in the rows that were looked up. Rows are added in an order that
//! does not depend on the number of threads.

use crate::autograd::differentiable;
#[cfg(feature = "cuda")]
use crate::cuda;
use crate::gradients::Destination;
use crate::ops::rows::gather;
use crate::ops::{alike, check_indices, float, in_f32, on_device};
use crate::tensor::Tensor;
use crate::{Error, Result, cpu};

/// Ids of a packed batch: which rows of the three tables each token looks up. All have length T.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddingIds<'a> {
    /// Token ids.
    pub words: &'a [u32],
    /// Position of each token in its sequence.
    pub positions: &'a [u32],
    /// Token types: which segment a token belongs to.
    pub token_types: &'a [u32],
}

impl Tensor {
    /// Looks rows of the table `self` [V, H] up: [ids, H].
    ///
    /// # Errors
    /// When this is no matrix or an id is not below V.
    pub fn embedding(&self, ids: &[u32]) -> Result<Tensor> {
        gather("embedding", "id", self, ids)
    }

    /// `layer_norm(word[id] + position[position] + token_type[token_type])` for every token: [T, H].
    /// `self` is the table of words [V, H]; `position` is [P, H], `token_type` [S, H], `gamma` and `beta` `[H]`.
    ///
    /// # Errors
    /// When the shapes do not fit, or an id is not below the rows of its table: the error says which.
    pub fn embeddings_layer_norm(
        &self,
        position: &Tensor,
        token_type: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        eps: f64,
        ids: EmbeddingIds<'_>,
    ) -> Result<Tensor> {
        const OP: &str = "embeddings_layer_norm";
        let half = in_f32([self, position, token_type, gamma, beta], |[words, position, token_type, gamma, beta]| {
            words.embeddings_layer_norm(position, token_type, gamma, beta, eps, ids)
        })?;
        if let Some(y) = half {
            return Ok(y);
        }
        let operands =
            [("word", self), ("position", position), ("token_type", token_type), ("gamma", gamma), ("beta", beta)];
        alike(OP, &operands)?;
        let width = self.width();
        let tables_fit = [self, position, token_type].iter().all(|table| table.rank() == 2 && table.width() == width);
        if !tables_fit || gamma.shape() != [width] || beta.shape() != [width] {
            let reason = "the tables must be matrices, and all operands as wide as the first";
            return Err(Error::shape(OP, reason, &operands.map(|(name, tensor)| (name, tensor.shape()))));
        }
        let tokens = ids.words.len();
        if ids.positions.len() != tokens || ids.token_types.len() != tokens {
            let (positions, types) = (ids.positions.len(), ids.token_types.len());
            let reason = format!("{tokens} token ids, {positions} positions and {types} token types given");
            return Err(Error::invalid(OP, reason));
        }
        check_indices(OP, "token id", ids.words, self.size(0))?;
        check_indices(OP, "position", ids.positions, position.size(0))?;
        check_indices(OP, "token type", ids.token_types, token_type.size(0))?;

        on_device!(self, cpu => (), cuda => {
            let columns = [ids.words, ids.positions, ids.token_types];
            let sum = cuda::embedding::embed(OP, [self, position, token_type], columns)?;
            let input = cuda::layer_norm::Input { x: &sum, residual: None };
            let [output, z, statistics] = cuda::layer_norm::forward(OP, input, gamma, beta, eps)?;
            let ids = columns.map(<[u32]>::to_vec);
            let inputs = operands.map(|(_, tensor)| tensor);
            return Ok(differentiable(OP, inputs, [&z, gamma, &statistics], output, move |[z, gamma, statistics], dy, slots| {
                let found = cuda::layer_norm::backward(OP, &dy, [&z, &gamma, &statistics], None)?;
                let [word, position, token_type, dgamma, dbeta] = slots;
                for (slot, ids) in [word, position, token_type].into_iter().zip(&ids) {
                    if let Some(mut table) = slot.open()? {
                        cuda::embedding::scatter(OP, &found.dz, ids, &table.zeroed()?)?;
                    }
                }
                dgamma.give(found.dgamma)?;
                dbeta.give(found.dbeta)
            }));
        });

        let [word_values, position_values, type_values, gamma_values, beta_values] =
            operands.map(|(_, tensor)| tensor.values());
        let (words, positions, types) = (word_values?, position_values?, type_values?);
        let (gammas, betas) = (gamma_values?, beta_values?);
        let columns = [ids.words, ids.positions, ids.token_types];
        let shapes = [&[tokens, width][..], &[tokens, width], &[2, tokens]];
        let [output, sum, statistics] = float!(OP, self.dtype(), T => {
            Tensor::build_all(OP, shapes, &self.device(), |[y, z, statistics]: [&mut [T]; 3]| {
                let (mean, rstd) = statistics.split_at_mut(tokens);
                let tables = [words.slice(), positions.slice(), types.slice()];
                let (gamma, beta) = (gammas.slice(), betas.slice());
                cpu::embedding::embed_forward(tables, columns, gamma, beta, eps, z, y, mean, rstd);
            })?
        });
        let ids = columns.map(<[u32]>::to_vec);
        let inputs = operands.map(|(_, tensor)| tensor);
        let keeps = [&sum, gamma, &statistics];
        Ok(differentiable(OP, inputs, keeps, output, move |[z, gamma, statistics], dy, slots| {
            let mut opened = Vec::with_capacity(slots.len());
            for slot in slots {
                opened.push(slot.open()?);
            }
            let gamma = gamma.values()?;
            float!(OP, dy.dtype(), T => {
                let (mean, rstd) = statistics.slice::<T>().split_at(tokens);
                let ids = [&ids[0][..], &ids[1], &ids[2]];
                let (tables, rest) = opened.split_at_mut(ids.len());
                let mut tables = tables.iter_mut().zip(ids).map(|(slot, ids)| slot.as_mut().map(|slot| slot.rows_target(ids)));
                let tables = std::array::from_fn(|_| tables.next().flatten());
                let mut rest = rest.iter_mut().map(|slot| slot.as_mut().map(Destination::target));
                let mut next = || rest.next().flatten();
                let (dy, z) = (dy.slice(), z.slice());
                cpu::embedding::embed_backward(dy, z, gamma.slice(), mean, rstd, ids, tables, next(), next());
            });
            Ok(())
        }))
    }
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::normal;
    cases.add("embedding", "repeated", [normal(&[6, 5])], |x| x[0].embedding(&[3, 3, 0, 5]));
    cases.add("embedding", "none", [normal(&[6, 5])], |x| x[0].embedding(&[]));
    for (label, width) in [("narrow", 5), ("wide", 48)] {
        let tables = [normal(&[7, width]), normal(&[4, width]), normal(&[2, width]), normal(&[width]), normal(&[width])];
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
    use crate::{DType, Device, ErrorKind};

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
