//! The two forms of GELU.

/// A form of GELU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Gelu {
    /// `x / 2 (1 + erf(x / √2))`: BERT's (`gelu` in a checkpoint's configuration).
    #[default]
    Erf,
    /// `x / 2 (1 + tanh(√(2/π) (x + 0.044715 x³)))` (`gelu_new`).
    Tanh,
}
