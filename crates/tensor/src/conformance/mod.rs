//! The conformance harness: the cases of every operation against independent oracles.
//!
//! An operation lists its cases, one line each, in its own file. For each case the harness compares
//!
//! 1. the gradients in f64 with central finite differences, to 1e-6 of the largest gradient;
//! 2. the gradients of `x + f(x)`, if the shapes allow it, where two contributions to one gradient meet;
//! 3. the f32 and bf16 code, forward and backward, at every SIMD level and on a GPU, with f64, also with parameters in f32
//!    beside inputs in bf16;
//! 4. inputs that are transposed, sliced or repeated in memory with row-major inputs.
//!
//! `extremes` adds cases at the edges of the number range for check 3, and compares f64 itself with formulas there.
//!
//! A coverage test fails if an operation has no case. A mutation test spoils each backward in turn and requires check 1 to
//! fail.

mod checks;
mod extremes;
mod input;

pub(crate) use checks::assert_same_with_gradients;
pub(crate) use input::{Input, normal, positive};

use crate::dropout::RowCoordinate;
use crate::error::Result;
use crate::sequences::Sequences;
use crate::tensor::Tensor;

type Function = Box<dyn Fn(&[Tensor]) -> Result<Tensor>>;

/// An operation and its inputs.
pub(crate) struct Case {
    op: &'static str,
    label: String,
    inputs: Vec<Input>,
    function: Function,
}

impl Case {
    /// Returns the case `x + f(x)` for the first input `x`, or `None` if the shapes differ.
    #[cfg(test)]
    fn beside_a_residual(self) -> Option<Case> {
        let inputs: Vec<Tensor> = self.inputs.iter().map(Input::tensor).collect();
        let output = (self.function)(&inputs).ok()?;
        let function = self.function;
        (output.shape() == inputs[0].shape()).then_some(Case {
            function: Box::new(move |x| x[0].add(&function(x)?)),
            op: self.op,
            label: self.label,
            inputs: self.inputs,
        })
    }
}

/// The cases of all operations.
#[derive(Default)]
pub(crate) struct Cases(Vec<Case>);

impl Cases {
    /// Adds a case of `op`: `function` applies it to tensors made from `inputs`.
    pub(crate) fn add<const N: usize>(
        &mut self,
        op: &'static str,
        label: &str,
        inputs: [Input; N],
        function: impl Fn(&[Tensor]) -> Result<Tensor> + 'static,
    ) {
        let shapes: Vec<&[usize]> = inputs.iter().map(Input::shape).collect();
        let label = format!("{op} ({label}) {shapes:?}");
        self.0.push(Case { op, label, inputs: inputs.to_vec(), function: Box::new(function) });
    }
}

