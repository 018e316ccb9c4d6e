"""ONNX Runtime as a contestant for inference: answers the requests of the driver, one JSON object per line.

It is used as a careful user would: attention is exported as one operator, and the session fuses other operators. (Its
optimizer for BERT made no difference here.) It runs in its fastest form: a padded batch, groups of eight sentences of similar
lengths, sentences one by one, or one by one on each thread. In int8, linear layers are quantized, with dynamic quantization of
activations.
"""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import forms
import torch_peer


class Inference:
    def __init__(self, ask):
        # In the folder of the batches, where the next run overwrites files that a killed process left behind.
        folder = os.path.join(os.path.dirname(ask["batches"]), "onnx")
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "f32.onnx")
        # In a separate process, so that PyTorch is not loaded in this one.
        subprocess.run([sys.executable, "-B", __file__, "--export", json.dumps(ask), path], check=True)
        path = quantized(path) if ask["dtype"] == "int8" else path
        self.session, self.single = session(path, ask["threads"]), session(path, 1)
        shutil.rmtree(folder)
        self.names = [value.name for value in self.session.get_inputs()]
        self.batches = [forms.arrays(batch) for batch in json.load(open(ask["batches"]))]
        self.mask = self.batches[0]["attention_mask"].astype(bool)
        self.batches = [([batch], forms.groups(batch, 8), forms.groups(batch, 1)) for batch in self.batches]
        self.pool = ThreadPoolExecutor(ask["threads"])
        choices = {
            "padded": lambda batch: self.outputs(self.session, batch[0]),
            "in groups of 8": lambda batch: self.outputs(self.session, batch[1]),
            "one by one": lambda batch: self.outputs(self.session, batch[2]),
            # The longest first, so that no thread waits for another at the end.
            "one by one on each thread": lambda batch: list(self.pool.map(self.one, batch[2][::-1])),
        }
        self.form, self.forward = forms.fastest(choices, self.batches[0])
        self.runs = 0

    def one(self, inputs):
        return self.single.run(None, {name: inputs[name] for name in self.names})[0]

    def outputs(self, session, parts):
        return [session.run(None, {name: inputs[name] for name in self.names})[0] for inputs in parts]

    def check(self):
        outputs = self.outputs(self.session, self.batches[0][0])[0]
        # Without padding.
        outputs = outputs[self.mask] if outputs.ndim == 3 else outputs
        return outputs.flatten().tolist()

    def run(self):
        seconds = forms.timed(self.forward, self.batches[self.runs % len(self.batches)])
        self.runs += 1
        return seconds


def session(path, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def export(ask, path):
    """Writes the model as ONNX."""
    import torch

    model = torch_peer.inference_model(ask["task"], ask["model"])
    example = torch_peer.tensors(json.load(open(ask["batches"]))[0])
    dimensions = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    shapes = {name: dimensions for name in example}
    # Since opset 23, attention is one operator.
    torch.onnx.export(model, (), path, kwargs=example, dynamic_shapes=shapes, opset_version=23, dynamo=True)
    if ask["dtype"] == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        # One scale per output channel costs no time here and removes four fifths of the error.
        settings = {"weight_type": QuantType.QInt8, "per_channel": True, "op_types_to_quantize": ["MatMul", "Gemm"]}
        quantize_dynamic(path, quantized(path), use_external_data_format=True, **settings)


def quantized(path):
    return os.path.join(os.path.dirname(path), "int8.onnx")


def prepare(ask):
    try:
        import onnxruntime
    except ImportError as error:
        return {"unable": str(error)}, None
    subject = Inference(ask)
    return {"ready": {"onnxruntime": f"{onnxruntime.__version__} ({subject.form})"}}, subject


if __name__ == "__main__":
    if sys.argv[1:2] == ["--export"]:
        export(json.loads(sys.argv[2]), sys.argv[3])
    else:
        torch_peer.serve(prepare)
