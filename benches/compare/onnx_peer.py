"""ONNX Runtime as a contestant: answers the driver's requests, a JSON object a line. Inference only.

Its user is careful: the model is exported once, fused by ONNX Runtime's own optimizer for BERT, and for int8 its weights
are quantized (dynamically: activations as they come).
"""

import json
import os
import tempfile
import time

import torch_peer


class Inference:
    def __init__(self, ask):
        import numpy
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = ask["threads"]
        with tempfile.TemporaryDirectory() as folder:
            path = export(ask, folder)
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        inputs = [value.name for value in self.session.get_inputs()]
        names = {"input_ids": "ids", "token_type_ids": "token_types", "attention_mask": "attention_mask"}
        self.batches = []
        for batch in json.load(open(ask["batches"])):
            array = lambda field: numpy.array(batch[field], numpy.int64).reshape(-1, batch["length"])
            self.batches.append({name: array(field) for name, field in names.items() if name in inputs})
            self.mask = self.mask if len(self.batches) > 1 else array("attention_mask").astype(bool)
        self.runs = 0

    def forward(self, number):
        return self.session.run(None, self.batches[number % len(self.batches)])[0]

    def check(self):
        outputs = self.forward(0)
        # Of tokens, not of padding.
        outputs = outputs[self.mask] if outputs.ndim == 3 else outputs
        return outputs.flatten().tolist()

    def run(self):
        start = time.perf_counter()
        self.forward(self.runs)
        self.runs += 1
        return time.perf_counter() - start


def export(ask, folder):
    """Writes the model as ONNX; gives the file's path."""
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model

    model = torch_peer.inference_model(ask["task"], ask["model"])
    config = model.bert.config
    example = torch_peer.tensors(json.load(open(ask["batches"]))[0])
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    exported, fused, quantized = (os.path.join(folder, name + ".onnx") for name in ("exported", "fused", "int8"))
    shapes = {name: {0: batch, 1: length} for name in example}
    torch.onnx.export(model, (), exported, kwargs=example, dynamic_shapes=shapes, dynamo=True)
    heads, hidden = config.num_attention_heads, config.hidden_size
    optimized = optimize_model(exported, model_type="bert", num_heads=heads, hidden_size=hidden)
    print(optimized.get_fused_operator_statistics())
    optimized.save_model_to_file(fused, use_external_data_format=True)
    if ask["dtype"] == "int8":
        quantize_dynamic(fused, quantized, weight_type=QuantType.QInt8, use_external_data_format=True)
        return quantized
    return fused


def prepare(ask):
    try:
        import onnxruntime
        import onnxscript  # noqa: F401: what the export needs
    except ImportError as error:
        return {"unable": str(error)}, None
    return {"ready": {"onnxruntime": onnxruntime.__version__}}, Inference(ask)


if __name__ == "__main__":
    torch_peer.serve(prepare)
