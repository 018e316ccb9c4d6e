//! The `Dense` module of `sentence-transformers`: a linear layer with an activation, after the pooling.

use std::path::Path;

use cloze_tensor::{DType, Device, Gelu, Module, Tensor, join_name, save_safetensors};
use serde_json::{Value, json};

use crate::checkpoint::{WEIGHTS_FILE, open_weights};
use crate::files::{create_folder, replace};
use crate::folder::Folder;
use crate::side_file::{Kind, SideFile};
use crate::{Error, Result};

/// The feature that modules after the pooling read and write.
const FEATURE: &str = "sentence_embedding";

/// A linear layer with an activation, f(x Wᵀ + b), and x added to it in a residual layer.
#[derive(Clone)]
pub(super) struct Dense {
    /// `[outputs, inputs]`
    weight: Tensor,
    /// `[outputs]`
    bias: Option<Tensor>,
    activation: Activation,
    residual: bool,
}

impl Module for Dense {
    fn visit(&self, name: &str, visitor: &mut dyn FnMut(&str, &Tensor)) {
        self.weight.visit(&join_name(name, "weight"), visitor);
        self.bias.visit(&join_name(name, "bias"), visitor);
    }

    fn visit_mut(&mut self, name: &str, visitor: &mut dyn FnMut(&str, &mut Tensor)) {
        self.weight.visit_mut(&join_name(name, "weight"), visitor);
        self.bias.visit_mut(&join_name(name, "bias"), visitor);
    }
}

impl Dense {
    /// Reads the module in `folder`, whose input has `inputs` features.
    pub(super) fn open(folder: &Folder, inputs: usize, device: &Device) -> Result<Dense> {
        let mut file = SideFile::open(&folder.get("config.json")?, Kind::Dense)?;
        check_features(&mut file)?;
        let (stored, outputs) = (file.size("in_features")?, file.size("out_features")?);
        let size = |found: Option<usize>, name: &str| found.ok_or_else(|| file.wrong(format!("{name} is missing")));
        let (stored, outputs) = (size(stored, "in_features")?, size(outputs, "out_features")?);
        if stored != inputs {
            return Err(file.refuse(
                "in_features",
                &stored.into(),
                &format!("must be {inputs}, as the modules before it compute"),
            ));
        }
        let has_bias = file.flag("bias")?.unwrap_or(true);
        let must = format!("must be one of {}", Activation::ALL.map(Activation::class).join(", "));
        let activation = file.read("activation_function", &must, Activation::from_class)?.unwrap_or(Activation::Tanh);
        let residual = file.flag("use_residual")?.unwrap_or(false);
        if residual && inputs != outputs {
            let must = "must be false where in_features and out_features differ";
            return Err(file.refuse("use_residual", &true.into(), must));
        }
        let weights = open_weights(folder)?;
        if !has_bias && weights.names().iter().any(|name| name == "linear.bias") {
            return Err(file.refuse("bias", &false.into(), "must be true, because the weights have linear.bias"));
        }
        file.finish()?;

        let read = |name: &str, shape: &[usize]| -> Result<Tensor> {
            let tensor = weights.tensor(name, device)?;
            if tensor.shape() != shape {
                let reason = format!("{name} has shape {:?}, its config.json requires {shape:?}", tensor.shape());
                return Err(Error::format(weights.path(), reason));
            }
            let tensor = tensor.to_dtype(DType::F32)?;
            match tensor.to_vec::<f32>()?.iter().position(|value| !value.is_finite()) {
                Some(at) => Err(Error::format(weights.path(), format!("{name} is not finite at element {at}"))),
                None => Ok(tensor.requires_grad()),
            }
        };
        let weight = read("linear.weight", &[outputs, inputs])?;
        let bias = if has_bias { Some(read("linear.bias", &[outputs])?) } else { None };
        Ok(Dense { weight, bias, activation, residual })
    }

    /// Returns the number of outputs.
    pub(super) fn outputs(&self) -> usize {
        self.weight.shape()[0]
    }

    /// Computes `[B, outputs]` from `[B, inputs]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = match &self.bias {
            Some(bias) => x.linear(&self.weight, bias)?,
            None => x.matmul(&self.weight.t()?)?,
        };
        let y = self.activation.forward(&y)?;
        Ok(if self.residual { y.add(x)? } else { y })
    }

    /// Writes the settings and the weights into the folder `dir`.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let mut config = json!({
            "in_features": self.weight.shape()[1], "out_features": self.outputs(), "bias": self.bias.is_some(),
            "activation_function": self.activation.class(),
        });
        // Older versions do not know the field.
        if self.residual {
            config["use_residual"] = json!(true);
        }
        create_folder(dir)?;
        let bias = self.bias.iter().map(|bias| ("linear.bias".to_string(), bias.detach()));
        let tensors: Vec<_> = bias.chain([("linear.weight".to_string(), self.weight.detach())]).collect();
        save_safetensors(dir.join(WEIGHTS_FILE), tensors, &[("format", "pt")])?;
        replace(&dir.join("config.json"), format!("{config:#}\n").as_bytes())
    }
}

/// Returns an error if a module reads or writes anything but the vector of the sentence.
pub(super) fn check_features(file: &mut SideFile) -> Result<()> {
    file.only("module_input_name", &json!(FEATURE))?;
    file.only("module_output_name", &json!(FEATURE))
}

/// The activation of a dense layer or a cross-encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    Identity,
    Tanh,
    Relu,
    Gelu,
    Sigmoid,
}

impl Activation {
    const ALL: [Activation; 5] =
        [Activation::Identity, Activation::Tanh, Activation::Relu, Activation::Gelu, Activation::Sigmoid];

    /// Returns the name of the class in PyTorch.
    fn class(self) -> &'static str {
        match self {
            Activation::Identity => "torch.nn.modules.linear.Identity",
            Activation::Tanh => "torch.nn.modules.activation.Tanh",
            Activation::Relu => "torch.nn.modules.activation.ReLU",
            Activation::Gelu => "torch.nn.modules.activation.GELU",
            Activation::Sigmoid => "torch.nn.modules.activation.Sigmoid",
        }
    }

    /// Returns the activation of a class, whose module depends on how it was imported: `torch.nn.Tanh` is the same.
    fn from_class(class: &Value) -> Option<Activation> {
        let (module, class) = class.as_str()?.rsplit_once('.')?;
        let same = |activation: &Activation| activation.class().rsplit('.').next() == Some(class);
        Activation::ALL.into_iter().find(same).filter(|_| module.starts_with("torch."))
    }

    /// The values that [`of_scores`](Activation::of_scores) accepts, for an error message.
    pub(crate) const OF_SCORES: &str =
        "must be torch.nn.modules.linear.Identity or torch.nn.modules.activation.Sigmoid";

    /// Returns the activation of a class that a cross-encoder may have.
    pub(crate) fn of_scores(class: &Value) -> Option<Activation> {
        let known = |activation: &Activation| matches!(activation, Activation::Identity | Activation::Sigmoid);
        Activation::from_class(class).filter(known)
    }

    fn forward(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Activation::Identity => x.clone(),
            Activation::Tanh => x.tanh()?,
            Activation::Relu => x.relu()?,
            Activation::Gelu => x.gelu(Gelu::Erf)?,
            // σ(x) = (1 + tanh(x / 2)) / 2
            Activation::Sigmoid => x.mul_scalar(0.5)?.tanh()?.add_scalar(1.0)?.mul_scalar(0.5)?,
        })
    }
}
