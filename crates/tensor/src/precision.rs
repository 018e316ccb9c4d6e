//! The precision of matrix products.

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;

use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};

/// The precision of matrix products of f32 tensors. Parameters, normalisations, softmax, losses and the optimizer are f32 in
/// any case, and so are activations, except in bf16 on a GPU, where those of a model's layers are
/// [bf16 in memory](Precision::activations).
///
/// On the CPU, operands are rounded on their way into a product, so no second copy of them exists. Processors with
/// AVX512-BF16 (Zen 4 and later, Cooper Lake, Sapphire Rapids) multiply bf16 at twice the rate of f32; others multiply it at
/// the rate of f32, and those without AVX-512 keep packed weights in half the memory. int8 is multiplied at up to four times the rate of f32 with
/// VNNI, and at nearly twice the rate with AVX2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32.
    #[default]
    F32,
    /// Operands are rounded to bf16 (8 bits of precision), sums are f32.
    Bf16,
    /// Operands are rounded to f16 (11 bits of precision), sums are f32. This is for GPUs before sm_80, such as the T4, whose
    /// tensor cores lack bf16. There, each operand is scaled by a power of two into the range of f16, so losses need no
    /// scaling; elements 2^39 times smaller than the largest one (2^24 times in attention) become zero. On the CPU, operands
    /// only have the precision of f16, and products are not faster than in f32.
    F16,
    /// For inference only: linear layers round the weights of each output to 129 levels and the activations of each token to
    /// 255, with a scale per row. The sums are exact, so every processor computes the same bits. All other products are f32.
    Int8,
}

thread_local! {
    static CURRENT: Cell<Precision> = const { Cell::new(Precision::F32) };
}

impl Precision {
    /// Runs `f` with this precision for the products of the current thread. A backward always uses the precision of its
    /// forward.
    ///
    /// ```
    /// use cloze_tensor::{Device, Precision, Tensor};
    /// let third = Tensor::new([[1f32 / 3.0]], &Device::Cpu)?;
    /// let product = Precision::Bf16.scope(|| third.matmul(&third))?;
    /// assert_eq!(product.item()?, 0.333984375 * 0.333984375);
    /// # Ok::<(), cloze_tensor::Error>(())
    /// ```
    pub fn scope<R>(self, f: impl FnOnce() -> R) -> R {
        struct Restore(Precision);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let _restore = Restore(CURRENT.replace(self));
        f()
    }

    /// Returns the precision that the current thread computes products in.
    pub fn current() -> Precision {
        CURRENT.get()
    }

    /// Returns the type that the activations of a model's layers, and the gradients between its operations, have in memory:
    /// bf16 with [`Precision::Bf16`] on a GPU that multiplies it, f32 otherwise. Operations on bf16 tensors compute in f32, and
    /// their parameters may be f32.
    pub fn activations(self, device: &Device) -> DType {
        match self {
            Precision::Bf16 if !device.is_cpu() && device.supports(self) => DType::BF16,
            _ => DType::F32,
        }
    }

    /// Returns the precision for operands that have no scales for int8: all but those of linear layers.
    pub(crate) fn without_scales(self) -> Precision {
        if self == Precision::Int8 { Precision::F32 } else { self }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
            Precision::Int8 => "int8",
        })
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Precision> {
        [Precision::F32, Precision::Bf16, Precision::F16, Precision::Int8]
            .into_iter()
            .find(|precision| precision.to_string() == name)
            .ok_or_else(|| {
                Error::invalid("precision", format!("unknown precision `{name}`: use f32, bf16, f16 or int8"))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_nest_and_end() {
        assert_eq!(Precision::current(), Precision::F32);
        Precision::Bf16.scope(|| {
            assert_eq!(Precision::F32.scope(Precision::current), Precision::F32);
            assert_eq!(Precision::current(), Precision::Bf16);
        });
        assert_eq!(Precision::current(), Precision::F32);
    }

    #[test]
    fn names_are_read_and_others_refused() -> Result<()> {
        assert_eq!("bf16".parse::<Precision>()?, Precision::Bf16);
        let Err(error) = "fp16".parse::<Precision>() else { panic!("accepted") };
        assert!(error.to_string().contains("unknown precision `fp16`: use f32, bf16, f16 or int8"), "{error}");
        Ok(())
    }
}
