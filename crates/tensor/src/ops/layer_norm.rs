//! Layer normalisation (J. L. Ba, J. R. Kiros, G. E. Hinton, 2016), alone and fused with what comes before it in BERT:
//! y = LN(residual + dropout(x)).
//!
//! With x̂ = (x - mean) / σ and g = dy * gamma: dx = (g - mean(g) - x̂ mean(g x̂)) / σ, dgamma = Σ dy x̂, dbeta = Σ dy.
//! The variance is the biased one, and `eps` is added to it.

use crate::cpu::layer_norm::{NormGradients, NormOutputs, NormParameters, NormSaved, RowDropout};
use crate::cpu::{self, Target};
use crate::dispatch::{Float, Keep, Op, apply};
use crate::dropout::{Dropout, RowCoordinate};
use crate::error::{Error, Result};
use crate::layout::{Dims, rows_and_width};
use crate::ops::dropout::check_rows;
use crate::tensor::Tensor;

impl Tensor {
    /// Normalises over the last dimension, then scales by `gamma` and shifts by `beta`, both as wide as it.
    ///
    /// # Errors
    /// Returns an error if the shapes do not match.
    pub fn layer_norm(&self, gamma: &Tensor, beta: &Tensor, eps: f64) -> Result<Tensor> {
        apply(LayerNorm { eps }, [self, gamma, beta])
    }

    /// Computes `layer_norm(residual + dropout(self))`, which ends both halves of a transformer layer. `rows` locates
    /// each row, for the dropout; it may be empty if `dropout` keeps everything.
    ///
    /// # Errors
    /// Returns an error if the shapes do not match.
    pub fn residual_layer_norm(
        &self,
        residual: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        eps: f64,
        dropout: &Dropout,
        rows: &[RowCoordinate],
    ) -> Result<Tensor> {
        let (count, _) = rows_and_width(self.shape());
        check_rows(RESIDUAL, dropout, rows, count)?;
        let rows = if dropout.is_none() { Vec::new() } else { rows.to_vec() };
        apply(ResidualLayerNorm { eps, dropout: *dropout, rows }, [self, residual, gamma, beta])
    }
}

/// Layer normalisation.
pub(crate) struct LayerNorm {
    pub(crate) eps: f64,
}

