"""python write_models.py DIRECTORY: writes model folders with transformers, and the outputs of the models.

There is a folder for each architecture and for each storage format of weights. `expected.safetensors` contains the
batch, and the outputs of the model in each folder by the name of the folder.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers.utils.logging import disable_progress_bar

from outputs import outputs  # first, because it adds the folder of the next two to the path
from batches import Batch  # isort: skip
from models import FIXTURES, build, randomize  # isort: skip

ARCHITECTURES = [
    "Model",
    "ForPreTraining",
    "ForMaskedLM",
    "ForNextSentencePrediction",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
]


def save_bin(model, folder, **options):
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin", **options)


STORED = {
    "sharded": lambda model, folder: model.save_pretrained(folder, max_shard_size="50KB"),
    "bin_zip": save_bin,
    "bin_legacy": lambda model, folder: save_bin(model, folder, _use_new_zipfile_serialization=False),
}


def main(root):
    disable_progress_bar()
    generator = torch.Generator().manual_seed(7)
    batch = Batch.draw([3, 1, 17, 9], 43, 2, generator)
    expected = batch.tensors()
    for fixture in (FIXTURES["head_size_24"], FIXTURES["distilbert"]):
        for suffix in ARCHITECTURES:
            if fixture["family"] == "DistilBert" and suffix in ("ForPreTraining", "ForNextSentencePrediction"):
                continue
            labels = dict(num_labels=3) if suffix in ("ForSequenceClassification", "ForTokenClassification") else None
            model = build(fixture, suffix, labels)
            randomize(model, generator)
            name = type(model).__name__
            model.save_pretrained(root / name)
            expected[name] = outputs(model, batch)
            if suffix != "ForMaskedLM":
                continue
            for way, save in STORED.items():
                save(model, root / f"{name}.{way}")
                expected[f"{name}.{way}"] = expected[name]
            for way, dtype in (("f16", torch.float16), ("bf16", torch.bfloat16)):
                half = model.to(dtype)
                half.save_pretrained(root / f"{name}.{way}")
                save_bin(half, root / f"{name}.{way}_bin")
                # Computed in f32 from the rounded weights.
                expected[f"{name}.{way}"] = expected[f"{name}.{way}_bin"] = outputs(half.float(), batch)
    assert len(list((root / "BertForMaskedLM.sharded").glob("*.safetensors"))) > 1
    save_file({name: tensor.clone() for name, tensor in expected.items()}, root / "expected.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
