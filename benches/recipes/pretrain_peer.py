"""Pre-training with PyTorch and transformers, on batches written by `pretrain --write-batches`.

    python benches/recipes/pretrain_peer.py --model DIR --batches FILE --seed 1

DIR is a folder saved by `pretrain --out`. Only its configuration and tokenizer are read, not its weights. The sequences
and their order are those of the file; the masked tokens are drawn here, by the collator of transformers. Training uses
AdamW (weight decay 0.01 except for biases and LayerNorm), a linear learning rate decay after a warm-up, and gradients
clipped to norm 1. The loss is then evaluated on the held-out batches of the file, with their targets. Prints one line
of JSON.

Needs torch, transformers.
"""

import argparse
import json
import time

import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForPreTraining,
    DataCollatorForLanguageModeling,
    get_linear_schedule_with_warmup,
)


def lines(path, kind):
    with open(path, encoding="utf-8") as file:
        for line in file:
            batch = json.loads(line)
            if batch["kind"] == kind:
                yield batch


def padded(batch, values, fill):
    """Pads a value for each packed token to `[B, longest]`."""
    starts = batch["starts"]
    longest = max(end - start for start, end in zip(starts, starts[1:]))
    rows = [values[start:end] + [fill] * (longest - (end - start)) for start, end in zip(starts, starts[1:])]
    return torch.tensor(rows)


def inputs_of(batch, ids, pad):
    return {
        "input_ids": padded(batch, ids, pad),
        "token_type_ids": padded(batch, batch["token_types"], 0),
        "attention_mask": padded(batch, [1] * len(ids), 0),
        "next_sentence_label": torch.tensor(batch["next_sentence"]),
    }


def original(batch):
    ids = list(batch["ids"])
    for row, token in zip(batch["target_rows"], batch["target_ids"]):
        ids[row] = token
    return ids


def train(model, args, tokenizer):
    spared = lambda name: name.endswith("bias") or "LayerNorm" in name
    groups = [
        {"params": [p for n, p in model.named_parameters() if not spared(n)], "weight_decay": 0.01},
        {"params": [p for n, p in model.named_parameters() if spared(n)], "weight_decay": 0.0},
    ]
    steps = sum(1 for _ in lines(args.batches, "step"))
    optimizer = torch.optim.AdamW(groups, lr=args.lr)
    schedule = get_linear_schedule_with_warmup(optimizer, round(steps * args.warmup), steps)
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    special = torch.tensor(tokenizer.all_special_ids)
    model.train()
    tokens, recent, start = 0, [], time.time()
    for step, batch in enumerate(lines(args.batches, "step"), 1):
        inputs = inputs_of(batch, original(batch), tokenizer.pad_token_id)
        is_special = torch.isin(inputs["input_ids"], special)
        inputs["input_ids"], labels = collator.torch_mask_tokens(inputs["input_ids"], special_tokens_mask=is_special)
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        tokens += len(batch["ids"])
        recent.append(loss.item())
        if step % 500 == 0:
            print(f"step {step}: loss {sum(recent) / len(recent):.4f}, {time.time() - start:.0f} s", flush=True)
            recent = []
    return {"steps": steps, "tokens": tokens, "seconds": time.time() - start}


def evaluate(model, args, tokenizer):
    model.eval()
    loss, right, count = 0.0, 0, 0
    with torch.no_grad():
        for batch in lines(args.batches, "held out"):
            labels = [-100] * len(batch["ids"])
            for row, token in zip(batch["target_rows"], batch["target_ids"]):
                labels[row] = token
            labels = padded(batch, labels, -100).flatten()
            logits = model(**inputs_of(batch, batch["ids"], tokenizer.pad_token_id)).prediction_logits.flatten(0, 1)
            loss += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
            right += (logits.argmax(-1) == labels).sum().item()
            count += (labels != -100).sum().item()
    return {"mlm_loss": loss / count, "mlm_accuracy": right / count, "targets": count}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder with the configuration and the tokenizer")
    parser.add_argument("--batches", required=True, help="file written by pretrain --write-batches")
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--warmup", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = BertForPreTraining(BertConfig.from_pretrained(args.model))
    found = train(model, args, tokenizer)
    print(json.dumps({"seed": args.seed, "lr": args.lr, "warmup": args.warmup, **found, **evaluate(model, args, tokenizer)}))


if __name__ == "__main__":
    main()
