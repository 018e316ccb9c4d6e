"""python sentence_settings.py DIRECTORY: writes a folder for each setting of sentence-transformers, and its vectors.

DIRECTORY contains `model`, a bare encoder written by cloze, `classifier`, one of one label, and `texts.json`, a list of
strings. Writes folders `NAME` with `expected.json`: a list of vectors for each prompt, or the scores of all pairs.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from peft import LoraConfig
from sentence_transformers import CrossEncoder, SentenceTransformer

MODULES = "sentence_transformers.models."


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def folder(root, name, poolings=("mean",), include_prompt=True, dense=None, normalize=False, **files):
    """Writes a folder as older versions do."""
    path = root / name
    shutil.copytree(root / "model", path)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    pooling = dict(word_embedding_dimension=48, pooling_mode=list(poolings), include_prompt=include_prompt)
    write(path / "1_Pooling/config.json", pooling)
    if dense:
        torch.manual_seed(3)
        bias, activation = dense
        layer = torch.nn.Linear(48, 20, bias=bias)
        config = dict(in_features=48, out_features=20, bias=bias, activation_function=activation)
        write(path / "2_Dense/config.json", config)
        torch.save({f"linear.{key}": value for key, value in layer.state_dict().items()}, path / "2_Dense/pytorch_model.bin")
        modules.append(("2_Dense", "Dense"))
    if normalize:
        modules.append((f"{len(modules)}_Normalize", "Normalize"))
    write(path / "modules.json", [dict(idx=i, name=str(i), path=p, type=MODULES + c) for i, (p, c) in enumerate(modules)])
    for file, content in files.items():
        write(path / f"{file}.json", content)
    return path


def expect(path, texts):
    model = SentenceTransformer(str(path), device="cpu")
    expected = {
        "": model.encode(texts),
        "query": model.encode_query(texts),
        "document": model.encode_document(texts),
    }
    for name in model.prompts:
        expected.setdefault(name, model.encode(texts, prompt_name=name))
    expected = {name: vectors.tolist() for name, vectors in expected.items()}
    write(path / "expected.json", expected)
    # As version 6 writes it.
    again = path.with_name(path.name + "-again")
    model.save(str(again))
    write(again / "expected.json", expected)


def encoders(root, texts):
    prompts = dict(prompts=dict(query="Query: ", passage="The cat "), default_prompt_name="query")
    tanh, identity = "torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"
    paths = [
        folder(root, "prompts", config_sentence_transformers=prompts),
        folder(root, "excluded", ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"],
               include_prompt=False, config_sentence_transformers=prompts),
        folder(root, "weighted", ["weightedmean"], normalize=True),
        folder(root, "last", ["lasttoken"]),
        folder(root, "dense", dense=(True, tanh), normalize=True),
        folder(root, "dense-plain", ["cls"], dense=(False, identity)),
        folder(root, "lower", sentence_bert_config=dict(max_seq_length=9, do_lower_case=True)),
        folder(root, "old-name", sentence_distilbert_config=dict(max_seq_length=6)),
        folder(root, "truncated", normalize=True, config_sentence_transformers=dict(truncate_dim=16)),
    ]
    for path in paths:
        expect(path, texts)

    model = SentenceTransformer(str(root / "weighted"), device="cpu")
    model.add_adapter(LoraConfig(r=2, target_modules=["query", "dense"], task_type="FEATURE_EXTRACTION"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save(str(root / "adapter"))
    write(root / "adapter/expected.json", {"": model.encode(texts).tolist()})


def cross_encoders(root, texts):
    for name, fields in dict(
        cross={},
        identity=dict(sentence_transformers=dict(activation_fn="torch.nn.modules.linear.Identity")),
        old=dict(sbert_ce_default_activation_function="torch.nn.modules.linear.Identity"),
    ).items():
        path = root / f"cross-{name}"
        shutil.copytree(root / "classifier", path)
        config = json.loads((path / "config.json").read_text())
        write(path / "config.json", config | fields)
        model = CrossEncoder(str(path), device="cpu")
        scores = model.predict([(a, b) for a in texts for b in texts]).tolist()
        again = root / f"cross-{name}-again"
        model.save(str(again))
        for folder_ in [path, again]:
            write(folder_ / "expected.json", scores)


def main(root):
    texts = json.loads((root / "texts.json").read_text(encoding="utf-8"))
    encoders(root, texts)
    cross_encoders(root, texts)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
