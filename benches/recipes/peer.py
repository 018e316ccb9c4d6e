"""The recipes of docs/src/results.md with PyTorch and transformers, to compare cloze's fine-tuning with.

    python benches/recipes/peer.py ner --model DIR --data "$CLOZE_DATA" --seed 1

Each prints one line of JSON. Models are fine-tuned from the encoder in DIR with AdamW (weight decay 0.01 except for
biases and LayerNorm), a linear learning rate decay after a warm-up, gradients clipped to norm 1, and batches padded to
their longest sequence.

Needs torch, transformers; seqeval for ner, scipy for sts.
"""

import argparse
import csv
import json
import math
import os
import re
import string
import time
from collections import Counter

import torch
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    get_linear_schedule_with_warmup,
)

RECIPES = {
    "sst2": dict(epochs=2, batch=32, lr=5e-5, warmup=0.06, max_length=128),
    "sts": dict(epochs=4, batch=16, lr=5e-5, warmup=0.1, max_length=128),
    "ner": dict(epochs=3, batch=16, lr=1e-4, warmup=0.1, max_length=128),
    "qa": dict(epochs=1, batch=16, lr=1e-4, warmup=0.1, max_length=384, stride=128),
}


def pad(sequences, value):
    longest = max(map(len, sequences))
    return torch.tensor([s + [value] * (longest - len(s)) for s in sequences])


def batch_of(examples, tokenizer):
    ids = [e["input_ids"] for e in examples]
    types = [e.get("token_type_ids") or [0] * len(e["input_ids"]) for e in examples]
    return {
        "input_ids": pad(ids, tokenizer.pad_token_id),
        "token_type_ids": pad(types, 0),
        "attention_mask": pad([[1] * len(i) for i in ids], 0),
    }


def train(model, examples, tokenizer, recipe, seed, labels):
    """Trains the model in place, and returns the time of all steps in seconds."""
    spared = lambda name: name.endswith("bias") or "LayerNorm" in name
    groups = [
        {"params": [p for n, p in model.named_parameters() if not spared(n)], "weight_decay": 0.01},
        {"params": [p for n, p in model.named_parameters() if spared(n)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe["lr"])
    steps = math.ceil(len(examples) / recipe["batch"]) * recipe["epochs"]
    schedule = get_linear_schedule_with_warmup(optimizer, int(steps * recipe["warmup"]), steps)
    order = torch.Generator().manual_seed(seed)
    model.train()
    start, done = time.time(), 0
    for epoch in range(recipe["epochs"]):
        shuffled = torch.randperm(len(examples), generator=order).tolist()
        for at in range(0, len(shuffled), recipe["batch"]):
            chosen = [examples[i] for i in shuffled[at : at + recipe["batch"]]]
            loss = model(**batch_of(chosen, tokenizer), **labels(chosen)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            done += 1
            if done == recipe.get("time_steps"):
                seconds = time.time() - start
                print(json.dumps({"steps": done, "seconds": seconds, "ms a step": 1000 * seconds / done}))
                raise SystemExit
        print(f"epoch {epoch + 1}: loss {loss.item():.4f}, {time.time() - start:.0f} s", flush=True)
    return time.time() - start


def logits_of(model, examples, tokenizer, batch=32):
    model.eval()
    with torch.no_grad():
        for at in range(0, len(examples), batch):
            chosen = examples[at : at + batch]
            yield chosen, model(**batch_of(chosen, tokenizer))


def rows(path):
    with open(path, encoding="utf-8") as file:
        header = file.readline()
        assert header == "sentence\tlabel\n"
        return [line.rstrip("\n").split("\t") for line in file]


def sst2(args, tokenizer, recipe):
    model = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=2)
    read = lambda name: [
        {**tokenizer(text.strip(), truncation=True, max_length=recipe["max_length"]), "label": int(label)}
        for text, label in rows(f"{args.data}/sst2/{name}.tsv")
    ]
    training, held_out = read("train"), read("dev")
    seconds = train(model, training, tokenizer, recipe, args.seed, lambda e: {"labels": torch.tensor([x["label"] for x in e])})
    right = sum(
        (out.logits.argmax(-1) == torch.tensor([x["label"] for x in chosen])).sum().item()
        for chosen, out in logits_of(model, held_out, tokenizer)
    )
    return {"accuracy": right / len(held_out), "seconds": seconds}


def sts(args, tokenizer, recipe):
    from scipy.stats import pearsonr, spearmanr

    model = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=1)

    def read(name):
        with open(f"{args.data}/sts/stsb-en-{name}.csv", encoding="utf-8", newline="") as file:
            return [
                {**tokenizer(a, b, truncation=True, max_length=recipe["max_length"]), "score": float(score)}
                for a, b, score in csv.reader(file)
            ]

    training, held_out = read("train"), read("dev")
    seconds = train(model, training, tokenizer, recipe, args.seed, lambda e: {"labels": torch.tensor([x["score"] for x in e])})
    said = [x for _, out in logits_of(model, held_out, tokenizer) for x in out.logits[:, 0].tolist()]
    scores = [x["score"] for x in held_out]
    return {"spearman": spearmanr(said, scores).statistic, "pearson": pearsonr(said, scores).statistic, "seconds": seconds}


def conll(path):
    """Yields the words and tags of each sentence, from the first two columns."""
    sentence = ([], [])
    with open(path, encoding="utf-8") as file:
        for line in file:
            columns = line.rstrip("\n").split("\t")
            if not line.strip() or not columns[0].strip():
                if sentence[0]:
                    yield sentence
                sentence = ([], [])
                continue
            sentence[0].append(columns[0])
            sentence[1].append(columns[1].split(",")[0].strip())
    if sentence[0]:
        yield sentence


def ner(args, tokenizer, recipe):
    from seqeval.metrics import f1_score, precision_score, recall_score

    files = {"train": "wnut17train.conll", "test": "emerging.test.annotated"}
    data = {name: list(conll(f"{args.data}/ner/{file}")) for name, file in files.items()}
    names = sorted({tag for words, tags in data["train"] for tag in tags})
    classes = {name: i for i, name in enumerate(names)}
    model = AutoModelForTokenClassification.from_pretrained(args.model, num_labels=len(names))

    def encode(words, tags):
        encoded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=recipe["max_length"])
        labels, before = [], None
        for word in encoded.word_ids():
            labels.append(-100 if word is None or word == before else classes.get(tags[word], 0))
            before = word
        return {**encoded, "labels": labels, "words": encoded.word_ids(), "tags": tags}

    training = [encode(*sentence) for sentence in data["train"]]
    held_out = [encode(*sentence) for sentence in data["test"]]
    seconds = train(model, training, tokenizer, recipe, args.seed, lambda e: {"labels": pad([x["labels"] for x in e], -100)})
    gold, said = [], []
    for chosen, out in logits_of(model, held_out, tokenizer):
        for example, classes_of in zip(chosen, out.logits.argmax(-1).tolist()):
            tags = ["O"] * len(example["tags"])
            before = None
            for at, word in enumerate(example["words"]):
                if word is not None and word != before:
                    tags[word] = names[classes_of[at]]
                before = word
            gold.append(example["tags"])
            said.append(tags)
    return {"f1": f1_score(gold, said), "precision": precision_score(gold, said), "recall": recall_score(gold, said), "seconds": seconds}


