"""OpenVINO as a contestant for inference: answers the requests of the driver, one JSON object per line.

It is used in its fastest form: a padded batch, sentences one by one, or one by one in streams, one per thread. In int8, NNCF
quantizes the model on the batches of the workload.
"""

import json
import os
import shutil
import subprocess
import sys

import forms
import torch_peer


class Inference:
    def __init__(self, ask):
        import openvino

        folder = os.path.join(os.path.dirname(ask["batches"]), "openvino")
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "f32.onnx")
        # In a separate process, so that PyTorch is not loaded in this one.
        subprocess.run([sys.executable, "-B", __file__, "--export", json.dumps(ask), path], check=True)
        path = os.path.join(folder, "int8.xml") if ask["dtype"] == "int8" else path
        settings = {"INFERENCE_NUM_THREADS": ask["threads"], "INFERENCE_PRECISION_HINT": "f32"}
        core = openvino.Core()
        compiled = lambda hint: core.compile_model(path, "CPU", settings | {"PERFORMANCE_HINT": hint})
        self.one, streams = compiled("LATENCY"), compiled("THROUGHPUT")
        self.names = [value.get_any_name() for value in self.one.inputs]
        self.queue = openvino.AsyncInferQueue(streams, ask["threads"])
        shutil.rmtree(folder)
        self.batches = [forms.arrays(batch) for batch in json.load(open(ask["batches"]))]
        self.mask = self.batches[0]["attention_mask"].astype(bool)
        self.batches = [(batch, forms.groups(batch, 1)) for batch in self.batches]
        choices = {"padded": self.whole, "one by one": self.each, "one by one, in streams": self.streams}
        self.form, self.forward = forms.fastest(choices, self.batches[0])
        self.runs = 0

    def inputs(self, batch):
        return {name: batch[name] for name in self.names}

    def whole(self, batch):
        return self.one(self.inputs(batch[0]))[0]

    def each(self, batch):
        return [self.one(self.inputs(single))[0].copy() for single in batch[1]]

    def streams(self, batch):
        for single in batch[1]:
            self.queue.start_async(self.inputs(single))
        self.queue.wait_all()

    def check(self):
        outputs = self.whole(self.batches[0])
        # Without padding.
        outputs = outputs[self.mask] if outputs.ndim == 3 else outputs
        return outputs.flatten().tolist()

    def run(self):
        seconds = forms.timed(self.forward, self.batches[self.runs % len(self.batches)])
        self.runs += 1
        return seconds


def export(ask, path):
    """Writes the model as ONNX, and in int8 as OpenVINO's own format."""
    import torch

    model = torch_peer.inference_model(ask["task"], ask["model"])
    batches = json.load(open(ask["batches"]))
    example = torch_peer.tensors(batches[0])
    dimensions = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    shapes = {name: dimensions for name in example}
    torch.onnx.export(model, (), path, kwargs=example, dynamic_shapes=shapes, opset_version=18, dynamo=True)
    if ask["dtype"] == "int8":
        import nncf
        import openvino

        source = openvino.Core().read_model(path)
        names = [value.get_any_name() for value in source.inputs]
        data = [{name: single[name] for name in names} for batch in batches[:4] for single in forms.groups(forms.arrays(batch), 1)]
        settings = {"model_type": nncf.ModelType.TRANSFORMER, "preset": nncf.QuantizationPreset.MIXED}
        openvino.save_model(nncf.quantize(source, nncf.Dataset(data), **settings), path.replace("f32.onnx", "int8.xml"))


def prepare(ask):
    try:
        import openvino
    except ImportError as error:
        return {"unable": str(error)}, None
    subject = Inference(ask)
    return {"ready": {"openvino": f"{openvino.__version__.split('-')[0]} ({subject.form})"}}, subject


if __name__ == "__main__":
    if sys.argv[1:2] == ["--export"]:
        export(json.loads(sys.argv[2]), sys.argv[3])
    else:
        torch_peer.serve(prepare)
