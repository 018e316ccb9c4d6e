#!/usr/bin/env python3
"""Applies the section "Adding an operation" of CONTRIBUTING.md to a checkout.

    apply.py COPY

The first line of each code block names its file: `// PATH` creates the file, `// PATH, in NAME` inserts the block after the
line that opens the list NAME, and `// PATH, after LINE` inserts it after that line. The name or line must occur exactly
once, so a page that no longer matches the code fails here.
"""

import pathlib
import re
import sys


def blocks(page: str):
    section = page.split("\n## Adding an operation\n")[1].split("\n## ")[0]
    return re.findall(r"^```(?:rust,ignore|cuda)\n// (.*?)\n(.*?)^```$", section, re.M | re.S)


def insert(text: str, place: str, block: str) -> str:
    kind, what = place.split(" ", 1)
    pattern = {
        "in": rf"^ *{re.escape(what)}[^\n]*[\[{{(]\n",
        "after": rf"^{re.escape(what)}\n",
    }[kind]
    found = list(re.finditer(pattern, text, re.M))
    if len(found) != 1:
        sys.exit(f"`{what}` occurs {len(found)} times, not once")
    return text[: found[0].end()] + block + text[found[0].end() :]


def main():
    root = pathlib.Path(sys.argv[1])
    for head, block in blocks((root / "CONTRIBUTING.md").read_text()):
        name, _, place = head.partition(", ")
        path = root / name
        if place:
            path.write_text(insert(path.read_text(), place, block))
        elif path.exists():
            sys.exit(f"{name} exists")
        else:
            path.write_text(block)
        print(f"{name}{': ' + place if place else ''}")


main()
