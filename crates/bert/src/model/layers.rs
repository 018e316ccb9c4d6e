//! What every part is made of: linear maps, normalisations, tables.

use cloze_tensor::{Dropout, Gelu, Module, RowCoordinate, Tensor, join_name, module};

use super::lora::Adapter;
use crate::Result;
use crate::weights::{Init, Weights};

/// y = x Wᵀ + b.
#[derive(Clone)]
pub struct Linear {
    /// `[outputs, inputs]`
    pub weight: Tensor,
    /// `[outputs]`
    pub bias: Tensor,
    /// What y is corrected by, if it is.
    pub adapter: Option<Adapter>,
}

impl Module for Linear {
    fn visit(&self, name: &str, visitor: &mut dyn FnMut(&str, &Tensor)) {
        self.weight.visit(&join_name(name, "weight"), visitor);
        self.bias.visit(&join_name(name, "bias"), visitor);
        self.adapter.visit(name, visitor);
    }

    fn visit_mut(&mut self, name: &str, visitor: &mut dyn FnMut(&str, &mut Tensor)) {
        self.weight.visit_mut(&join_name(name, "weight"), visitor);
        self.bias.visit_mut(&join_name(name, "bias"), visitor);
        self.adapter.visit_mut(name, visitor);
    }
}

impl Linear {
    /// A map of `inputs` to `outputs`, from `weight` and `bias` of these weights.
    ///
    /// # Errors
    /// When the weights are of other shapes.
    pub fn new(weights: Weights<'_>, inputs: usize, outputs: usize) -> Result<Linear> {
        let weight = weights.parameter("weight", &[outputs, inputs], Init::Normal)?;
        Ok(Linear { weight, bias: weights.parameter("bias", &[outputs], Init::Zeros)?, adapter: None })
    }

    /// `[.., inputs]` to `[.., outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.linear(&self.weight, &self.bias)?;
        Ok(match &self.adapter {
            Some(adapter) => y.add(&adapter.forward(x)?)?,
            None => y,
        })
    }

    /// As [`Linear::forward`], with GELU fused.
    pub fn forward_gelu(&self, x: &Tensor, gelu: Gelu) -> Result<Tensor> {
        match &self.adapter {
            Some(_) => Ok(self.forward(x)?.gelu(gelu)?),
            None => Ok(x.linear_gelu(&self.weight, &self.bias, gelu)?),
        }
    }
}

/// Normalisation of each row, then a scale and a shift.
#[derive(Clone)]
pub struct LayerNorm {
    /// Scale, `[H]`.
    pub weight: Tensor,
    /// Shift, `[H]`.
    pub bias: Tensor,
    /// Added to the variance.
    pub eps: f64,
}
module!(LayerNorm { weight, bias });

impl LayerNorm {
    /// A normalisation of rows of this width, from `weight` and `bias` of these weights.
    ///
    /// # Errors
    /// When the weights are of other shapes.
    pub fn new(weights: Weights<'_>, width: usize, eps: f64) -> Result<LayerNorm> {
        let weight = weights.parameter("weight", &[width], Init::Ones)?;
        Ok(LayerNorm { weight, bias: weights.parameter("bias", &[width], Init::Zeros)?, eps })
    }

    /// `[.., H]` to `[.., H]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.layer_norm(&self.weight, &self.bias, self.eps)?)
    }

    /// LayerNorm(residual + dropout(x)), both `[T, H]`, in one pass.
    pub fn residual(&self, x: &Tensor, residual: &Tensor, dropout: &Dropout, rows: &[RowCoordinate]) -> Result<Tensor> {
        Ok(x.residual_layer_norm(residual, &self.weight, &self.bias, self.eps, dropout, rows)?)
    }
}

/// A table of vectors.
#[derive(Clone)]
pub struct Embedding {
    /// `[entries, H]`
    pub weight: Tensor,
}
module!(Embedding { weight });

impl Embedding {
    /// A table of `entries` vectors of this width, from `weight` of these weights.
    ///
    /// # Errors
    /// When the weights are of another shape.
    pub fn new(weights: Weights<'_>, entries: usize, width: usize) -> Result<Embedding> {
        Ok(Embedding { weight: weights.parameter("weight", &[entries, width], Init::Normal)? })
    }
}
