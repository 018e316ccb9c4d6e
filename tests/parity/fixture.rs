//! A fixture: a small model, a batch, and the results of transformers.

use std::path::{Path, PathBuf};

use cloze::bert::Batch;
use cloze::tensor::{Device, Gradients, Module, Sequences, Tensor, TensorFile};

use crate::Result;

/// Two heads of size 24 and erf GELU; three heads and tanh GELU; five heads, one layer and one token type.
pub const BERTS: [&str; 3] = ["head_size_24", "three_heads_tanh", "one_token_type"];

/// Returns the CPU, or the device named by `CLOZE_TEST_DEVICE`.
pub fn device() -> Device {
    std::env::var("CLOZE_TEST_DEVICE")
        .map_or(Device::Cpu, |name| name.parse().unwrap_or_else(|error| panic!("{error}")))
}

pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/fixtures").join(name)
}

pub struct Fixture {
    name: String,
    expected: TensorFile,
    pub batch: Batch,
}

impl Fixture {
    pub fn open(name: &str) -> Result<Fixture> {
        let expected = TensorFile::open(folder(name).join("expected.safetensors"))?;
        let integers = |name: &str| -> Result<Vec<i64>> { Ok(expected.tensor(name, &Device::Cpu)?.to_vec()?) };
        let lengths: Vec<usize> = integers("lengths")?.into_iter().map(|length| length as usize).collect();
        let unsigned = |values: Vec<i64>| values.into_iter().map(|value| value as u32).collect::<Vec<u32>>();
        let (ids, token_types) = (unsigned(integers("ids")?), unsigned(integers("token_types")?));
        let batch = Batch::packed(ids, token_types, Sequences::new(&lengths)?)?;
        Ok(Fixture { name: name.to_string(), expected, batch })
    }

    pub fn folder(&self) -> PathBuf {
        folder(&self.name)
    }

    pub fn names(&self) -> Vec<String> {
        self.expected.names()
    }

    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        Ok(self.expected.tensor(name, &Device::Cpu)?)
    }

    pub fn floats(&self, name: &str) -> Result<Vec<f32>> {
        Ok(self.tensor(name)?.to_vec()?)
    }

    pub fn integers(&self, name: &str) -> Result<Vec<i64>> {
        Ok(self.tensor(name)?.to_vec()?)
    }

    /// Returns the rows of the batch to predict.
    pub fn target_rows(&self) -> Result<Vec<u32>> {
        Ok(self.integers("target_rows")?.into_iter().map(|row| row as u32).collect())
    }

    /// Asserts that `computed` has the expected shape, and that no element differs by more than `tolerance`.
    pub fn check(&self, name: &str, computed: &Tensor, tolerance: f32) -> Result {
        let expected = self.tensor(name)?;
        assert_eq!(computed.shape(), expected.shape(), "{}: {name}", self.name);
        self.near(name, &computed.to_vec()?, &expected.to_vec()?, tolerance);
        Ok(())
    }

    pub fn near(&self, name: &str, computed: &[f32], expected: &[f32], tolerance: f32) {
        assert_eq!(computed.len(), expected.len(), "{}: {name}", self.name);
        let mut largest = 0.0f32;
        for (index, (a, b)) in computed.iter().zip(expected).enumerate() {
            let difference = (a - b).abs();
            let place = format_args!("{}: {name}[{index}]", self.name);
            assert!(difference <= tolerance, "{place}: {a} against {b}, tolerance {tolerance:e}");
            largest = largest.max(difference);
        }
        println!("{}: {name}: {largest:.1e} of {tolerance:.1e}", self.name);
    }

    /// Checks the gradients of all parameters whose name `is_whole` accepts, against `<prefix>.<parameter>`.
    ///
    /// The tolerance is relative to the largest element of the parameter, and absolute for gradients that are zero
    /// mathematically.
    pub fn check_gradients(
        &self,
        prefix: &str,
        model: &impl Module,
        gradients: &Gradients,
        is_whole: impl Fn(&str) -> bool,
    ) -> Result {
        let parameters = model.named_parameters().into_iter().filter(|(name, _)| is_whole(name));
        let mut count = 0;
        for (parameter, tensor) in parameters {
            let name = format!("{prefix}.{parameter}");
            let largest = self.floats(&name)?.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            let gradient = gradients.get(&tensor).ok_or_else(|| format!("{parameter} has no gradient"))?;
            self.check(&name, &gradient, (1e-5 * largest).max(3e-7))?;
            count += 1;
        }
        let expected = self.names().iter().filter(|name| name.starts_with(&format!("{prefix}."))).count();
        assert_eq!(count, expected, "{}: {prefix}", self.name);
        Ok(())
    }
}
