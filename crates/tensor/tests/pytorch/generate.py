"""Writes the torch.save fixtures in this directory, and the tensors that they contain.

    pip install -r requirements.txt
    python generate.py            # rewrites the files, byte for byte
    python generate.py DIRECTORY  # writes them elsewhere, to compare

    zip.bin, legacy.bin                a dictionary with a tensor of each kind, in both formats of torch.save
    module_zip.bin, module_legacy.bin  the state dict of a module, an OrderedDict with `_metadata`
    wrapped_zip.bin, wrapped_legacy.bin  a training checkpoint with the same state dict under "state_dict"
    whole_module.bin                   a pickled module, which needs its class
    expanded.bin                       a view that repeats a single number
    expected.safetensors               all tensors of zip.bin, row-major
    expected_module.safetensors        all tensors of module_zip.bin
"""

import pickle
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file


def tensors():
    torch.manual_seed(1)
    table = torch.randn(4, 5)
    tied = torch.randn(2, 3)
    return {
        "f32": torch.randn(3, 4),
        "f16": torch.randn(5).half(),
        "bf16": torch.randn(2, 3).bfloat16(),
        "f64": torch.randn(4).double(),
        "i64": torch.tensor([[-100, 2**40], [0, 7]]),
        "i32": torch.tensor([1, -2], dtype=torch.int32),
        "i16": torch.tensor([1, -2], dtype=torch.int16),
        "i8": torch.tensor([1, -2], dtype=torch.int8),
        "u8": torch.tensor([1, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        # Three views of one storage.
        "whole": table,
        "transposed": table.t(),
        "window": table[1:, 2:4],
        "permuted": torch.randn(2, 3, 4).half().permute(2, 0, 1),
        "every_other": torch.randn(7)[1::2],
        "tied.a": tied,
        "tied.b": tied,
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(1.5),
    }


def module():
    torch.manual_seed(2)
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2), torch.nn.BatchNorm1d(2))


def checkpoint():
    return {
        "epoch": 3,
        "tokens": 2**33,
        "lr": 0.1,
        "name": "run",
        "best": None,
        "done": True,
        "history": [1.0, 2.0],
        "size": torch.Size([2, 3]),
        "optimizer": {"state": {0: {"step": torch.tensor(4.0)}}, "param_groups": [{"params": [0, 1]}]},
        "state_dict": module().state_dict(),
    }


def save_legacy(value, path):
    """Saves in the format before 1.6, with storages numbered in order of appearance instead of named by address."""
    keys = {}

    def name(address):
        return keys.setdefault(address, f"{len(keys):03}")

    torch.serialization.str = name
    try:
        with open(path, "wb") as file:
            torch.serialization._legacy_save(value, file, pickle, 2)
    finally:
        del torch.serialization.str


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else __file__)
    folder = folder.parent if folder.is_file() else folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in [("", tensors()), ("module_", module().state_dict()), ("wrapped_", checkpoint())]:
        torch.save(value, folder / f"{name}zip.bin")
        save_legacy(value, folder / f"{name}legacy.bin")
    torch.save(module(), folder / "whole_module.bin")
    torch.save({"x": torch.ones(1).expand(5)}, folder / "expanded.bin")

    def rows(values):
        return {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in values.items()}

    save_file(rows(tensors()), folder / "expected.safetensors")
    save_file(rows(module().state_dict()), folder / "expected_module.safetensors")


if __name__ == "__main__":
    main()
