//! Adapters in the files of `peft`: other content of `adapter_config.json`, other headers of the weights, and both. They are
//! refused, or loaded, written and loaded again as the same.
#![no_main]

use std::sync::LazyLock;

use cloze_bert::PreTrainedModel;
use cloze_fuzz::bases::adapter::{Adapters, CONFIG, WEIGHTS, adapters, model};
use cloze_fuzz::{checked, limited, mutate_json, with_header};
use cloze_tensor::{Module, Tensor};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

static ADAPTERS: LazyLock<Adapters> = LazyLock::new(adapters);

fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    let Adapters { scratch, config, weights } = &*ADAPTERS;
    let (new_config, new_weights) = match kind % 3 {
        0 => (rest.to_vec(), weights.clone()),
        1 => (config.clone(), with_header(rest)),
        _ => {
            let end = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
            (rest[..end].to_vec(), with_header(rest.get(end + 1..).unwrap_or_default()))
        }
    };
    scratch.write(CONFIG, new_config);
    scratch.write(WEIGHTS, &new_weights);
    limited(data.len() + new_weights.len(), || {
        let mut model = model();
        if checked(model.load_adapters(scratch.path().join("adapter"))).is_none() {
            return;
        }
        // Writing syncs the file system, so not after every input.
        if kind >= 224 {
            let again = scratch.path().join("again");
            checked(model.save_adapters(&again)).expect("loaded adapters can be written");
            let mut other = self::model();
            other.load_adapters(&again).expect("what was written can be loaded");
            for ((name, a), (_, b)) in model.named_parameters().into_iter().zip(other.named_parameters()) {
                let bits =
                    |tensor: &Tensor| tensor.to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>();
                assert_eq!(bits(&a), bits(&b), "{name}");
            }
        }
    });
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate_json(data, size, seed, 1, |data, size| fuzzer_mutate(data, size, max_size))
});
