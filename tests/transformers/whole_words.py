"""whole_words.py FILE TOKENIZER: adds to each pair of texts in the JSON file the characters of every answer in the second
text, completed to whole words with `token_to_word` and `word_to_chars`, as the question answering pipeline of
transformers did until version 4."""

import json
import sys

from transformers import AutoTokenizer

file, folder = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
with open(file) as read:
    pairs = json.load(read)
answers = []
for question, context in pairs:
    encoding = tokenizer(question, context).encodings[0]
    tokens = [at for at in range(len(encoding)) if encoding.sequence_ids[at] == 1]
    places = set()
    for start in tokens:
        for end in (end for end in tokens if end >= start):
            first, last = encoding.token_to_word(start), encoding.token_to_word(end)
            places.add((encoding.word_to_chars(first, 1)[0], encoding.word_to_chars(last, 1)[1]))
    answers.append(sorted(places))
with open(file, "w") as write:
    json.dump(answers, write)
