//! The activation functions: `hidden_act` of `config.json`.

use std::fmt;

use cloze_tensor::Gelu;

/// The activation between the two layers of a feed-forward network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HiddenAct {
    /// `gelu`: x Φ(x), with the error function, as in BERT.
    #[default]
    Gelu,
    /// `gelu_new`: the tanh approximation, 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))).
    GeluNew,
    /// `gelu_pytorch_tanh`: another name of [`GeluNew`](HiddenAct::GeluNew).
    GeluPytorchTanh,
}

impl HiddenAct {
    /// All values.
    pub const ALL: [HiddenAct; 3] = [HiddenAct::Gelu, HiddenAct::GeluNew, HiddenAct::GeluPytorchTanh];

    /// Returns the name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            HiddenAct::Gelu => "gelu",
            HiddenAct::GeluNew => "gelu_new",
            HiddenAct::GeluPytorchTanh => "gelu_pytorch_tanh",
        }
    }

    /// Returns the activation of this name in `config.json`.
    pub fn from_name(name: &str) -> Option<HiddenAct> {
        HiddenAct::ALL.into_iter().find(|act| act.name() == name)
    }

    /// Returns whether the activation is the tanh approximation of GELU.
    pub fn is_tanh(self) -> bool {
        self != HiddenAct::Gelu
    }
}

impl From<HiddenAct> for Gelu {
    fn from(act: HiddenAct) -> Gelu {
        if act.is_tanh() { Gelu::Tanh } else { Gelu::Erf }
    }
}

impl fmt::Display for HiddenAct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
