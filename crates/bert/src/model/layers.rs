//! The layers that every part of the model consists of: linear layers with their low-rank adapters, LayerNorm,
//! embedding tables.
//!
//! A linear layer with an adapter computes x Wᵀ + b + s (x Aᵀ) Bᵀ, and adds s times the bias of B where it has one.
//! Only this file evaluates adapters: the rest of the model calls [`Linear::forward`], [`projections`] and
//! [`feed_forward`], which fuse what they can without adapters.

use cloze_tensor::{Dropout, Module, RowCoordinate, Tensor, join_name, module};

use crate::weights::{Init, Weights};
use crate::{HiddenAct, Result};

/// A linear layer, y = x Wᵀ + b.
#[derive(Clone)]
pub struct Linear {
    /// W, `[outputs, inputs]`
    pub weight: Tensor,
    /// b, `[outputs]`
    pub bias: Tensor,
    /// The low-rank correction that is added to y, if the layer has one.
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
    /// Creates a layer from `inputs` to `outputs` features with the parameters `weight` and `bias` of `weights`.
    ///
    /// # Errors
    /// Returns an error if the checkpoint has them in another shape.
    pub fn new(weights: Weights<'_>, inputs: usize, outputs: usize) -> Result<Linear> {
        let weight = weights.parameter("weight", &[outputs, inputs], Init::Normal)?;
        Ok(Linear { weight, bias: weights.parameter("bias", &[outputs], Init::Zeros)?, adapter: None })
    }

    /// Computes `[.., outputs]` from `[.., inputs]`.
    ///
    /// # Errors
    /// Returns an error if the shapes do not match.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.linear(&self.weight, &self.bias)?;
        Ok(match &self.adapter {
            Some(adapter) => y.add(&adapter.forward(x)?)?,
            None => y,
        })
    }

    /// Computes an activation of [`forward`](Linear::forward).
    ///
    /// # Errors
    /// Returns an error if the shapes do not match.
    pub fn forward_act(&self, x: &Tensor, act: HiddenAct) -> Result<Tensor> {
        match (&self.adapter, act.gelu()) {
            (None, Some(gelu)) => Ok(x.linear_gelu(&self.weight, &self.bias, gelu)?),
            _ => act.forward(&self.forward(x)?),
        }
    }
}

/// The low-rank correction of a linear layer: s B A is added to its weight
/// ([`LoraConfig`](crate::LoraConfig)).
#[derive(Clone)]
pub struct Adapter {
    /// A, `[r, inputs]`
    pub lora_a: Tensor,
    /// B, `[outputs, r]`
    pub lora_b: Tensor,
    /// The bias of B, `[outputs]`, which is scaled like it, in adapters that have one (`lora_bias` in `peft`).
    pub bias: Option<Tensor>,
    /// s = alpha / r
    pub scale: f64,
}
module!(Adapter { lora_a: "lora_A.weight", lora_b: "lora_B.weight", bias: "lora_B.bias" });

impl Adapter {
    /// Computes the correction of the output, `[.., outputs]`, from `[.., inputs]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let low = x.matmul(&self.lora_a.t()?)?; // [.., r]
        let correction = match &self.bias {
            Some(bias) => low.linear(&self.lora_b, bias)?,
            None => low.matmul(&self.lora_b.t()?)?,
        };
        Ok(correction.mul_scalar(self.scale)?)
    }

    /// Computes the correction of the weight, s B A: `[outputs, inputs]`.
    pub(super) fn product(&self) -> Result<Tensor> {
        Ok(self.lora_b.detach().matmul(&self.lora_a.detach())?.mul_scalar(self.scale)?)
    }
}

/// Computes the outputs of three layers on the same input side by side, as one matrix product: `[T, H]` to `[T, 3H]`.
pub(super) fn projections(layers: [&Linear; 3], x: &Tensor) -> Result<Tensor> {
    let qkv = x.projections(&layers.map(|linear| (&linear.weight, &linear.bias)))?;
    if layers.iter().all(|linear| linear.adapter.is_none()) {
        return Ok(qkv);
    }
    let correction = |linear: &Linear| match &linear.adapter {
        Some(adapter) => adapter.forward(x),
        None => Ok(Tensor::zeros(x.shape(), x.dtype(), &x.device())?),
    };
    let corrections = layers.map(correction).into_iter().collect::<Result<Vec<_>>>()?;
    Ok(qkv.add(&Tensor::concat(&corrections.iter().collect::<Vec<_>>(), x.rank() - 1)?)?)
}

/// Computes the feed-forward network, `outer(act(inner(x)))`: `[R, H]` to `[R, H]`.
pub(super) fn feed_forward(inner: &Linear, outer: &Linear, act: HiddenAct, x: &Tensor) -> Result<Tensor> {
    match (&inner.adapter, &outer.adapter, act.gelu()) {
        (None, None, Some(gelu)) => {
            Ok(x.feed_forward((&inner.weight, &inner.bias), gelu, (&outer.weight, &outer.bias))?)
        }
        _ => outer.forward(&inner.forward_act(x, act)?),
    }
}

/// Layer normalisation of each row, with a learned scale and shift.
#[derive(Clone)]
pub struct LayerNorm {
    /// The scale, `[H]`.
    pub weight: Tensor,
    /// The shift, `[H]`.
    pub bias: Tensor,
    /// The number added to the variance.
    pub eps: f64,
}
module!(LayerNorm { weight, bias });

impl LayerNorm {
    /// Creates a normalisation of rows of `width` elements with the parameters `weight` and `bias` of `weights`.
    ///
    /// # Errors
    /// Returns an error if the checkpoint has them in another shape.
    pub fn new(weights: Weights<'_>, width: usize, eps: f64) -> Result<LayerNorm> {
        let weight = weights.parameter("weight", &[width], Init::Ones)?;
        Ok(LayerNorm { weight, bias: weights.parameter("bias", &[width], Init::Zeros)?, eps })
    }

    /// Normalises each row: `[.., H]` to `[.., H]`.
    ///
    /// # Errors
    /// Returns an error if the rows have another width.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.layer_norm(&self.weight, &self.bias, self.eps)?)
    }

    /// Computes LayerNorm(residual + dropout(x)) in one pass; `x` and `residual` are `[T, H]`, `rows` has the
    /// coordinates that their dropout masks depend on.
    ///
    /// # Errors
    /// Returns an error if the shapes do not match.
    pub fn residual(&self, x: &Tensor, residual: &Tensor, dropout: &Dropout, rows: &[RowCoordinate]) -> Result<Tensor> {
        Ok(x.residual_layer_norm(residual, &self.weight, &self.bias, self.eps, dropout, rows)?)
    }
}

/// A table of vectors, looked up by id.
#[derive(Clone)]
pub struct Embedding {
    /// `[entries, H]`
    pub weight: Tensor,
}
module!(Embedding { weight });

impl Embedding {
    /// Creates a table of `entries` vectors of `width` elements with the parameter `weight` of `weights`.
    ///
    /// # Errors
    /// Returns an error if the checkpoint has it in another shape.
    pub fn new(weights: Weights<'_>, entries: usize, width: usize) -> Result<Embedding> {
        Ok(Embedding { weight: weights.parameter("weight", &[entries, width], Init::Normal)? })
    }
}
