"""ONNX Runtime as a contestant for inference: answers the requests of the driver, one JSON object per line.

It is used as a careful user would: attention is exported as one operator, and the session fuses other operators. (Its
optimizer for BERT made no difference here.) In int8, linear layers are quantized, with dynamic quantization of
activations.
"""

import json
import os
import shutil
import subprocess
import sys
import time

import torch_peer


class Inference:
    def __init__(self, ask):
        import numpy
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = ask["threads"]
        # In the folder of the batches, where the next run overwrites files that a killed process left behind.
        folder = os.path.join(os.path.dirname(ask["batches"]), "onnx")
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "f32.onnx")
        # In a separate process, so that PyTorch is not loaded in this one.
        subprocess.run([sys.executable, "-B", __file__, "--export", json.dumps(ask), path], check=True)
        path = quantized(path) if ask["dtype"] == "int8" else path
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        shutil.rmtree(folder)
        inputs = [value.name for value in self.session.get_inputs()]
        names = {"input_ids": "ids", "token_type_ids": "token_types", "attention_mask": "attention_mask"}
        batches = json.load(open(ask["batches"]))
        array = lambda batch, field: numpy.array(batch[field], numpy.int64).reshape(-1, batch["length"])
        self.batches = [{name: array(batch, names[name]) for name in inputs} for batch in batches]
        self.mask = array(batches[0], "attention_mask").astype(bool)
        self.runs = 0

    def forward(self, number):
        return self.session.run(None, self.batches[number % len(self.batches)])[0]

    def check(self):
        outputs = self.forward(0)
        # Without padding.
        outputs = outputs[self.mask] if outputs.ndim == 3 else outputs
        return outputs.flatten().tolist()

    def run(self):
        start = time.perf_counter()
        self.forward(self.runs)
        self.runs += 1
        return time.perf_counter() - start


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
    return {"ready": {"onnxruntime": onnxruntime.__version__}}, Inference(ask)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--export"]:
        export(json.loads(sys.argv[2]), sys.argv[3])
    else:
        torch_peer.serve(prepare)
