//! Modules: structs with named parameters.

use crate::tensor::Tensor;

/// A struct with named parameters. Names are joined by dots and mirror the Hugging Face state dict:
/// `bert.encoder.layer.0.attention.self.query.weight`.
///
/// Implement it with [`module!`](crate::module).
pub trait Module {
    /// Calls `visitor` with each parameter and its name, in a fixed order.
    fn visit(&self, name: &str, visitor: &mut dyn FnMut(&str, &Tensor));

    /// Calls `visitor` as [`Module::visit`] does, for replacing parameters.
    fn visit_mut(&mut self, name: &str, visitor: &mut dyn FnMut(&str, &mut Tensor));

    /// Returns the number of parameter elements.
    fn parameter_count(&self) -> usize {
        let mut count = 0;
        self.visit("", &mut |_, parameter| count += parameter.elements());
        count
    }

    /// Returns every parameter with its name. These are further handles on the parameters: drop them before the next optimizer
    /// step.
    fn named_parameters(&self) -> Vec<(String, Tensor)> {
        let mut parameters = Vec::new();
        self.visit("", &mut |name, parameter| parameters.push((name.to_string(), parameter.clone())));
        parameters
    }
}

/// Returns `prefix.name`, or `name` at the root.
#[doc(hidden)]
pub fn join_name(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") }
}

/// Implements [`Module`] for a struct. Lists the fields that are parameters or modules, in the order in which they are
/// visited. If the name in the checkpoint differs from the name of the field, give it as a string.
///
/// ```
/// use cloze_tensor::{module, Tensor};
/// struct Linear { weight: Tensor, bias: Tensor }
/// module!(Linear { weight, bias });
/// struct Output { dense: Linear, norm: Linear }
/// module!(Output { dense, norm: "LayerNorm" });
/// ```
#[macro_export]
macro_rules! module {
    ($type:ident { $($field:ident $(: $name:literal)?),* $(,)? }) => {
        impl $crate::Module for $type {
            fn visit(&self, name: &str, visitor: &mut dyn FnMut(&str, &$crate::Tensor)) {
                $($crate::Module::visit(
                    &self.$field, &$crate::join_name(name, $crate::module!(@name $field $($name)?)), visitor,
                );)*
            }

            fn visit_mut(&mut self, name: &str, visitor: &mut dyn FnMut(&str, &mut $crate::Tensor)) {
                $($crate::Module::visit_mut(
                    &mut self.$field, &$crate::join_name(name, $crate::module!(@name $field $($name)?)), visitor,
                );)*
            }
        }
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $name:literal) => { $name };
}

impl Module for Tensor {
    fn visit(&self, name: &str, visitor: &mut dyn FnMut(&str, &Tensor)) {
        visitor(name, self);
    }

    fn visit_mut(&mut self, name: &str, visitor: &mut dyn FnMut(&str, &mut Tensor)) {
        visitor(name, self);
    }
}

impl<M: Module> Module for Vec<M> {
    fn visit(&self, name: &str, visitor: &mut dyn FnMut(&str, &Tensor)) {
        self.iter().enumerate().for_each(|(i, module)| module.visit(&join_name(name, &i.to_string()), visitor));
    }

    fn visit_mut(&mut self, name: &str, visitor: &mut dyn FnMut(&str, &mut Tensor)) {
        self.iter_mut().enumerate().for_each(|(i, module)| module.visit_mut(&join_name(name, &i.to_string()), visitor));
    }
}

impl<M: Module> Module for Option<M> {
    fn visit(&self, name: &str, visitor: &mut dyn FnMut(&str, &Tensor)) {
        self.iter().for_each(|module| module.visit(name, visitor));
    }

    fn visit_mut(&mut self, name: &str, visitor: &mut dyn FnMut(&str, &mut Tensor)) {
        self.iter_mut().for_each(|module| module.visit_mut(name, visitor));
    }
}
