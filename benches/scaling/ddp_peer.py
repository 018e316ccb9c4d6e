"""The steps of `cloze-scaling` with PyTorch: DistributedDataParallel over gloo, with the model of transformers.

Prints one line of JSON with the median time of a step. It is used as a careful user would: one process a rank, with as many
threads as asked for, bf16 by autocast, gradients as views of the buckets, and the fused AdamW.
"""

import argparse
import json
import os
import statistics
import time


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", default="mini", choices=["mini", "base"])
    parser.add_argument("--layers", type=int)
    parser.add_argument("--vocab-size", type=int, default=30522)
    parser.add_argument("--sequences", type=int, default=16, help="in a step, of all ranks together")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each rank")
    parser.add_argument("--precision", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--reduce", default="f32", choices=["f32", "bf16"], help="type of exchanged gradients")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--profile", action="store_true", help="print where the time of rank 0 goes")
    return parser.parse_args()


def inputs(torch, config, count, length):
    """The batch of `benches/src/batch.rs`, as transformers takes it."""
    ids = torch.tensor([5 + token * 7919 % (config.vocab_size - 5) for token in range(count * length)]).view(count, length)
    masked = -(-length * 15 // 100)
    labels = torch.full_like(ids, -100)
    labels[:, 1 : masked + 1] = ids[:, 1 : masked + 1]
    kinds = (torch.arange(length) > length // 2).long().expand(count, length)
    return {
        "input_ids": ids,
        "token_type_ids": kinds,
        "attention_mask": torch.ones_like(ids),
        "labels": labels,
        "next_sentence_label": torch.arange(count) % 2,
    }


def train(rank, given):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29533", GLOO_SOCKET_IFNAME="lo")
    import torch
    import torch.distributed as distributed
    from transformers import BertConfig, BertForPreTraining

    torch.set_num_threads(given.threads)
    torch.manual_seed(7)
    distributed.init_process_group("gloo", rank=rank, world_size=given.ranks)
    sizes = {"mini": (4, 256, 4), "base": (12, 768, 12)}
    layers, hidden, heads = sizes[given.config]
    config = BertConfig(
        vocab_size=given.vocab_size,
        num_hidden_layers=given.layers or layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
    )
    model = BertForPreTraining(config).train()
    parallel = model
    if given.ranks > 1:
        parallel = torch.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
        if given.reduce == "bf16":
            from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

            parallel.register_comm_hook(None, default_hooks.bf16_compress_hook)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.01, fused=True)
    batch = inputs(torch, config, given.sequences // given.ranks, given.length)

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=given.precision == "bf16"):
            loss = parallel(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    times = []
    for number in range(2 + given.steps):
        distributed.barrier()
        start = time.perf_counter()
        step()
        if number >= 2:
            times.append(time.perf_counter() - start)
    if given.profile:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            step()
        if rank == 0:
            print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=12))
    if rank == 0:
        peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
        step_time = statistics.median(times)
        print(json.dumps(vars(given) | {"step": step_time, "peak_bytes": int(peak.split()[1]) * 1024}), flush=True)
    distributed.destroy_process_group()


if __name__ == "__main__":
    import torch.multiprocessing

    given = arguments()
    torch.multiprocessing.spawn(train, args=(given,), nprocs=given.ranks)
