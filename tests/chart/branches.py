"""Which way each conditional of a template goes, by marks in a copy of the chart.

A mark is put behind every `if`, `with`, `range` and `else`, and behind an `else` of our own where
there is none: a rendering shows which of them were passed. What is named (`define`) has tests of
its own: it makes words, and a mark would be part of them. A list that is empty is a matter of the
schema: a `range` has to be entered, no more.
"""

import pathlib
import re
import shutil
from collections.abc import Iterator

_ACTION = re.compile(r"\{\{(-?)\s*(if|with|range|else|end|define|block)\b[^}]*\}\}")
_MARK = re.compile(r" ?#~([\w./]+:\d+:(?:yes|no))~")
"""A comment of YAML: helm reads what comes out."""


def marked(chart: pathlib.Path, copy: pathlib.Path) -> set[str]:
    """Copy the chart with marks; all of them, as file:line:yes and file:line:no."""
    shutil.copytree(chart, copy, ignore=shutil.ignore_patterns("__pycache__"))
    templates, marks = copy / "templates", set()
    for file in sorted(templates.rglob("*.yaml")):
        name, text = str(file.relative_to(templates)), file.read_text()
        changed = "".join(_with_marks(name, text))
        file.write_text(changed)
        marks |= set(_MARK.findall(changed))
    return marks


def _with_marks(name: str, text: str) -> Iterator[str]:
    done, opened, named = 0, [], 0
    for action in _ACTION.finditer(text):
        before, word = text[done : action.start()], action[2]
        done = action.end()
        yield before
        line = text.count("\n", 0, action.start()) + 1
        if word in ("define", "block"):
            opened.append((line, word, False))
            named += 1
        elif word == "else" and not named:
            # `else if` would need a mark of its own; nobody has written one.
            assert " if " not in action[0], f"{name}:{line}: else if"
            opener, kind, _ = opened.pop()
            opened.append((opener, kind, True))
            yield f"{action[0]} #~{name}:{opener}:no~"
            continue
        elif word == "end":
            opener, kind, otherwise = opened.pop()
            if kind in ("define", "block"):
                named -= 1
            elif not named and not otherwise and kind != "range":
                yield f"{{{{{action[1]} else }}}} #~{name}:{opener}:no~"
        elif word != "else":
            opened.append((line, word, False))
            if not named:
                yield f"{action[0]} #~{name}:{line}:yes~"
                continue
        yield action[0]
    yield text[done:]


def passed(rendered: str) -> tuple[str, set[str]]:
    """The text without marks, and which marks it had."""
    return _MARK.sub("", rendered), set(_MARK.findall(rendered))
