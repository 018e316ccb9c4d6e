//! The settings of a folder of `sentence-transformers`: how its tokenizer reads a text (`sentence_bert_config.json`),
//! and the prompts before it (`config_sentence_transformers.json`).

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::sentence_dense::Activation;
use crate::config::CONFIG_FILE;
use crate::files::replace;
use crate::folder::Folder;
use crate::side_file::{Kind, SideFile};
use crate::tokenizer::CONFIG as TOKENIZER_CONFIG;
use crate::{Error, Result, Tokenizer};

/// The names of the settings of the encoder. The first that has any applies.
const TRANSFORMER: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];
/// The name of the settings of the whole model.
const SENTENCE: &str = "config_sentence_transformers.json";

/// Arguments of Python functions that change no answer.
const HARMLESS_ARGUMENTS: [&str; 7] = [
    "add_pooling_layer",
    "attn_implementation",
    "dtype",
    "low_cpu_mem_usage",
    "torch_dtype",
    "trust_remote_code",
    "use_cache",
];

/// The task that a model folder is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Sentence embeddings.
    Encoder,
    /// Scores of pairs of texts.
    CrossEncoder,
}

impl Task {
    fn name(self) -> &'static str {
        match self {
            Task::Encoder => "SentenceTransformer",
            Task::CrossEncoder => "CrossEncoder",
        }
    }
}

/// Opens the tokenizer in the folder of an encoder, with the length and the case that its settings name.
pub(crate) fn open_tokenizer(folder: &Folder, task: Task) -> Result<Tokenizer> {
    let mut tokenizer = Tokenizer::in_folder(folder)?;
    for name in TRANSFORMER {
        let Some(path) = folder.find(name)? else { continue };
        let mut file = SideFile::open(&path, Kind::Transformer)?;
        if file.is_empty() {
            continue;
        }
        // As in `sentence-transformers`, the length here takes precedence over that of the tokenizer.
        if let Some(length) = file.size("max_seq_length")? {
            tokenizer = tokenizer.with_max_length(length);
        }
        if file.flag("do_lower_case")? == Some(true) {
            tokenizer = tokenizer.lowercased()?;
        }
        check_architecture(&mut file, task)?;
        file.finish()?;
        break;
    }
    Ok(tokenizer)
}

/// Returns the contradictions between the files in the folder of an encoder, whose model has this number of positions,
/// about the length of a text.
pub(crate) fn conflicts(folder: &Folder, positions: usize) -> Result<Vec<String>> {
    let mut lengths = Vec::new();
    for name in TRANSFORMER {
        let mut file = SideFile::find(folder, name, Kind::Transformer)?;
        let is_empty = file.is_empty();
        match file.size("max_seq_length")? {
            Some(length) => lengths.push((name, "max_seq_length", length)),
            // The first file counts, even if it says nothing about lengths.
            None if lengths.is_empty() && !is_empty => return Ok(Vec::new()),
            None => {}
        }
    }
    let Some(&(first, _, length)) = lengths.first() else { return Ok(Vec::new()) };
    let tokenizer = SideFile::find(folder, TOKENIZER_CONFIG, Kind::Tokenizer)?.take("model_max_length");
    let limit = tokenizer.and_then(|length| length.as_u64()).and_then(|length| usize::try_from(length).ok());
    lengths.extend(limit.map(|length| (TOKENIZER_CONFIG, "model_max_length", length)));
    let differs = lengths[1..].iter().filter(|(.., other)| *other != length);
    let said = |(file, field, other): &(&str, &str, usize)| {
        format!("max_seq_length is {length} in {first}, {field} {other} in {file}: {length} counts")
    };
    let mut conflicts: Vec<String> = differs.map(said).collect();
    if length > positions {
        let other = format!("max_position_embeddings {positions} in {CONFIG_FILE}");
        conflicts.push(format!("max_seq_length is {length} in {first}, {other}: {positions} counts"));
    }
    Ok(conflicts)
}

/// Returns an error if the settings of an encoder describe another model than text in, hidden states or logits out.
fn check_architecture(file: &mut SideFile, task: Task) -> Result<()> {
    let (name, output, feature) = match task {
        Task::Encoder => ("feature-extraction", "last_hidden_state", "token_embeddings"),
        Task::CrossEncoder => ("sequence-classification", "logits", "scores"),
    };
    file.only("transformer_task", &json!(name))?;
    file.only("modality_config", &json!({"text": {"method": "forward", "method_output_name": output}}))?;
    file.only("module_output_name", &json!(feature))?;
    for arguments in
        ["model_args", "model_kwargs", "config_args", "config_kwargs", "tokenizer_args", "processor_kwargs"]
    {
        file.only_harmless(arguments, &HARMLESS_ARGUMENTS)?;
    }
    file.only_harmless("processing_kwargs", &[])
}

