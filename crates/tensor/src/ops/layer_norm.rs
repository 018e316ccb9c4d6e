//! Layer normalisation (J. L. Ba, J. R. Kiros, G. E. Hinton, 2016), alone and fused with what comes before
//! it in BERT: y = LN(residual + dropout(x)).
//!
//! With x̂ = (x - mean) / σ and g = dy * gamma: dx = (g - mean(g) - x̂ mean(g x̂)) / σ, dgamma = Σ dy x̂,
//! dbeta = Σ dy. The variance is the biased one, and `eps` is added to it.

use crate::autograd::differentiable;
#[cfg(feature = "cuda")]
use crate::cuda;
use crate::dropout::{Dropout, RowCoordinate};
use crate::gradients::Destination;
use crate::ops::dropout::check_rows;
use crate::ops::{alike, float, in_f32, on_device, rows_and_width};
use crate::tensor::Tensor;
use crate::{Error, Result, cpu};

impl Tensor {
    /// Normalises over the last dimension, then scales by `gamma` and shifts by `beta`, both of its width.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn layer_norm(&self, gamma: &Tensor, beta: &Tensor, eps: f64) -> Result<Tensor> {
        const OP: &str = "layer_norm";
        if let Some(y) = in_f32([self, gamma, beta], |[x, g, b]| x.layer_norm(g, b, eps))? {
            return Ok(y);
        }
        check(OP, self, gamma, beta)?;
        let x = self.values()?;
        on_device!(x, cpu => (), cuda => {
            let input = cuda::layer_norm::Input { x: &x, residual: None };
            let [output, z, statistics] = cuda::layer_norm::forward(OP, input, gamma, beta, eps)?;
            let (inputs, keeps) = ([self, gamma, beta], [&z, gamma, &statistics]);
            return Ok(differentiable(OP, inputs, keeps, output, move |[z, gamma, statistics], dy, [dx, dgamma, dbeta]| {
                let found = cuda::layer_norm::backward(OP, &dy, [&z, &gamma, &statistics], None)?;
                dx.give(found.dz)?;
                dgamma.give(found.dgamma)?;
                dbeta.give(found.dbeta)
            }));
        });
        let (rows, _) = rows_and_width(x.shape());
        let (gamma_values, beta_values) = (gamma.values()?, beta.values()?);
        let [output, statistics] = float!(OP, x.dtype(), T => {
            Tensor::build_all(OP, [x.shape(), &[2, rows]], &x.device(), |[y, statistics]: [&mut [T]; 2]| {
                let (gamma, beta) = (gamma_values.slice(), beta_values.slice());
                let (mean, rstd) = statistics.split_at_mut(rows);
                cpu::layer_norm::forward(x.slice(), gamma, beta, eps, y, mean, rstd);
            })?
        });
        let (inputs, keeps) = ([self, gamma, beta], [&x, gamma, &statistics]);
        Ok(differentiable(OP, inputs, keeps, output, move |[x, gamma, statistics], dy, [dx, dgamma, dbeta]| {
            let (mut dx, mut dgamma, mut dbeta) = (dx.open()?, dgamma.open()?, dbeta.open()?);
            let gamma = gamma.values()?;
            float!(OP, dy.dtype(), T => {
                let (mean, rstd) = statistics.slice::<T>().split_at(rows);
                cpu::layer_norm::backward(
                    dy.slice(),
                    x.slice(),
                    gamma.slice(),
                    mean,
                    rstd,
                    dx.as_mut().map(Destination::target),
                    dgamma.as_mut().map(Destination::target),
                    dbeta.as_mut().map(Destination::target),
                );
            });
            Ok(())
        }))
    }

    /// `layer_norm(residual + dropout(self))`: what ends both halves of a transformer layer. `rows` says
    /// where each row stands, for the dropout; it may be empty where `dropout` is none.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn residual_layer_norm(
        &self,
        residual: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        eps: f64,
        dropout: &Dropout,
        rows: &[RowCoordinate],
    ) -> Result<Tensor> {
        const OP: &str = "residual_layer_norm";
        let half = in_f32([self, residual, gamma, beta], |[x, r, g, b]| {
            x.residual_layer_norm(r, g, b, eps, dropout, rows)
        })?;
        if let Some(y) = half {
            return Ok(y);
        }
        check(OP, self, gamma, beta)?;
        alike(OP, &[("input", self), ("residual", residual)])?;
        if self.shape() != residual.shape() {
            let operands = [("input", self.shape()), ("residual", residual.shape())];
            return Err(Error::shape(OP, "the residual differs in shape from the input", &operands));
        }
        let (count, _) = rows_and_width(self.shape());
        check_rows(OP, dropout, rows, count)?;
        let (x, residual_values) = (self.values()?, residual.values()?);
        on_device!(x, cpu => (), cuda => {
            let coordinates = cuda::coordinates(OP, &cuda::device_of(OP, &x)?, dropout, rows)?;
            let input = cuda::layer_norm::Input { x: &x, residual: Some((&residual_values, dropout, &coordinates)) };
            let [output, z, statistics] = cuda::layer_norm::forward(OP, input, gamma, beta, eps)?;
            let dropout = *dropout;
            let (inputs, keeps) = ([self, residual, gamma, beta], [&z, gamma, &statistics]);
            return Ok(differentiable(OP, inputs, keeps, output, move |[z, gamma, statistics], dy, slots| {
                let [dx, dresidual, dgamma, dbeta] = slots;
                let found = cuda::layer_norm::backward(OP, &dy, [&z, &gamma, &statistics], Some((&dropout, &coordinates)))?;
                dx.give(found.dx.unwrap_or_else(|| found.dz.clone()))?;
                dresidual.give(found.dz)?;
                dgamma.give(found.dgamma)?;
                dbeta.give(found.dbeta)
            }));
        });
        let (gamma_values, beta_values) = (gamma.values()?, beta.values()?);
        let shapes = [x.shape(), x.shape(), &[2, count]];
        let [output, sum, statistics] = float!(OP, x.dtype(), T => {
            Tensor::build_all(OP, shapes, &x.device(), |[y, z, statistics]: [&mut [T]; 3]| {
                let (gamma, beta) = (gamma_values.slice(), beta_values.slice());
                let (x, residual) = (x.slice(), residual_values.slice());
                let (mean, rstd) = statistics.split_at_mut(count);
                cpu::layer_norm::residual_forward(residual, x, rows, dropout, gamma, beta, eps, z, y, mean, rstd);
            })?
        });
        let rows = if dropout.is_none() { Vec::new() } else { rows.to_vec() };
        let dropout = *dropout;
        Ok(differentiable(
            OP,
            [self, residual, gamma, beta],
            [&sum, gamma, &statistics],
            output,
            move |[z, gamma, statistics], dy, [dx, dresidual, dgamma, dbeta]| {
                let (mut dx, mut dresidual) = (dx.open()?, dresidual.open()?);
                let (mut dgamma, mut dbeta) = (dgamma.open()?, dbeta.open()?);
                let gamma = gamma.values()?;
                float!(OP, dy.dtype(), T => {
                    let (mean, rstd) = statistics.slice::<T>().split_at(count);
                    cpu::layer_norm::residual_backward(
                        dy.slice(),
                        z.slice(),
                        gamma.slice(),
                        mean,
                        rstd,
                        &rows,
                        &dropout,
                        dresidual.as_mut().map(Destination::target),
                        dx.as_mut().map(Destination::target),
                        dgamma.as_mut().map(Destination::target),
                        dbeta.as_mut().map(Destination::target),
                    );
                });
                Ok(())
            },
        ))
    }
}

