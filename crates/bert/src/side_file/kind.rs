//! The kinds of side files, and the table of the fields that change no answer.

/// The kinds of side files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An entry of `modules.json`.
    Module,
    /// `sentence_bert_config.json` and its older names.
    Transformer,
    /// `config.json` of a pooling.
    Pooling,
    /// `config.json` of a dense layer.
    Dense,
    /// `config.json` of a normalisation.
    Normalize,
    /// `config_sentence_transformers.json`.
    Sentence,
    /// `adapter_config.json`.
    Adapter,
    /// `tokenizer_config.json`.
    Tokenizer,
    /// `special_tokens_map.json` and `added_tokens.json`, in which every field is a token.
    Tokens,
}

impl Kind {
    /// Returns the fields that change no answer: names, versions, and how other programs run the model.
    fn harmless(self) -> &'static [&'static str] {
        match self {
            Kind::Module => &["idx", "name", "kwargs"],
            Kind::Transformer => &["unpad_inputs"],
            Kind::Pooling | Kind::Dense | Kind::Normalize | Kind::Tokens => &[],
            Kind::Sentence => &["__version__", "requirements", "keep_in_fp32_modules"],
            // The tensors say which layers are adapted, with which rank and bias. Dropout is for training.
            Kind::Adapter => &[
                "auto_mapping",
                "base_model_name_or_path",
                "corda_config",
                "eva_config",
                "exclude_modules",
                "inference_mode",
                "layers_pattern",
                "layers_to_transform",
                "loftq_config",
                "lora_bias",
                "lora_dropout",
                "megatron_core",
                "modules_to_save",
                "peft_version",
                "qalora_group_size",
                "rank_pattern",
                "revision",
                "runtime_config",
                "target_modules",
                "task_type",
            ],
            // Where the tokenizer came from, and what callers of `transformers` get by default, such as padding, which a
            // packed batch does not have.
            Kind::Tokenizer => &[
                "add_bos_token",
                "add_eos_token",
                "add_prefix_space",
                "backend",
                "chat_template",
                "clean_up_tokenization_spaces",
                "device_map",
                "errors",
                "from_slow",
                "full_tokenizer_file",
                "init_inputs",
                "is_local",
                "keep_accents",
                "legacy",
                "local_files_only",
                "max_length",
                "model_input_names",
                "model_type",
                "name_or_path",
                "pad_to_multiple_of",
                "pad_token_type_id",
                "padding",
                "padding_side",
                "processor_class",
                "return_token_type_ids",
                "special_tokens_map_file",
                "stride",
                "tokenizer_file",
                "transformers_version",
                "truncation",
                "truncation_strategy",
                "use_fast",
                "vocab_file",
                "vocab_size",
            ],
        }
    }

    /// Returns whether a field changes no answer.
    pub(super) fn is_harmless(self, name: &str) -> bool {
        let is_id = self == Kind::Tokenizer && (name.starts_with('_') || name.ends_with("_token_id"));
        is_id || self.harmless().contains(&name)
    }
}
