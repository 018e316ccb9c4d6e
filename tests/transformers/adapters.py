"""python adapters.py DIRECTORY: opens adapters of cloze in peft, and writes adapters of peft for cloze.

DIRECTORY contains `model` and `ours`, written by cloze, and `outputs.safetensors` with a batch and the outputs of the
model with its adapters. Writes adapters to `theirs`, and the outputs of the model with them to `theirs.safetensors`.
"""

import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from outputs import outputs, read_batch

TOLERANCE = 1e-5


def main(root):
    torch.manual_seed(5)
    stored = load_file(root / "outputs.safetensors")
    batch = read_batch(stored)
    plain = lambda: AutoModelForSequenceClassification.from_pretrained(root / "model")
    answers = lambda adapted: outputs(adapted.base_model.model, batch)

    ours = answers(PeftModel.from_pretrained(plain(), root / "ours"))
    largest = float((ours - stored["adapted"]).abs().max())
    print(f"adapters of cloze in peft: {largest:.1e}")
    assert largest <= TOLERANCE, f"outputs differ by {largest:.1e}"

    targets = ["query", "attention.output.dense", "intermediate.dense"]
    config = LoraConfig(r=3, lora_alpha=12, target_modules=targets, modules_to_save=["classifier"])
    theirs = get_peft_model(plain(), config)
    for name, parameter in theirs.named_parameters():
        # As after training, when B is not zero.
        if "lora_B" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    theirs.save_pretrained(root / "theirs")
    save_file({"adapted": answers(theirs)}, root / "theirs.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
