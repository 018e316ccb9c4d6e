//! `config.json` as text: refused, or read, checked, written and read again as the same.
#![no_main]

use cloze_bert::BertConfig;
use cloze_fuzz::{checked, limited, mutate_json};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|text: &str| {
    limited(text.len(), || {
        let Some(config) = checked(BertConfig::from_json(text)) else { return };
        let counts = config.parameter_counts();
        assert!(counts.model() <= counts.pre_training());
        assert_eq!(config.head_size() * config.num_attention_heads, config.hidden_size);
        // What is written has a line for each label, of which the file may only state the number.
        if config.num_labels() > 1 << 10 {
            return;
        }
        let again = BertConfig::from_json(&config.to_json()).expect("what was written can be read");
        assert_eq!(again, config);
        assert_eq!(again.to_json(), config.to_json());
    });
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate_json(data, size, seed, 0, |data, size| fuzzer_mutate(data, size, max_size))
});