fn check(op: &'static str, x: &Tensor, gamma: &Tensor, beta: &Tensor) -> Result<()> {
    let operands = [("input", x), ("gamma", gamma), ("beta", beta)];
    alike(op, &operands)?;
    if x.rank() == 0 || gamma.shape() != [x.width()] || beta.shape() != [x.width()] {
        let reason = format!("gamma and beta must be [{}]", x.width());
        return Err(Error::shape(op, reason, &operands.map(|(name, tensor)| (name, tensor.shape()))));
    }
    Ok(())
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::{normal, rows_of};
    let eps = 1e-12;
    for (label, shape) in [("rows", [5, 33]), ("no rows", [0, 4]), ("wide", [2, 300]), ("many", [70, 8])] {
        let inputs = [normal(&shape), normal(&shape[1..]), normal(&shape[1..])];
        cases.add("layer_norm", label, inputs, move |x| x[0].layer_norm(&x[1], &x[2], eps));
    }
    let inputs = [normal(&[3, 40]).scaled(1e4), normal(&[40]), normal(&[40])];
    cases.add("layer_norm", "extremes", inputs, move |x| x[0].layer_norm(&x[1], &x[2], eps));
    for (label, p) in [("no dropout", 0.0), ("dropout", 0.25)] {
        let inputs = [normal(&[9, 33]), normal(&[9, 33]), normal(&[33]), normal(&[33])];
        cases.add("residual_layer_norm", label, inputs, move |x| {
            let dropout = Dropout::new(p, 5, 1, 0)?;
            x[0].residual_layer_norm(&x[1], &x[2], &x[3], eps, &dropout, &rows_of(&[1, 5, 3]))
        });
    }
    let inputs = [normal(&[4, 16]), normal(&[16]), normal(&[16])];
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