impl Op<3, 2, 3> for LayerNorm {
    const OPERANDS: [&'static str; 3] = ["input", "gamma", "beta"];
    const FIRST_PARAMETER: usize = 1;

    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn shapes(&self, [x, gamma, beta]: [&Tensor; 3]) -> Result<[Dims; 2]> {
        check(self.name(), x, gamma, beta)?;
        Ok([x.dims(), statistics(self.name(), x)?])
    }

    fn forward<T: Float>(&mut self, [x, gamma, beta]: [&[T]; 3], [y, statistics]: [&mut [T]; 2]) {
        let (mean, rstd) = statistics.split_at_mut(statistics.len() / 2);
        let norm = NormParameters { gamma, beta, eps: self.eps };
        cpu::layer_norm::forward(x, norm, NormOutputs { y, mean, rstd });
    }

    fn keeps(&self) -> [Keep; 3] {
        [Keep::Input(0), Keep::Input(1), Keep::Output(1)]
    }

    fn backward<T: Float>(
        &self,
        [x, gamma, statistics]: [&[T]; 3],
        dy: &[T],
        [dx, dgamma, dbeta]: [Option<Target<'_, T>>; 3],
    ) {
        let (mean, rstd) = statistics.split_at(statistics.len() / 2);
        let gradients = NormGradients { dz: dx, dx: None, dgamma, dbeta };
        cpu::layer_norm::backward(dy, NormSaved { z: x, gamma, mean, rstd }, RowDropout::NONE, gradients);
    }
}

const RESIDUAL: &str = "residual_layer_norm";

/// Layer normalisation of a residual plus a dropped-out input.
pub(crate) struct ResidualLayerNorm {
    pub(crate) eps: f64,
    pub(crate) dropout: Dropout,
    /// Where each row stands; empty if nothing is dropped.
    pub(crate) rows: Vec<RowCoordinate>,
}

impl Op<4, 3, 3> for ResidualLayerNorm {
    const OPERANDS: [&'static str; 4] = ["input", "residual", "gamma", "beta"];
    const FIRST_PARAMETER: usize = 2;

    fn name(&self) -> &'static str {
        RESIDUAL
    }

    fn shapes(&self, [x, residual, gamma, beta]: [&Tensor; 4]) -> Result<[Dims; 3]> {
        check(RESIDUAL, x, gamma, beta)?;
        if x.shape() != residual.shape() {
            let operands = [("input", x.shape()), ("residual", residual.shape())];
            return Err(Error::shape(RESIDUAL, "the residual differs in shape from the input", &operands));
        }
        Ok([x.dims(), x.dims(), statistics(RESIDUAL, x)?])
    }

    fn forward<T: Float>(&mut self, [x, residual, gamma, beta]: [&[T]; 4], [y, z, statistics]: [&mut [T]; 3]) {
        let (mean, rstd) = statistics.split_at_mut(statistics.len() / 2);
        let norm = NormParameters { gamma, beta, eps: self.eps };
        let dropout = RowDropout { dropout: &self.dropout, rows: &self.rows };
        cpu::layer_norm::residual_forward(residual, x, dropout, norm, z, NormOutputs { y, mean, rstd });
    }

    fn keeps(&self) -> [Keep; 3] {
        [Keep::Output(1), Keep::Input(2), Keep::Output(2)]
    }

    fn backward<T: Float>(
        &self,
        [z, gamma, statistics]: [&[T]; 3],
        dy: &[T],
        [dx, dresidual, dgamma, dbeta]: [Option<Target<'_, T>>; 4],
    ) {
        let (mean, rstd) = statistics.split_at(statistics.len() / 2);
        let dropout = RowDropout { dropout: &self.dropout, rows: &self.rows };
        let gradients = NormGradients { dz: dresidual, dx, dgamma, dbeta };
        cpu::layer_norm::backward(dy, NormSaved { z, gamma, mean, rstd }, dropout, gradients);
    }
}

/// The shape of the mean and the reciprocal standard deviation of each row.
fn statistics(op: &'static str, x: &Tensor) -> Result<Dims> {
    Dims::new(op, &[2, rows_and_width(x.shape()).0])
}

fn check(op: &'static str, x: &Tensor, gamma: &Tensor, beta: &Tensor) -> Result<()> {
    if x.rank() == 0 || gamma.shape() != [x.width()] || beta.shape() != [x.width()] {
        let operands = [("input", x.shape()), ("gamma", gamma.shape()), ("beta", beta.shape())];
        return Err(Error::shape(op, format!("gamma and beta must be [{}]", x.width()), &operands));
    }
    Ok(())
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::{normal, rows_of};
    let eps = 1e-12;
    for (label, shape) in [("rows", [5, 33]), ("no rows", [0, 4]), ("wide", [2, 300]), ("many", [70, 8])] {
        let inputs = [normal(&shape), normal(&shape[1..]).parameter(), normal(&shape[1..]).parameter()];
        cases.add("layer_norm", label, inputs, move |x| x[0].layer_norm(&x[1], &x[2], eps));
    }
    let inputs = [normal(&[3, 40]).scaled(1e4), normal(&[40]).parameter(), normal(&[40]).parameter()];
    cases.add("layer_norm", "extremes", inputs, move |x| x[0].layer_norm(&x[1], &x[2], eps));
    for (label, p) in [("no dropout", 0.0), ("dropout", 0.25)] {
        let inputs = [normal(&[9, 33]), normal(&[9, 33]), normal(&[33]).parameter(), normal(&[33]).parameter()];
        cases.add("residual_layer_norm", label, inputs, move |x| {
            let dropout = Dropout::new(p, 5, 1, 0)?;
            x[0].residual_layer_norm(&x[1], &x[2], &x[3], eps, &dropout, &rows_of(&[1, 5, 3]))
        });
    }
    let inputs = [normal(&[4, 16]), normal(&[16]).parameter(), normal(&[16]).parameter()];
    cases.add("residual_layer_norm", "itself", inputs, move |x| {
        x[0].residual_layer_norm(&x[0], &x[1], &x[2], eps, &Dropout::NONE, &[])
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{assert_same_with_gradients, normal, rows_of};

    #[test]
    fn fused_equals_composed() -> Result<()> {
        let eps = 1e-12;
        let inputs = [normal(&[9, 33]), normal(&[9, 33]), normal(&[33]), normal(&[33])];
        for dropout in [Dropout::NONE, Dropout::new(0.3, 5, 1, 2)?] {
            let rows = rows_of(&[1, 5, 3]);
            assert_same_with_gradients(
                &inputs,
                |x| x[0].residual_layer_norm(&x[1], &x[2], &x[3], eps, &dropout, &rows),
                |x| x[0].dropout(&dropout, &rows)?.add(&x[1])?.layer_norm(&x[2], &x[3], eps),
            );
        }
        assert_same_with_gradients(
            &[normal(&[4, 9]), normal(&[9]), normal(&[9])],
            |x| x[0].layer_norm(&x[1], &x[2], eps),
            |x| {
                let centred = x[0].sub(&x[0].mean(1)?.unsqueeze(1)?)?;
                let variance = centred.mul(&centred)?.mean(1)?.unsqueeze(1)?;
                centred.div(&variance.add_scalar(eps)?.sqrt()?)?.mul(&x[1])?.add(&x[2])
            },
        );
        Ok(())
    }
}