/// Returns the coordinates of the rows of sequences of these lengths.
pub(crate) fn rows_of(lengths: &[usize]) -> Vec<RowCoordinate> {
    Sequences::new(lengths).map(|sequences| sequences.rows().to_vec()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::autograd::mutation;
    use crate::cpu::simd;
    use crate::device::Device;
    use crate::dtype::DType;
    use crate::error::Error;
    use crate::ops;
    use crate::precision::Precision;

    #[test]
    #[cfg_attr(miri, ignore = "runs every operation hundreds of times, as the others do once")]
    fn gradients_agree_with_finite_differences() {
        for case in ops::cases().0 {
            checks::finite_differences(&case).unwrap_or_else(|message| panic!("{}: {message}", case.label));
        }
    }

    #[test]
    fn every_precision_agrees_with_f64_at_every_simd_level() {
        let mut failures = Vec::new();
        simd::testing::at_each_level(|level| {
            for case in ops::cases().0 {
                // Tolerances are relative to the largest value. In f32 all operations meet 3e-6, except soft_cross_entropy,
                // whose targets have both signs here and cancel.
                let types = [
                    ([DType::F32; 2], Precision::F32, 5e-6),
                    ([DType::F32; 2], Precision::Bf16, 2e-2),
                    ([DType::F32; 2], Precision::F16, 3e-3),
                    ([DType::BF16; 2], Precision::F32, 4e-2),
                    ([DType::BF16, DType::F32], Precision::Bf16, 4e-2),
                ];
                for (dtypes, precision, tolerance) in types {
                    if let Err(message) =
                        precision.scope(|| checks::narrow_types(&case, dtypes, tolerance, &Device::Cpu))
                    {
                        failures.push(format!("{} of {dtypes:?} in {precision}, {level:?}: {message}", case.label));
                    }
                }
            }
        });
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }

    /// Runs on a GPU, or on the emulator that `kernels/emulator` builds.
    #[cfg(feature = "cuda")]
    #[test]
    fn a_gpu_agrees_with_f64() {
        let device = match Device::cuda(0) {
            Ok(device) => device,
            Err(error) if std::env::var_os("CLOZE_REQUIRE_GPU").is_some() => panic!("{error}"),
            Err(error) => return println!("SKIPPED: {error}"),
        };
        let mut failures = Vec::new();
        for case in ops::cases().0 {
            let types = [
                ([DType::F32; 2], Precision::F32, 5e-6),
                ([DType::F32; 2], Precision::Bf16, 2e-2),
                ([DType::F32; 2], Precision::F16, 3e-3),
                ([DType::BF16; 2], Precision::F32, 4e-2),
                ([DType::F16; 2], Precision::F32, 5e-3),
                ([DType::BF16, DType::F32], Precision::Bf16, 4e-2),
                ([DType::F16, DType::F32], Precision::F16, 5e-3),
            ];
            for (dtypes, precision, tolerance) in types {
                // A GPU refuses precisions that it does not support.
                if !device.supports(precision) {
                    continue;
                }
                if let Err(message) = precision.scope(|| checks::narrow_types(&case, dtypes, tolerance, &device)) {
                    failures.push(format!("{} of {dtypes:?} in {precision}: {message}", case.label));
                }
            }
        }
        assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    }

    /// In `x + f(x)`, the gradient of x has two contributions, one of which is the gradient of the sum itself.
    #[test]
    #[cfg_attr(miri, ignore = "runs every operation hundreds of times, as the others do once")]
    fn gradients_beside_a_residual_agree_with_finite_differences() {
        let mut checked = 0;
        for case in ops::cases().0 {
            if let Some(case) = case.beside_a_residual() {
                checked += 1;
                checks::finite_differences(&case).unwrap_or_else(|message| panic!("x + {}: {message}", case.label));
            }
        }
        assert!(checked > 20, "only {checked} cases have the shape of their first input");
    }

    #[test]
    fn every_layout_gives_the_same_results() {
        for case in ops::cases().0 {
            checks::layouts(&case).unwrap_or_else(|message| panic!("{}: {message}", case.label));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "runs every operation hundreds of times, as the others do once")]
    fn every_operation_has_a_case_and_a_backward_that_runs() {
        let covered: HashSet<&str> = ops::cases().0.iter().map(|case| case.op).collect();
        for op in ops::REGISTRY {
            assert!(covered.contains(op), "{op} has no conformance case");
        }
        for case in ops::cases().0 {
            assert!(ops::REGISTRY.contains(&case.op), "{} is not in the registry of operations", case.op);
        }
        mutation::record_walked();
        gradients_agree_with_finite_differences();
        let walked = mutation::walked();
        for op in ops::REGISTRY {
            assert!(walked.contains(op), "no case ran the backward of {op}");
        }
        for op in walked {
            assert!(ops::REGISTRY.contains(&op), "{op} records nodes but is not in the registry");
        }
    }

    /// A backward that is off by 0.1 % must fail the gradient check.
    #[test]
    #[cfg_attr(miri, ignore = "runs every operation hundreds of times, as the others do once")]
    fn the_gradient_check_notices_a_spoiled_backward() {
        for op in ops::REGISTRY {
            mutation::spoil(Some(op));
            let noticed = ops::cases().0.iter().any(|case| case.op == *op && checks::finite_differences(case).is_err());
            mutation::spoil(None);
            assert!(noticed, "a backward of {op} that is off by 0.1 % passes");
        }
    }

    #[test]
    fn an_operation_without_backward_refuses() -> Result<()> {
        let x = normal(&[2, 3]).tensor().requires_grad();
        assert!(x.to_dtype(DType::I64).is_err());
        assert!(crate::autograd::no_grad(|| x.to_dtype(DType::I64)).is_ok());
        Ok::<(), Error>(())
    }
}
