"""The measurements of main.rs with PyTorch and transformers on the same GPU: prints a line of JSON for each.

Products are torch.matmul in bf16 (cuBLASLt). Attention is scaled_dot_product_attention with FlashAttention and with
cuDNN, on tensors in the preferred layout of each. Steps are of BertForPreTraining of transformers under autocast to
bf16 with SDPA, compiled and eager. `peers.py [--smoke] [steps] [products] [attention]` runs the parts that are named, by
default all. With `--smoke`, runs the smallest sizes on any device.
"""

import argparse
import json
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

SECONDS = 0.3


def measure(name, work, unit, call, smoke, device):
    try:
        times, begun = [], time.perf_counter()
        while not times or not smoke and (time.perf_counter() - begun < 2 * SECONDS or len(times) < 6):
            start = time.perf_counter()
            call()
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        measured = sorted(times[len(times) // 2 :])
        seconds = measured[len(measured) // 2]
        print(json.dumps({"name": name, "ms": seconds * 1e3, "per_second": work / seconds, "unit": unit}), flush=True)
    except Exception as error:  # A backend that does not support a shape must not stop the others.
        print(json.dumps({"name": name, "error": str(error).splitlines()[0]}), flush=True)


def products(smoke, device):
    sizes = [(65536, 768, 768), (65536, 3072, 768), (65536, 768, 3072), (4096, 4096, 4096), (8192, 8192, 8192)]
    for m, n, k in [(136, 72, 40)] if smoke else sizes:
        a, b = (torch.randn(*shape, device=device, dtype=torch.bfloat16) for shape in ((m, k), (n, k)))
        measure(f"product {m} {n} {k}", 2 * m * n * k, "FLOP", lambda: a @ b.T, smoke, device)


def attention(smoke, device):
    hidden, tokens = (128, 96) if smoke else (1024, 16384)
    backends = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
    if smoke:
        backends = {"math": SDPBackend.MATH}
    for size in (64, 128):
        for length in (48,) if smoke else (128, 512, 1024, 2048, 8192):
            shape = (tokens // length, hidden // size, length, size)
            q, k, v = (torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
            dy = torch.randn(shape, device=device, dtype=torch.bfloat16)
            for p in (0.0, 0.1):
                for label, backend in backends.items():
                    work = 4 * tokens * length * hidden
                    name = f"head {size} length {length} dropout {p:g}".replace("dropout 0.0", "dropout 0")

                    def forward():
                        with sdpa_kernel(backend):
                            return F.scaled_dot_product_attention(q, k, v, dropout_p=p)

                    def alone():
                        with torch.no_grad():
                            forward()

                    measure(f"attention forward {name} [{label}]", work, "FLOP", alone, smoke, device)
                    both = lambda: torch.autograd.grad(forward(), (q, k, v), dy)
                    measure(f"attention both {name} [{label}]", 3.5 * work, "FLOP", both, smoke, device)


def training(smoke, device):
    from transformers import BertConfig, BertForPreTraining

    # The largest first, and compiled before eager: if the time runs out, what is missing is what says least.
    shapes = {"large": (24, 1024), "base": (12, 768)}
    for name, (layers, hidden) in {"tiny": (2, 128)}.items() if smoke else shapes.items():
        for length in (24, 16) if smoke else (512, 128):
            tokens = 48 if smoke else 32768
            config = BertConfig(
                num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=hidden // 64, intermediate_size=4 * hidden
            )
            config._attn_implementation = "sdpa"
            count = tokens // length
            ids = torch.randint(5, 30000, (count, length), device=device)
            labels = torch.where(torch.arange(length, device=device) < length * 15 // 100, ids, -100)
            next_sentence = torch.arange(count, device=device) % 2
            for label in ("compiled", "eager"):
                model = BertForPreTraining(config).to(device).train()
                # Otherwise the second length would be compiled with dynamic shapes.
                torch._dynamo.reset()
                called = torch.compile(model, dynamic=False) if label == "compiled" and not smoke else model
                optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=device == "cuda")

                def step():
                    with torch.autocast(device, dtype=torch.bfloat16):
                        loss = called(input_ids=ids, labels=labels, next_sentence_label=next_sentence).loss
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)

                measure(f"step {name} length {length} [{label}]", tokens, "tokens", step, smoke, device)
                del model, called, optimizer


PARTS = {"steps": training, "products": products, "attention": attention}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("parts", nargs="*", default=[], metavar="PART")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name in arguments.parts or PARTS:
        PARTS[name](arguments.smoke, device)


if __name__ == "__main__":
    main()
