use cloze_bert::BertConfig;
use cloze_tensor::DType;

use super::{Job, Network, RankSpeed};

const SPEED: RankSpeed = RankSpeed { tokens_per_second: 1000.0, overhead: 0.0, parameters_per_second: 1e9 };

fn job(ranks: usize) -> Job {
    Job { sequences: 64, length: 128, ranks, ..Job::new(BertConfig::base()) }
}

#[test]
fn one_rank_computes_and_updates() {
    let time = job(1).step_time(&SPEED, &Network::ethernet(10.0, 50e-6));
    assert!((time.total() - (64.0 * 128.0 / 1000.0 + 110_106_428.0 / 1e9)).abs() < 1e-9);
    assert_eq!((time.visible(), time.hidden_share()), (0.0, 1.0));
}

/// With backward far longer than the exchange, only the last bucket is visible: it ends at the embeddings, whose gradients are
/// final last, so that all of theirs wait.
#[test]
fn backward_hides_all_but_the_embeddings() {
    let network = Network { per_message: 0.0, ..Network::ethernet(8.0, 1e-3) };
    let time = job(2).step_time(&SPEED, &network);
    let buckets = 110_106_428f64 / f64::from(1 << 22);
    assert!((time.gradients_total - (110_106_428.0 * 2.0 / 1e9 + 1e-3 * buckets.ceil())).abs() < 1e-9);
    // 23.8 million elements of the embeddings are in the first six buckets.
    let visible = 6.0 * (f64::from(1 << 22) * 2.0 / 1e9 + 1e-3);
    assert!((time.gradients_wait - visible).abs() < 1e-9, "{time:?}");
}

#[test]
fn without_time_to_hide_in_everything_is_visible() {
    let speed = RankSpeed { tokens_per_second: 1e12, ..SPEED };
    let time = job(4).step_time(&speed, &Network::ethernet(1.0, 50e-6));
    assert!(time.hidden_share() < 1e-3 && time.gradients_wait > 2.0, "{time:?}");
    // Half the bytes take half the time.
    let bf16 = Job { reduce: DType::BF16, ..job(4) }.step_time(&speed, &Network::ethernet(1.0, 50e-6));
    assert!((bf16.gradients_wait / time.gradients_wait - 0.5).abs() < 0.01);
    assert_eq!(bf16.parameters_total, time.parameters_total);
}
