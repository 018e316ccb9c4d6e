//! The names of parameters in files. Within the library a parameter has one canonical name: its name in BERT's state
//! dict in `transformers`, with the prefix `bert.` for the bare model.

use crate::config::ModelType;

/// The parts of the bare model, stored without a prefix in a file without a head.
const BARE: [&str; 3] = ["embeddings.", "encoder.", "pooler."];

/// LayerNorm's parameters: the names in the first published BERTs, and the canonical names.
const OLD: [(&str, &str); 2] = [("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")];

/// Prefixes of DistilBERT's names, and BERT's names for them.
const DISTILBERT: [(&str, &str); 6] = [
    ("distilbert.", "bert."),
    ("vocab_transform.", "cls.predictions.transform.dense."),
    ("vocab_layer_norm.", "cls.predictions.transform.LayerNorm."),
    ("vocab_projector.weight", "cls.predictions.decoder.weight"),
    ("vocab_projector.bias", "cls.predictions.bias"),
    ("pre_classifier.", "bert.pooler.dense."),
];

/// The prefix of layers: DistilBERT's name, BERT's name.
const DISTILBERT_LAYERS: (&str, &str) = ("transformer.layer.", "encoder.layer.");

/// Modules of a layer: DistilBERT's name, BERT's name. The first match applies.
const DISTILBERT_MODULES: [(&str, &str); 8] = [
    (".attention.q_lin.", ".attention.self.query."),
    (".attention.k_lin.", ".attention.self.key."),
    (".attention.v_lin.", ".attention.self.value."),
    (".attention.out_lin.", ".attention.output.dense."),
    (".sa_layer_norm.", ".attention.output.LayerNorm."),
    (".ffn.lin1.", ".intermediate.dense."),
    (".ffn.lin2.", ".output.dense."),
    (".output_layer_norm.", ".output.LayerNorm."),
];

/// The positions 0, 1, 2, ..., which older files store although they are implied.
pub(super) const POSITION_IDS: &str = "bert.embeddings.position_ids";

/// Parameters that are usually tied, which a file may store under either name or both: the weight of the decoder and
/// its bias.
pub(super) const TIED: [(&str, &str); 2] = [
    ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
    ("cls.predictions.bias", "cls.predictions.decoder.bias"),
];

/// Returns the canonical name of a parameter that a file or a module calls `name`.
pub(crate) fn canonical(name: &str, model_type: ModelType) -> String {
    let mut name = match model_type {
        ModelType::Bert => name.to_string(),
        ModelType::DistilBert => in_layer(with_prefix(name, &DISTILBERT), DISTILBERT_LAYERS, &DISTILBERT_MODULES),
    };
    for (old, new) in OLD {
        name = name.replace(old, new);
    }
    if BARE.iter().any(|part| name.starts_with(part)) { format!("bert.{name}") } else { name }
}

/// Returns the name under which a file stores the parameter that a module calls `name`.
pub(crate) fn stored(name: &str, model_type: ModelType) -> String {
    let swapped = |(theirs, ours)| (ours, theirs);
    match model_type {
        ModelType::Bert => name.to_string(),
        ModelType::DistilBert => {
            // Reversed, because the pooler's prefix starts with the encoder's and must be tried first.
            let mut prefixes = DISTILBERT.map(swapped);
            prefixes.reverse();
            in_layer(with_prefix(name, &prefixes), swapped(DISTILBERT_LAYERS), &DISTILBERT_MODULES.map(swapped))
        }
    }
}

/// Replaces the first matching prefix of a name.
fn with_prefix(name: &str, prefixes: &[(&str, &str)]) -> String {
    let renamed = |(from, to): &(&str, &str)| name.strip_prefix(from).map(|rest| format!("{to}{rest}"));
    prefixes.iter().find_map(renamed).unwrap_or_else(|| name.to_string())
}

/// Replaces the module names in the name of a layer's parameter.
fn in_layer(name: String, layers: (&str, &str), modules: &[(&str, &str)]) -> String {
    let Some((before, after)) = name.split_once(layers.0) else { return name };
    let module = modules.iter().find(|(from, _)| after.contains(from));
    let after = module.map_or_else(|| after.to_string(), |(from, to)| after.replacen(from, to, 1));
    format!("{before}{}{after}", layers.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_and_old_names() {
        let bert = |name| canonical(name, ModelType::Bert);
        assert_eq!(bert("encoder.layer.0.output.dense.bias"), "bert.encoder.layer.0.output.dense.bias");
        assert_eq!(bert("bert.embeddings.LayerNorm.gamma"), "bert.embeddings.LayerNorm.weight");
        assert_eq!(bert("cls.predictions.bias"), "cls.predictions.bias");
        assert_eq!(bert("classifier.weight"), "classifier.weight");
    }

    /// The names come from `DistilBertForMaskedLM` and `DistilBertForSequenceClassification` in `transformers`.
    #[test]
    fn distilbert_names_map_both_ways() {
        let layer = ["attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "sa_layer_norm"];
        let layer = layer.into_iter().chain(["ffn.lin1", "ffn.lin2", "output_layer_norm"]);
        let expected = [
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
            "attention.output.LayerNorm",
            "intermediate.dense",
            "output.dense",
            "output.LayerNorm",
        ];
        let mut pairs: Vec<(String, String)> = layer
            .zip(expected)
            .map(|(a, b)| {
                (format!("distilbert.transformer.layer.11.{a}.bias"), format!("bert.encoder.layer.11.{b}.bias"))
            })
            .collect();
        let others = [
            ("distilbert.embeddings.word_embeddings.weight", "bert.embeddings.word_embeddings.weight"),
            ("distilbert.embeddings.LayerNorm.bias", "bert.embeddings.LayerNorm.bias"),
            ("vocab_transform.weight", "cls.predictions.transform.dense.weight"),
            ("vocab_layer_norm.bias", "cls.predictions.transform.LayerNorm.bias"),
            ("vocab_projector.bias", "cls.predictions.bias"),
            ("vocab_projector.weight", "cls.predictions.decoder.weight"),
            ("pre_classifier.weight", "bert.pooler.dense.weight"),
            ("classifier.bias", "classifier.bias"),
            ("qa_outputs.weight", "qa_outputs.weight"),
        ];
        pairs.extend(others.map(|(a, b)| (a.to_string(), b.to_string())));
        for (theirs, ours) in pairs {
            assert_eq!(canonical(&theirs, ModelType::DistilBert), ours);
            assert_eq!(stored(&ours, ModelType::DistilBert), theirs);
        }
        let bare = "transformer.layer.0.ffn.lin1.weight";
        assert_eq!(canonical(bare, ModelType::DistilBert), "bert.encoder.layer.0.intermediate.dense.weight");
        assert_eq!(stored("encoder.layer.0.intermediate.dense.weight", ModelType::DistilBert), bare);
    }
}
