"""python long_texts.py DIRECTORY: reads long texts in windows, and writes the means over them to `expected.json`.

DIRECTORY contains `classifier` and `encoder`, written by cloze, and `texts.json`, with a list of texts, a query, the
stride and the maximum length.
"""

import json
import sys
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForSequenceClassification, AutoTokenizer


def mean_of_windows(tokenizer, run, stride, max_length, first, second=None):
    """Returns the mean of `run` over the windows, each with the weight of the tokens that not all of them have, and the
    number of windows."""
    truncation = "longest_first" if second is None else "only_second"
    windows = tokenizer(first, second, max_length=max_length, truncation=truncation, stride=stride,
                        return_overflowing_tokens=True)
    rows, weights = [], []
    for index, (ids, types) in enumerate(zip(windows["input_ids"], windows["token_type_ids"])):
        inputs = dict(input_ids=[ids], token_type_ids=[types], attention_mask=[[1] * len(ids)])
        with torch.no_grad():
            rows.append(run({name: torch.tensor(x) for name, x in inputs.items()})[0].double())
        weights.append(windows.sequence_ids(index).count(0 if second is None else 1))
    weights = torch.tensor(weights, dtype=torch.float64)
    return (torch.stack(rows) * weights[:, None]).sum(0) / weights.sum(), len(rows)


def main(root):
    given = json.loads((root / "texts.json").read_text(encoding="utf-8"))
    texts, query, limits = given["texts"], given["query"], (given["stride"], given["max_length"])
    classifier = AutoModelForSequenceClassification.from_pretrained(root / "classifier").eval()
    encoder = SentenceTransformer(str(root / "encoder"), device="cpu").eval()
    tokenizer = AutoTokenizer.from_pretrained(root / "classifier")

    def logits(inputs):
        return classifier(**inputs).logits

    def vector(inputs):
        return encoder(inputs)["sentence_embedding"]

    expected = dict(classes=[], pairs=[], vectors=[], windows=[])
    for text in texts:
        mean, windows = mean_of_windows(tokenizer, logits, *limits, text)
        expected["classes"].append(mean.softmax(0).tolist())
        expected["windows"].append(windows)
        mean, _ = mean_of_windows(tokenizer, logits, *limits, query, text)
        expected["pairs"].append(mean.softmax(0).tolist())
        mean, _ = mean_of_windows(tokenizer, vector, *limits, text)
        expected["vectors"].append((mean / mean.norm()).tolist())
    (root / "expected.json").write_text(json.dumps(expected), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
