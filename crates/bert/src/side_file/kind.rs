//! The kinds of side files, and the table of the fields that change no answer.

/// The kinds of side files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `config.json`.
    Config,
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
            Kind::Config => &CONFIG,
            Kind::Module => &["idx", "name"],
            Kind::Transformer => &["unpad_inputs"],
            Kind::Pooling | Kind::Dense | Kind::Normalize | Kind::Tokens => &[],
            Kind::Sentence => &["__version__", "requirements", "keep_in_fp32_modules"],
            // Where adapters came from, and settings of methods that are refused if they are used. Dropout is for
            // training.
            Kind::Adapter => &[
                "auto_mapping",
                "base_model_name_or_path",
                "corda_config",
                "eva_config",
                "inference_mode",
                "loftq_config",
                "lora_dropout",
                "megatron_core",
                "peft_version",
                "qalora_group_size",
                "revision",
                "runtime_config",
                "task_type",
            ],
            // Where the tokenizer came from, and what callers of `transformers` get by default, such as padding, which
            // a packed batch does not have.
            Kind::Tokenizer => &[
                "_commit_hash",
                "_name_or_path",
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
    pub(crate) fn is_harmless(self, name: &str) -> bool {
        let is_id = self == Kind::Tokenizer && name.ends_with("_token_id");
        is_id || self.harmless().contains(&name)
    }
}

/// The fields of `config.json` that change no answer.
const CONFIG: [&str; 88] = [
    // Where the model came from, and how it is stored and run.
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_attn_implementation_internal",
    "_commit_hash",
    "_experts_implementation",
    "_experts_implementation_internal",
    "_name_or_path",
    "_num_labels",
    "allow_global_per_layer_attribute_access",
    "attn_implementation",
    "chunk_size_feed_forward",
    "distributed_config",
    "dtype",
    "experts_implementation",
    "finetuning_task",
    "fusion_config",
    "gradient_checkpointing",
    "name_or_path",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "return_dict",
    "tie_last_hidden_states",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "use_bfloat16",
    "use_cache",
    "use_return_dict",
    "xla_device",
    // How new weights are drawn. `initializer_range` alone is read.
    "init_std",
    "initializer_factor",
    "sinusoidal_pos_embds",
    "tie_weights_",
    // Ids of tokens, which the tokenizer knows.
    "bos_token_id",
    "decoder_start_token_id",
    "eos_token_id",
    "eos_token_ids",
    "sep_token_id",
    // Parts that a BERT of `transformers` does not have. Multilingual models describe their pooler, which is the usual
    // one.
    "cross_attention_hidden_size",
    "directionality",
    "is_encoder_decoder",
    "layer_types",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
    "rope_scaling",
    "rope_theta",
    "sliding_window",
    "tie_encoder_decoder",
    // Other programs' settings of tasks.
    "prefix",
    "task_specific_params",
    "tokenizer_class",
    // Generation of text, which an encoder does not do.
    "assistant_confidence_threshold",
    "assistant_lookbehind",
    "bad_words_ids",
    "begin_suppress_tokens",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "epsilon_cutoff",
    "eta_cutoff",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_scores",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict_in_generate",
    "suppress_tokens",
    "target_lookbehind",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
];
