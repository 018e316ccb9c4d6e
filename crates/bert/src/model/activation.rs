//! The activation functions of a model ([`HiddenAct`]), on tensors.

use cloze_tensor::{Gelu, Tensor};

use crate::{HiddenAct, Result};

impl HiddenAct {
    /// Computes the activation of every element.
    ///
    /// # Errors
    /// Returns an error if memory runs out.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        match self {
            HiddenAct::Relu => Ok(x.relu()?),
            HiddenAct::Tanh => Ok(x.tanh()?),
            HiddenAct::Silu | HiddenAct::Swish => gated(x, 1.0),
            HiddenAct::QuickGelu => gated(x, 1.702),
            _ => Ok(x.gelu(self.gelu().unwrap_or(Gelu::Erf))?),
        }
    }
}

/// Computes x σ(b x), with the logistic function as σ(z) = (1 + tanh(z / 2)) / 2, which has kernels on every device.
fn gated(x: &Tensor, b: f64) -> Result<Tensor> {
    let sigmoid = x.mul_scalar(b / 2.0)?.tanh()?.mul_scalar(0.5)?.add_scalar(0.5)?;
    Ok(x.mul(&sigmoid)?)
}

#[cfg(test)]
mod tests {
    use cloze_tensor::{Device, Tensor};

    use super::*;

    /// The expected values are those of `ACT2FN` in `transformers` 5.23.
    #[test]
    fn activations_have_their_values() {
        let x = [-30.0f32, -3.0, -0.5, 0.0, 0.7, 2.0, 30.0];
        let expected: [(&[HiddenAct], [f32; 7]); 6] = [
            (&[HiddenAct::Gelu, HiddenAct::GeluPython], [-0.0, -0.004049694, -0.1542688, 0.0, 0.5306254, 1.9545, 30.0]),
            (
                &[
                    HiddenAct::GeluNew,
                    HiddenAct::GeluPytorchTanh,
                    HiddenAct::GeluPythonTanh,
                    HiddenAct::GeluFast,
                    HiddenAct::GeluAccurate,
                ],
                [-0.0, -0.003637392, -0.154286, 0.0, 0.5305701, 1.954598, 30.0],
            ),
            (&[HiddenAct::QuickGelu], [-2.00468e-21, -0.01807131, -0.1496116, 0.0, 0.536894, 1.935659, 30.0]),
            (&[HiddenAct::Relu], [0.0, 0.0, 0.0, 0.0, 0.7, 2.0, 30.0]),
            (
                &[HiddenAct::Silu, HiddenAct::Swish],
                [-2.807287e-12, -0.1422776, -0.1887703, 0.0, 0.4677314, 1.761594, 30.0],
            ),
            (&[HiddenAct::Tanh], [-1.0, -0.9950548, -0.4621172, 0.0, 0.6043678, 0.9640276, 1.0]),
        ];
        let tensor = Tensor::new(&x[..], &Device::Cpu).unwrap();
        let mut checked = 0;
        for (acts, expected) in expected {
            for act in acts {
                let values = act.forward(&tensor).unwrap().to_vec::<f32>().unwrap();
                let close = values.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 2e-6 * b.abs().max(1.0));
                assert!(close, "{act}: {values:?}, expected {expected:?}");
                checked += 1;
            }
        }
        assert_eq!(checked, HiddenAct::ALL.len());
    }
}
