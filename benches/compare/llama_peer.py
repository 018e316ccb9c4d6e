"""llama.cpp as a contestant for embeddings: answers the requests of the driver, one JSON object per line.

The model is written as GGUF: f32 weights in f32, f16 weights in place of bf16, and Q8_0 for int8. It runs in its faster form: all sentences in one batch, without padding, or one by one.
"""

import json
import os

import forms
import torch_peer


class Inference:
    def __init__(self, ask):
        import llama_cpp

        self.llama = llama_cpp
        self.batches = [sentences(batch) for batch in json.load(open(ask["batches"]))]
        most = max(map(len, self.batches))
        # llama.cpp wants a multiple of the number of sentences.
        tokens = -(-max(sum(map(len, batch)) for batch in self.batches) // most) * most
        path = os.path.join(os.path.dirname(ask["batches"]), "model.gguf")
        weights, self.width = write_gguf(ask["model"], path, ask["dtype"])
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        os.remove(path)
        if not self.model:
            raise RuntimeError("cannot load the model")
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = tokens
        settings.n_seq_max = most
        settings.n_threads = settings.n_threads_batch = ask["threads"]
        settings.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_MEAN
        settings.embeddings = True
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        self.buffer = llama_cpp.llama_batch_init(tokens, 0, 1)
        choices = {"all in one batch": self.encode, "one by one": self.each}
        form, self.forward = forms.fastest(choices, self.batches[0])
        self.form = f"{weights}, {form}"
        self.runs = 0

    def encode(self, batch):
        """Returns the normalised mean of the hidden states of each sentence."""
        import numpy

        at = 0
        for number, ids in enumerate(batch):
            for position, token in enumerate(ids):
                self.buffer.token[at] = token
                self.buffer.pos[at] = position
                self.buffer.n_seq_id[at] = 1
                self.buffer.seq_id[at][0] = number
                self.buffer.logits[at] = True
                at += 1
        self.buffer.n_tokens = at
        if self.llama.llama_encode(self.context, self.buffer) != 0:
            raise RuntimeError("llama_encode failed")
        pooled = [self.llama.llama_get_embeddings_seq(self.context, number) for number in range(len(batch))]
        means = numpy.array([numpy.ctypeslib.as_array(mean, shape=(self.width,)) for mean in pooled])
        return means / numpy.linalg.norm(means, axis=1, keepdims=True)

    def each(self, batch):
        return [self.encode([ids]) for ids in sorted(batch, key=len)]

    def check(self):
        return self.encode(self.batches[0]).flatten().tolist()

    def run(self):
        seconds = forms.timed(self.forward, self.batches[self.runs % len(self.batches)])
        self.runs += 1
        return seconds


def sentences(batch):
    """Returns the token ids of each row, without padding."""
    length = batch["length"]
    rows = range(0, len(batch["ids"]), length)
    return [[id for id, mask in zip(batch["ids"][at : at + length], batch["attention_mask"][at : at + length]) if mask] for at in rows]


def write_gguf(folder, path, dtype):
    """Writes the model as GGUF, without a vocabulary. Returns the type of the weights and the hidden size."""
    import gguf
    import numpy
    from safetensors.numpy import load_file

    config = json.load(open(os.path.join(folder, "config.json")))
    kind = {"f32": gguf.GGMLQuantizationType.F32, "bf16": gguf.GGMLQuantizationType.F16, "int8": gguf.GGMLQuantizationType.Q8_0}[dtype]
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_token_type_count(config["type_vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config["num_hidden_layers"])
    for name, values in load_file(os.path.join(folder, "model.safetensors")).items():
        target = names.get_name(name.removeprefix("bert."), try_suffixes=(".weight", ".bias"))
        if target is None or "pooler" in name:
            continue
        # As in llama.cpp's own conversion: vectors, positions and token types stay in f32.
        plain = values.ndim == 1 or target.startswith(("position_embd", "token_types"))
        of = gguf.GGMLQuantizationType.F32 if plain else kind
        writer.add_tensor(target, gguf.quants.quantize(values.astype(numpy.float32), of), raw_dtype=of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return kind.name, config["hidden_size"]


def prepare(ask):
    try:
        import gguf
        import llama_cpp
    except ImportError as error:
        return {"unable": str(error)}, None
    subject = Inference(ask)
    return {"ready": {"llama-cpp-python": f"{llama_cpp.__version__} ({subject.form})"}}, subject


if __name__ == "__main__":
    torch_peer.serve(prepare)
