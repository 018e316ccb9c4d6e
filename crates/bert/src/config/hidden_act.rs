//! The activation functions: `hidden_act` of `config.json`.

use std::fmt;

use cloze_tensor::Gelu;

/// The activation between the two layers of a feed-forward network. Functions with several names in `transformers` have
/// one value for each, so that a configuration is written as it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HiddenAct {
    /// `gelu`: x Φ(x), with the error function, as in BERT.
    #[default]
    Gelu,
    /// `gelu_python`: another name of [`Gelu`](HiddenAct::Gelu).
    GeluPython,
    /// `gelu_new`: the tanh approximation, 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))).
    GeluNew,
    /// `gelu_pytorch_tanh`: another name of [`GeluNew`](HiddenAct::GeluNew).
    GeluPytorchTanh,
    /// `gelu_python_tanh`: another name of [`GeluNew`](HiddenAct::GeluNew).
    GeluPythonTanh,
    /// `gelu_fast`: another name of [`GeluNew`](HiddenAct::GeluNew).
    GeluFast,
    /// `gelu_accurate`: another name of [`GeluNew`](HiddenAct::GeluNew).
    GeluAccurate,
    /// `quick_gelu`: x σ(1.702 x), where σ is the logistic function.
    QuickGelu,
    /// `relu`: max(x, 0).
    Relu,
    /// `silu`: x σ(x).
    Silu,
    /// `swish`: another name of [`Silu`](HiddenAct::Silu).
    Swish,
    /// `tanh`: the hyperbolic tangent.
    Tanh,
}

impl HiddenAct {
    /// All values.
    pub const ALL: [HiddenAct; 12] = [
        HiddenAct::Gelu,
        HiddenAct::GeluPython,
        HiddenAct::GeluNew,
        HiddenAct::GeluPytorchTanh,
        HiddenAct::GeluPythonTanh,
        HiddenAct::GeluFast,
        HiddenAct::GeluAccurate,
        HiddenAct::QuickGelu,
        HiddenAct::Relu,
        HiddenAct::Silu,
        HiddenAct::Swish,
        HiddenAct::Tanh,
    ];

    /// Returns the name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            HiddenAct::Gelu => "gelu",
            HiddenAct::GeluPython => "gelu_python",
            HiddenAct::GeluNew => "gelu_new",
            HiddenAct::GeluPytorchTanh => "gelu_pytorch_tanh",
            HiddenAct::GeluPythonTanh => "gelu_python_tanh",
            HiddenAct::GeluFast => "gelu_fast",
            HiddenAct::GeluAccurate => "gelu_accurate",
            HiddenAct::QuickGelu => "quick_gelu",
            HiddenAct::Relu => "relu",
            HiddenAct::Silu => "silu",
            HiddenAct::Swish => "swish",
            HiddenAct::Tanh => "tanh",
        }
    }

    /// Returns the activation of this name in `config.json`.
    pub fn from_name(name: &str) -> Option<HiddenAct> {
        HiddenAct::ALL.into_iter().find(|act| act.name() == name)
    }

    /// Returns the form of GELU that the activation is, which a linear layer computes along with its product. `None` if
    /// it is another function.
    pub fn gelu(self) -> Option<Gelu> {
        match self {
            HiddenAct::Gelu | HiddenAct::GeluPython => Some(Gelu::Erf),
            HiddenAct::GeluNew
            | HiddenAct::GeluPytorchTanh
            | HiddenAct::GeluPythonTanh
            | HiddenAct::GeluFast
            | HiddenAct::GeluAccurate => Some(Gelu::Tanh),
            HiddenAct::QuickGelu | HiddenAct::Relu | HiddenAct::Silu | HiddenAct::Swish | HiddenAct::Tanh => None,
        }
    }
}

impl fmt::Display for HiddenAct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
