//! What matrix products are computed in.

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// What matrix products of f32 tensors are computed in. Parameters, activations, normalisations, softmax, losses and
/// the optimizer are f32 in any case.
///
/// On the CPU operands are rounded on their way into a product, so no second copy of anything exists. Processors with
/// AVX512-BF16 (Zen 4 and later, Cooper Lake, Sapphire Rapids) multiply bf16 at twice the rate of f32, those with
/// AVX512-VNNI int8 at up to four times that. Everywhere else the results are as good and nothing is gained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32.
    #[default]
    F32,
    /// Operands are rounded to bf16 (8 bits of precision), sums are f32.
    Bf16,
    /// Operands are rounded to f16 (11 bits of precision), sums are f32: for GPUs before sm_80, such as the T4, whose tensor
    /// cores know no bf16. Each operand is scaled there by a power of two that makes the most of f16's range, so no loss has to
    /// be scaled; what is 2^39 times smaller than the largest element, in attention 2^24 times, is lost. On the CPU only the
    /// precision is that of f16, and nothing is gained.
    F16,
    /// For answering only: linear layers round each output's weights, and each token's activations when they come, to
    /// 8 bits of their own scale. Attention is f32.
    Int8,
}

thread_local! {
    static CURRENT: Cell<Precision> = const { Cell::new(Precision::F32) };
}

impl Precision {
    /// Runs `f` with this precision for the products that this thread asks for. A backward computes in what its forward
    /// did, wherever it is run.
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

    /// What this thread computes products in.
    pub fn current() -> Precision {
        CURRENT.get()
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
            .ok_or_else(|| Error::invalid("precision", format!("\"{name}\" is none: use f32, bf16, f16 or int8")))
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
        assert!(error.to_string().contains("\"fp16\" is none: use f32, bf16, f16 or int8"), "{error}");
        Ok(())
    }
}
