"""The forms in which peers compute a batch of sentences; a peer runs in the one that is fastest for it."""

import time


def timed(forward, batch):
    """Returns the seconds that `forward` takes."""
    start = time.perf_counter()
    forward(batch)
    return time.perf_counter() - start


def fastest(forms, batch):
    """Returns the name and the function of the fastest form: `forms` maps names to functions of a batch."""
    seconds = {name: min(timed(forward, batch) for _ in range(3)) for name, forward in forms.items()}
    name = min(seconds, key=seconds.get)
    return name, forms[name]


def arrays(batch):
    """Returns the inputs of a model as NumPy arrays, padded."""
    import numpy

    names = {"input_ids": "ids", "token_type_ids": "token_types", "attention_mask": "attention_mask"}
    return {name: numpy.array(batch[field], numpy.int64).reshape(-1, batch["length"]) for name, field in names.items()}


def groups(inputs, size):
    """Splits padded inputs, arrays or tensors, into groups of sentences of similar lengths, the shortest first, each padded to
    its longest sentence."""
    lengths = inputs["attention_mask"].sum(1).tolist()
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    parts = [order[at : at + size] for at in range(0, len(order), size)]
    return [{name: values[rows, : lengths[rows[-1]]] for name, values in inputs.items()} for rows in parts]
