//! Class weights and label smoothing of labels that are classes.

use super::LabelledData;

/// A label that holds classes: `i64`, a class per example, or `Vec<i64>`, a class per token.
pub trait ClassLabel {
    /// Returns the classes. A negative one is ignored.
    fn classes(&self) -> &[i64];
}

impl ClassLabel for i64 {
    fn classes(&self) -> &[i64] {
        std::slice::from_ref(self)
    }
}

impl ClassLabel for Vec<i64> {
    fn classes(&self) -> &[i64] {
        self
    }
}

impl<L: ClassLabel> LabelledData<L> {
    /// Sets a factor for the loss of each class, one per class of the model, as `weight` of `torch.nn.CrossEntropyLoss`. The
    /// loss of a step is divided by the sum of the weights of its labels, also over
    /// [accumulated](crate::Trainer::accumulate) batches. Evaluations do not weight.
    ///
    /// ```
    /// # use cloze_train::{LabelledData, Sequence, balanced_class_weights};
    /// # let sequence = Sequence { ids: vec![1], token_types: vec![0] };
    /// # let data = LabelledData::new(vec![sequence; 4], vec![0i64, 0, 0, 1])?;
    /// let weights = balanced_class_weights(data.labels(), 2);
    /// assert_eq!(weights, [2.0 / 3.0, 2.0]);
    /// let data = data.class_weights(weights).label_smoothing(0.1);
    /// # Ok::<(), cloze_train::Error>(())
    /// ```
    pub fn class_weights(mut self, weights: Vec<f32>) -> LabelledData<L> {
        self.loss.class_weights = Some(weights);
        self
    }

    /// Sets the part of each label, from 0 to 1, that training shares equally between all classes, as `label_smoothing` of
    /// `torch.nn.CrossEntropyLoss` and `label_smoothing_factor` of `transformers`. Evaluations do not smooth.
    ///
    /// Source: C. Szegedy et al., "Rethinking the Inception architecture for computer vision", 2015, section 7.
    pub fn label_smoothing(mut self, smoothing: f64) -> LabelledData<L> {
        self.loss.label_smoothing = smoothing;
        self
    }
}

/// Returns a weight for each class that is inversely proportional to how many labels it has, so that all classes together
/// weigh the same: labels / (classes with labels × labels of this class), as `compute_class_weight("balanced", ..)` of
/// `sklearn`. Labels that are no class are ignored, and a class without labels has the weight 0.
pub fn balanced_class_weights<'a, L: ClassLabel + 'a>(
    labels: impl IntoIterator<Item = &'a L>,
    classes: usize,
) -> Vec<f32> {
    let mut counts = vec![0usize; classes];
    for &class in labels.into_iter().flat_map(ClassLabel::classes) {
        if let Some(count) = usize::try_from(class).ok().and_then(|class| counts.get_mut(class)) {
            *count += 1;
        }
    }
    let (total, present) = (counts.iter().sum::<usize>(), counts.iter().filter(|&&count| count > 0).count());
    let weight = |count: usize| match count {
        0 => 0.0,
        count => (total as f64 / (present as f64 * count as f64)) as f32,
    };
    counts.into_iter().map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values from `sklearn.utils.class_weight.compute_class_weight("balanced", classes=.., y=..)` of
    /// scikit-learn 1.9.
    #[test]
    fn balanced_weights_are_those_of_sklearn() {
        let weights = balanced_class_weights(&[2i64, 0, 2, 2, 3, 0, 2], 4);
        let expected = [1.166_666_6, 0.0, 0.583_333_3, 2.333_333_3];
        assert!(weights.iter().zip(expected).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-6), "{weights:?}");
        let tokens = [vec![-100, 0, 0, 1, -100], vec![-100, 0, -100]];
        assert_eq!(balanced_class_weights(&tokens, 2), [4.0 / 6.0, 2.0]);
        assert_eq!(balanced_class_weights(&[] as &[i64], 2), [0.0, 0.0]);
    }
}