/// The measure by which vectors are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SimilarityFunction {
    /// The cosine of the angle between them, in [-1, 1].
    #[default]
    Cosine,
    /// Their dot product.
    Dot,
    /// Their Euclidean distance, negated.
    Euclidean,
    /// The sum of the absolute differences of their elements, negated.
    Manhattan,
}

impl SimilarityFunction {
    /// All values.
    pub const ALL: [SimilarityFunction; 4] = [
        SimilarityFunction::Cosine,
        SimilarityFunction::Dot,
        SimilarityFunction::Euclidean,
        SimilarityFunction::Manhattan,
    ];

    /// Returns the name in `config_sentence_transformers.json`.
    pub fn name(self) -> &'static str {
        match self {
            SimilarityFunction::Cosine => "cosine",
            SimilarityFunction::Dot => "dot",
            SimilarityFunction::Euclidean => "euclidean",
            SimilarityFunction::Manhattan => "manhattan",
        }
    }
}

/// The settings of the whole model.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Settings {
    /// Texts that are put before a sentence, by name.
    pub(crate) prompts: BTreeMap<String, String>,
    /// The name of the prompt that applies if no other is chosen.
    pub(crate) default_prompt: Option<String>,
    /// The number of elements that vectors are cut to.
    pub(crate) dimension: Option<usize>,
    pub(crate) similarity: SimilarityFunction,
    /// The activation of a cross-encoder, if the file names one.
    pub(crate) activation: Option<Activation>,
}

impl Settings {
    /// Reads the settings in a folder. Without the file, there are no prompts.
    pub(crate) fn read(folder: &Folder, task: Task) -> Result<Settings> {
        let Some(path) = folder.find(SENTENCE)? else { return Ok(Settings::default()) };
        let mut file = SideFile::open(&path, Kind::Sentence)?;
        file.only("model_type", &json!(task.name()))?;
        let prompts = file.read("prompts", "must map names to texts", prompts)?.unwrap_or_default();
        let default_prompt = file.text("default_prompt_name")?;
        let mut settings = Settings { prompts, default_prompt, ..Settings::default() };
        match task {
            Task::Encoder => {
                let must =
                    format!("must be one of {}", SimilarityFunction::ALL.map(SimilarityFunction::name).join(", "));
                let named =
                    |value: &Value| SimilarityFunction::ALL.into_iter().find(|function| value == function.name());
                settings.similarity = file.read("similarity_fn_name", &must, named)?.unwrap_or_default();
                settings.dimension = file.size("truncate_dim")?;
            }
            Task::CrossEncoder => {
                settings.activation = file.read("activation_fn", Activation::OF_SCORES, Activation::of_scores)?;
            }
        }
        file.finish()?;
        let unknown = |error: Error| Error::format(&path, format!("default_prompt_name: {error}"));
        settings.prompt(None).map_err(unknown)?;
        Ok(settings)
    }

    /// Returns the prompt of this name, or the default one. The names `query` and `document` always exist, as in
    /// `sentence-transformers`.
    ///
    /// # Errors
    /// Returns an error if there is no prompt of this name.
    pub(crate) fn prompt(&self, name: Option<&str>) -> Result<&str> {
        let Some(name) = name.or(self.default_prompt.as_deref()) else { return Ok("") };
        match self.prompts.get(name) {
            Some(prompt) => Ok(prompt),
            None if ["query", "document"].contains(&name) => Ok(""),
            None => {
                let known: Vec<&str> = self.prompts.keys().map(String::as_str).collect();
                let known = if known.is_empty() { "query or document".to_string() } else { known.join(", ") };
                Err(Error::config(format!("no prompt is named {name:?}: must be {known}")))
            }
        }
    }

    /// Writes the settings of an encoder into the folder `dir`.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let mut file = json!({
            "model_type": Task::Encoder.name(), "prompts": self.prompts, "default_prompt_name": self.default_prompt,
            "similarity_fn_name": self.similarity.name(),
        });
        if let Some(dimension) = self.dimension {
            file["truncate_dim"] = json!(dimension);
        }
        replace(&dir.join(SENTENCE), format!("{file:#}\n").as_bytes())
    }
}

/// Returns prompts by name. `null` stands for an empty prompt.
fn prompts(value: &Value) -> Option<BTreeMap<String, String>> {
    let prompt = |(name, prompt): (&String, &Value)| match prompt {
        Value::Null => Some((name.clone(), String::new())),
        prompt => Some((name.clone(), prompt.as_str()?.to_string())),
    };
    value.as_object()?.iter().map(prompt).collect()
}
