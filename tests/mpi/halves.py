#!/usr/bin/env python3
"""Shows how far losses move in PyTorch when the sums of a step are divided, as they are over ranks.

Fine-tunes models/tiny on the built-in reviews (20 epochs of batches of 8, AdamW, dropout), and again with each batch in
2, 4 and 8 parts whose gradients are added. The same dropout masks are used for each sequence, so only the order of sums
in f32 differs. Prints the largest differences of the losses of steps and of the evaluations after every third, relative
for losses above 1. Not run by CI.

    tests/mpi/halves.py [SEED ..]        needs torch and transformers
"""

import csv
import pathlib
import sys

import torch
import transformers
from torch import nn

ROOT = pathlib.Path(__file__).parents[2]
MODEL = ROOT / "models/tiny"
EPOCHS, BATCH, LR, EVERY = 20, 8, 1e-3, 3


class Masks:
    """Dropout whose mask of a sequence depends on the seed, the step and the layer, not on the part it is in."""

    def __init__(self, seed):
        self.seed, self.step, self.layer, self.part = seed, 0, 0, slice(0, 0)
        self.batch = 0

    def __call__(self, x, p=0.5, training=True, inplace=False):
        if not training or p == 0:
            return x
        self.layer += 1
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step * 1_009 + self.layer)
        keep = torch.rand((self.batch, *x.shape[1:]), generator=generator) >= p
        return x * keep[self.part] / (1 - p)


def read(tokenizer, name):
    with open(ROOT / "examples/data" / name, newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    tokens = tokenizer([row["sentence"] for row in rows], padding=True, return_tensors="pt")
    return tokens, torch.tensor([int(row["label"] == "positive") for row in rows])


def train(seed, parts, training, validation):
    """Returns the losses of steps and of evaluations."""
    torch.manual_seed(seed)
    model = transformers.BertForSequenceClassification.from_pretrained(
        MODEL, num_labels=2, attn_implementation="eager", dtype=torch.float32
    )
    masks = Masks(seed)
    nn.functional.dropout = masks
    nn.Dropout.forward = lambda module, x: masks(x, module.p, module.training)
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, eps=1e-6)
    (inputs, labels), order = training, torch.Generator().manual_seed(seed)
    total = EPOCHS * -(-len(labels) // BATCH)
    steps, evaluations = [], []
    for _ in range(EPOCHS):
        for ids in torch.randperm(len(labels), generator=order).split(BATCH):
            warmup = max(1, total // 10)
            for group in optimizer.param_groups:
                group["lr"] = LR * min((masks.step + 1) / warmup, (total - masks.step) / (total - warmup))
            model.train()
            optimizer.zero_grad()
            masks.batch, start, sum_of_losses = len(ids), 0, 0.0
            for part in ids.split(-(-len(ids) // parts)):
                masks.part, masks.layer = slice(start, start + len(part)), 0
                start += len(part)
                logits = model(**{name: values[part] for name, values in inputs.items()}).logits
                loss = nn.functional.cross_entropy(logits, labels[part], reduction="sum") / len(ids)
                loss.backward()
                sum_of_losses += loss.item()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            masks.step += 1
            steps.append(sum_of_losses)
            if masks.step % EVERY == 0:
                model.eval()
                with torch.no_grad():
                    logits = model(**validation[0]).logits
                    evaluations.append(nn.functional.cross_entropy(logits, validation[1]).item())
    return steps, evaluations


def farthest(losses, others):
    return max(abs(a - b) / max(abs(a), 1.0) for a, b in zip(losses, others, strict=True))


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    data = [read(tokenizer, f"reviews-{name}.tsv") for name in ("train", "validation")]
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    for seed in [int(seed) for seed in sys.argv[1:]] or [42]:
        whole = train(seed, 1, *data)
        for parts in (2, 4, 8):
            steps, evaluations = map(farthest, whole, train(seed, parts, *data))
            print(f"seed {seed}, {parts} parts: steps {steps:.1e}, evaluations {evaluations:.1e}", flush=True)


if __name__ == "__main__":
    main()
