//! Arguments of the loss of classifiers.

use cloze::prelude::*;
use cloze::train::{ClassLabel, balanced_class_weights};
use serde::Serialize;

use crate::{Result, Table};

/// The arguments `--class-weights` and `--label-smoothing`.
#[derive(clap::Args, Serialize)]
pub struct ClassLossArguments {
    /// Weights of the classes in the loss: numbers in the order of the classes, separated by commas, or "balanced", so that
    /// all classes weigh the same however many examples they have
    #[arg(long, value_name = "balanced|W1,W2,...")]
    class_weights: Option<String>,
    /// Part of each label that training shares equally between all classes, from 0 to 1
    #[arg(long, default_value_t = 0.0)]
    label_smoothing: f64,
}

impl ClassLossArguments {
    /// Returns an error if an argument is given, for losses that have neither weights nor smoothing.
    ///
    /// # Errors
    /// Returns an error if an argument is given.
    pub fn check_unused(&self, what: &str) -> Result {
        let given =
            [("--class-weights", self.class_weights.is_some()), ("--label-smoothing", self.label_smoothing != 0.0)];
        match given.into_iter().find(|(_, is_given)| *is_given) {
            Some((name, _)) => Err(format!("{name} is for data with one label each: {what}").into()),
            None => Ok(()),
        }
    }

    /// Applies the arguments to data to train on with classes of these names, and prints the weights.
    ///
    /// # Errors
    /// Returns an error if a weight is not a number of at least 0, there is not one per class, or the smoothing is out of
    /// range.
    pub fn apply<L: ClassLabel>(&self, data: LabelledData<L>, names: &[String]) -> Result<LabelledData<L>> {
        let smoothing = self.label_smoothing;
        if !(0.0..=1.0).contains(&smoothing) {
            return Err(format!("--label-smoothing is {smoothing}: must be from 0 to 1").into());
        }
        let data = data.label_smoothing(smoothing);
        let Some(given) = &self.class_weights else { return Ok(data) };
        let weights = match given.trim() {
            "balanced" => balanced_class_weights(data.labels(), names.len()),
            given => weights(given, names)?,
        };
        let header = Table::new("<>").row(["class", "weight"]);
        let row = |table: Table, (name, weight): (&String, &f32)| table.row([name.clone(), format!("{weight:.4}")]);
        println!("{}", names.iter().zip(&weights).fold(header, row));
        Ok(data.class_weights(weights))
    }
}

fn weights(given: &str, names: &[String]) -> Result<Vec<f32>> {
    let weight = |text: &str| match text.trim().parse::<f32>() {
        Ok(weight) if weight >= 0.0 && weight.is_finite() => Ok(weight),
        _ => Err(format!("--class-weights has {text:?}: must be \"balanced\", or finite numbers of at least 0")),
    };
    let weights = given.split(',').map(weight).collect::<std::result::Result<Vec<f32>, String>>()?;
    if weights.len() != names.len() {
        let (given, classes) = (weights.len(), names.len());
        return Err(format!("--class-weights has {given} weights for {classes} classes: {}", names.join(", ")).into());
    }
    Ok(weights)
}
