"""Exact search by faiss and torch, for the bench `search`: reads `vectors width queries k library` from standard input and
prints the seconds that the search took."""

import sys
import time

import faiss
import numpy
import torch


def vectors(count, width, seed):
    made = numpy.random.default_rng(seed).standard_normal((count, width), dtype=numpy.float32)
    return made / numpy.linalg.norm(made, axis=1, keepdims=True)


def bits(rows):
    return numpy.packbits(rows > 0, axis=1)


def prepare(library, count, width, queries):
    """Returns a function that searches for the best `k`."""
    stored, asked = vectors(count, width, 1), vectors(queries, width, 2)
    if library == "torch":
        matrix, asked = torch.from_numpy(stored), torch.from_numpy(asked)
        return lambda k: torch.topk(asked @ matrix.T, k)
    if library == "faiss bits":
        index, asked = faiss.IndexBinaryFlat(width), bits(asked)
        index.add(bits(stored))
        return lambda k: index.search(asked, k)
    if library == "faiss int8":
        index = faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
        index.train(stored)
    else:
        index = faiss.IndexFlatIP(width)
    index.add(stored)
    return lambda k: index.search(asked, k)


def main():
    print(f"faiss {faiss.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads", flush=True)
    prepared = {}
    for line in sys.stdin:
        count, width, queries, k, library = line.rstrip("\n").split(" ", 4)
        key = (library, int(count), int(width), int(queries))
        if key not in prepared:
            # Only the indexes of one shape are kept.
            prepared = {other: search for other, search in prepared.items() if other[1:] == key[1:]}
            prepared[key] = prepare(*key)
            prepared[key](int(k))
        begun = time.perf_counter()
        with torch.inference_mode():
            prepared[key](int(k))
        print(time.perf_counter() - begun, flush=True)


if __name__ == "__main__":
    main()