def normalized(text):
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def f1_of(said, gold):
    said, gold = normalized(said).split(), normalized(gold).split()
    same = sum((Counter(said) & Counter(gold)).values())
    return 0.0 if same == 0 else 2 * same / (len(said) + len(gold))


def qa(args, tokenizer, recipe):
    with open(f"{args.data}/squad/dev-v1.1.json", encoding="utf-8") as file:
        articles = json.load(file)["data"]
    questions = lambda articles: [
        (p["context"], q) for article in articles for p in article["paragraphs"] for q in p["qas"]
    ]
    encode = lambda context, q: tokenizer(
        q["question"], context, truncation="only_second", max_length=recipe["max_length"], stride=recipe["stride"],
        return_overflowing_tokens=True, return_offsets_mapping=True,
    )
    training = []
    for context, q in questions(articles[:38]):
        start = q["answers"][0]["answer_start"]
        end = start + len(q["answers"][0]["text"])
        encoded = encode(context, q)
        for window, ids in enumerate(encoded["input_ids"]):
            offsets, sides = encoded["offset_mapping"][window], encoded.sequence_ids(window)
            inside = [i for i, side in enumerate(sides) if side == 1 and offsets[i][0] < end and start < offsets[i][1]]
            whole = inside and offsets[inside[0]][0] <= start and offsets[inside[-1]][1] >= end
            span = (inside[0], inside[-1]) if whole else (0, 0)
            training.append({"input_ids": ids, "token_type_ids": encoded["token_type_ids"][window], "span": span})
    model = AutoModelForQuestionAnswering.from_pretrained(args.model)
    labels = lambda e: {
        "start_positions": torch.tensor([x["span"][0] for x in e]),
        "end_positions": torch.tensor([x["span"][1] for x in e]),
    }
    seconds = train(model, training, tokenizer, recipe, args.seed, labels)
    held_out = questions(articles[38:])
    windows = []
    for number, (context, q) in enumerate(held_out):
        encoded = encode(context, q)
        for window, ids in enumerate(encoded["input_ids"]):
            offsets = [o if s == 1 else None for o, s in zip(encoded["offset_mapping"][window], encoded.sequence_ids(window))]
            windows.append({"input_ids": ids, "token_type_ids": encoded["token_type_ids"][window], "offsets": offsets, "question": number})
    best = {}
    for chosen, out in logits_of(model, windows, tokenizer):
        for window, starts, ends in zip(chosen, out.start_logits.tolist(), out.end_logits.tolist()):
            offsets = window["offsets"]
            order = lambda scores: sorted((i for i, o in enumerate(offsets) if o), key=lambda i: -scores[i])[:20]
            for start in order(starts):
                for end in order(ends):
                    if start <= end < start + 30:
                        score = starts[start] + ends[end]
                        if score > best.get(window["question"], (-1e9,))[0]:
                            best[window["question"]] = (score, offsets[start][0], offsets[end][1])
    exact = f1 = 0.0
    for number, (context, q) in enumerate(held_out):
        _, start, end = best.get(number, (0, 0, 0))
        said, golds = context[start:end], [answer["text"] for answer in q["answers"]]
        exact += max(normalized(said) == normalized(gold) for gold in golds)
        f1 += max(f1_of(said, gold) for gold in golds)
    return {"exact": 100 * exact / len(held_out), "f1": 100 * f1 / len(held_out), "seconds": seconds}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=RECIPES)
    parser.add_argument("--model", required=True, help="folder with the encoder and its tokenizer")
    parser.add_argument("--data", default=os.environ.get("CLOZE_DATA"), help="folder with sst2/, sts/, ner/, squad/")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--time-steps", type=int, help="only time this many steps of the recipe")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    recipe = {**RECIPES[args.task], "time_steps": args.time_steps}
    found = globals()[args.task](args, tokenizer, recipe)
    print(json.dumps({"task": args.task, "seed": args.seed, **recipe, **found}))


if __name__ == "__main__":
    main()
