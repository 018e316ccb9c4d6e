"""PyTorch and transformers as a contestant: answers the requests of the driver, one JSON object per line.

It is used as a careful user would: padded batches as in the course, `torch.autocast` for bf16 (entered once for
inference, so that weights are rounded once), `torch.compile` if requested, and no gradients for inference.

`torch_peer.py --first-answer FOLDER SENTENCE` prints the vector of a sentence instead.
"""

import contextlib
import json
import os
import sys
import time

import forms

# Standard output is reserved for replies, so everything that a library prints goes to standard error.
REPLIES = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
# Without background processes for compilation, which would disturb the timings of other contestants.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

CHECKED_STEPS = 3


class Training:
    def __init__(self, ask):
        import torch
        from transformers import BertForPreTraining, BertForSequenceClassification

        head = {"pre_training": BertForPreTraining, "classification": BertForSequenceClassification}[ask["task"]]
        self.torch = torch
        self.model = head.from_pretrained(ask["model"], dtype=torch.float32)
        self.forward = torch.compile(self.model) if ask["compile"] else self.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=ask["learning_rate"])
        self.bf16 = ask["dtype"] == "bf16"
        self.batches = [self.inputs(batch) for batch in json.load(open(ask["batches"]))]
        self.runs = 0

    def inputs(self, batch):
        inputs = tensors(batch)
        labels = self.torch.tensor(batch["labels"])
        if batch["next_sentence"]:
            inputs["labels"] = labels.view(-1, batch["length"])
            inputs["next_sentence_label"] = self.torch.tensor(batch["next_sentence"])
        else:
            inputs["labels"] = labels
        return inputs

    def step(self, number):
        self.optimizer.zero_grad()
        with self.torch.autocast("cpu", dtype=self.torch.bfloat16, enabled=self.bf16):
            loss = self.forward(**self.batches[number % len(self.batches)]).loss
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()

    def check(self):
        self.model.eval()
        return [self.step(number) for number in range(CHECKED_STEPS)]

    def run(self):
        self.model.train()
        start = time.perf_counter()
        self.step(self.runs)
        self.runs += 1
        return time.perf_counter() - start


class Inference:
    def __init__(self, ask):
        import torch

        self.torch = torch
        self.model = inference_model(ask["task"], ask["model"])
        if ask["dtype"] == "int8":
            # One scale per output channel.
            linear = {torch.nn.Linear: torch.ao.quantization.per_channel_dynamic_qconfig}
            self.model = torch.ao.quantization.quantize_dynamic(self.model, linear)
        self.forward = torch.compile(self.model) if ask["compile"] else self.model
        self.contexts = contextlib.ExitStack()
        self.contexts.enter_context(torch.no_grad())
        self.contexts.enter_context(torch.autocast("cpu", dtype=torch.bfloat16, enabled=ask["dtype"] == "bf16"))
        self.batches = [tensors(batch) for batch in json.load(open(ask["batches"]))]
        self.parts = [([batch], forms.groups(batch, 8), forms.groups(batch, 1)) for batch in self.batches]
        choices = {"in groups of 8": lambda parts: self.each(parts[1]), "one by one": lambda parts: self.each(parts[2])}
        padded = "padded", lambda parts: self.each(parts[0])
        self.form, self.run_form = forms.fastest(choices, self.parts[0]) if ask["unpadded"] else padded
        self.runs = 0

    def each(self, parts):
        for part in parts:
            self.forward(**part)

    def check(self):
        batch = self.batches[0]
        outputs = self.forward(**batch).float()
        # Without padding.
        outputs = outputs[batch["attention_mask"].bool()] if outputs.dim() == 3 else outputs
        return outputs.flatten().tolist()

    def run(self):
        seconds = forms.timed(self.run_form, self.parts[self.runs % len(self.parts)])
        self.runs += 1
        return seconds


def tensors(batch):
    import torch

    names = {"input_ids": "ids", "token_type_ids": "token_types", "attention_mask": "attention_mask"}
    return {name: torch.tensor(batch[field]).view(-1, batch["length"]) for name, field in names.items()}


def inference_model(task, folder):
    """Returns a module that computes what the driver compares: logits [B, L, 2], or normalised embeddings [B, H]."""
    import torch
    from transformers import BertForQuestionAnswering, BertModel

    class Answers(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = BertForQuestionAnswering.from_pretrained(folder, dtype=torch.float32)

        def forward(self, input_ids, token_type_ids, attention_mask):
            output = self.bert(input_ids=input_ids, token_type_ids=token_type_ids, attention_mask=attention_mask)
            return torch.stack([output.start_logits, output.end_logits], dim=-1)

    class Embeddings(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = BertModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False)

        def forward(self, input_ids, token_type_ids, attention_mask):
            output = self.bert(input_ids=input_ids, token_type_ids=token_type_ids, attention_mask=attention_mask)
            mask = attention_mask.unsqueeze(-1).float()
            mean = (output.last_hidden_state * mask).sum(1) / mask.sum(1)
            return torch.nn.functional.normalize(mean)

    return {"question_answering": Answers, "embedding": Embeddings}[task]().eval()


def prepare(ask):
    try:
        import torch
        import transformers
    except ImportError as error:
        return {"unable": str(error)}, None
    torch.set_num_threads(ask["threads"])
    torch.manual_seed(7)
    trains = ask["task"] in ("pre_training", "classification")
    subject = Training(ask) if trains else Inference(ask)
    version = f"{torch.__version__} ({subject.form})" if ask["unpadded"] else torch.__version__
    return {"ready": {"torch": version, "transformers": transformers.__version__}}, subject


def serve(prepare):
    """Answers requests. `prepare` returns the reply to the first one, and the object to check and time."""
    subject = None
    for line in sys.stdin:
        ask = json.loads(line)
        try:
            if ask["ask"] == "prepare":
                reply, subject = prepare(ask)
            elif ask["ask"] == "check":
                reply = {"numbers": subject.check()}
            else:
                reply = {"seconds": subject.run()}
        except Exception as error:
            reply = {"failed": " ".join(f"{type(error).__name__}: {error}".split())[:400]}
        print(json.dumps(reply), file=REPLIES, flush=True)


def first_answer(folder, sentence):
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = inference_model("embedding", folder)
    with torch.no_grad():
        vectors = model(**tokenizer([sentence], return_tensors="pt"))
    print(json.dumps(vectors[0].tolist()), file=REPLIES, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--first-answer"]:
        first_answer(*sys.argv[2:])
    else:
        serve(prepare)
