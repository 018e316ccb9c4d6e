"""python adapter_forms.py write|read DIRECTORY: writes adapters of every form with peft, or opens them after cloze.

DIRECTORY contains `classifier` and `encoder`, models written by cloze, and `outputs.safetensors` with a batch. `write`
writes a folder for each form, `NAME`, with the outputs of its model in `NAME.safetensors`. `read` opens `NAME-again`, as
cloze saved the adapters of `NAME`, and compares the outputs.
"""

import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification

from outputs import outputs, read_batch

TOLERANCE = 1e-5

# The names say the class of the model.
FORMS = {
    "classifier-alphas": dict(target_modules=["query", "dense"], alpha_pattern={"layer.1.output.dense": 3, "query": 9}),
    "classifier-ranks": dict(target_modules=["query", "value"], rank_pattern={"value": 5}, use_rslora=True),
    "classifier-regex": dict(target_modules=r".*layer\.1\..*(query|value)", lora_bias=True),
    "classifier-layers": dict(target_modules=["key"], layers_to_transform=[1], task_type="SEQ_CLS"),
    "classifier-linear": dict(target_modules="all-linear"),
    "classifier-modules": dict(target_modules=["query"], modules_to_save=["pooler", "LayerNorm", "classifier"]),
    "classifier-gaussian": dict(target_modules=["dense"], init_lora_weights="gaussian", exclude_modules=["pooler.dense"]),
    "encoder-bare": dict(target_modules=["query", "dense"]),
    "encoder-linear": dict(target_modules="all-linear", lora_bias=True, task_type="FEATURE_EXTRACTION"),
}


def base(root, name):
    kind = name.split("-")[0]
    classes = dict(classifier=AutoModelForSequenceClassification, encoder=AutoModel)
    return classes[kind].from_pretrained(root / kind)


def write(root, batch):
    for name, form in FORMS.items():
        torch.manual_seed(7)
        model = get_peft_model(base(root, name), LoraConfig(r=3, lora_alpha=12, **form))
        for parameter_name, parameter in model.named_parameters():
            # As after training, when B is not zero.
            if "lora_B" in parameter_name or "modules_to_save" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.2)
        model.eval()
        model.save_pretrained(root / name)
        save_file({"adapted": outputs(model.base_model.model, batch)}, root / f"{name}.safetensors")


def read(root, batch):
    for name in FORMS:
        model = PeftModel.from_pretrained(base(root, name), root / f"{name}-again")
        expected = load_file(root / f"{name}.safetensors")["adapted"]
        largest = float((outputs(model.base_model.model, batch) - expected).abs().max())
        print(f"{name}, as cloze saved it: {largest:.1e}")
        assert largest <= TOLERANCE, f"{name}: outputs differ by {largest:.1e}"


def main(action, root):
    batch = read_batch(load_file(root / "outputs.safetensors"))
    dict(write=write, read=read)[action](root, batch)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
