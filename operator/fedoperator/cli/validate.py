"""`fedtrain validate FILE`: everything wrong with a training, before the cluster sees it."""

import argparse
import json
import pathlib
import re
import sys
from typing import Any

import yaml

from fedoperator.api import API_VERSION, admission, round
from fedoperator.api.training import KIND
from fedoperator.cli import options as common
from fedoperator.local import visible
from fedoperator.local.folder import Refused


class Unreadable(Exception):
    """A file without a training in it; one sentence for whoever named it."""


_MOST_NODES = 1_000_000
"""Values of a document; the API server takes some hundred thousand."""


class _Loader(yaml.SafeLoader):
    """YAML as kubectl reads it: 1e-3 is a number, 5.0 is 5, 2026-01-31 is text, a key is a text,
    and none comes twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key.value} is given twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merged keys in their place; and those that are no text made one."""
        super().flatten_mapping(node)
        for key, _ in node.value:
            if key.tag in (_BOOL, _FLOAT, _INT):
                key.value = json.dumps(self.yaml_constructors[key.tag](self, key))
                key.tag = self.DEFAULT_SCALAR_TAG

    def number(self, node: yaml.ScalarNode) -> int | float:
        """Go writes a whole number without a point, up to where it takes to exponents."""
        given: float = self.construct_yaml_float(node)
        return int(given) if given.is_integer() and abs(given) < 1e21 else given


_BOOL, _FLOAT, _INT, _TIMESTAMP = (
    f"tag:yaml.org,2002:{name}" for name in ("bool", "float", "int", "timestamp")
)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag not in (_TIMESTAMP, _FLOAT, _INT)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    _INT, re.compile(r"^[-+]?(0|[1-9][0-9_]*|0[xX][0-9a-fA-F_]+|0[0-7_]+)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"^([-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)
_Loader.add_constructor(_FLOAT, _Loader.number)


def documents(text: str) -> list[Any]:
    """The documents of a YAML (or JSON) text, empty ones left out; raises yaml.YAMLError."""
    if text.lstrip().startswith("{"):
        # JSON may be indented with tabs, and has no text of several lines that would hold them.
        text = re.sub(r"^\s+", lambda indent: indent[0].replace("\t", " "), text, flags=re.M)
    return [document for document in yaml.load_all(text, _Loader) if document is not None]


def trainings(path: str) -> list[dict[str, Any]]:
    """The FederatedTrainings in a YAML file (or "-"); see `trainings_in`."""
    return trainings_in(_text(path))


def trainings_in(text: str) -> list[dict[str, Any]]:
    """The FederatedTrainings in a YAML text, or what stands there alone and so is meant to be one.

    Raises Unreadable if there are none.
    """
    try:
        found = documents(text)
    except yaml.reader.ReaderError as error:
        raise Unreadable(f"is not text at character {error.position}; check the path") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = f"{error.problem}; correct it there or just before"
        if "found character '\\t'" in what:
            what = "a tab; indent with spaces"
        raise Unreadable(f"is not YAML{where}: {what}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise Unreadable(f"is not YAML: {' '.join(str(error).split())}; correct it") from error
    if any(_nodes(document, {}) > _MOST_NODES for document in found):
        raise Unreadable("is far larger than it looks, by aliases of aliases; write it out")
    if not found:
        raise Unreadable(f"is empty; write a {KIND} into it")
    meant = [document for document in found if _is_meant(document, len(found))]
    if not meant:
        raise Unreadable(f"no {KIND} in it; write kind: {KIND} and apiVersion: {API_VERSION}")
    if not all(isinstance(document, dict) for document in meant):
        raise Unreadable(
            "is a list or a text, not a resource; begin with apiVersion, kind, metadata"
        )
    return meant


def _nodes(value: Any, known: dict[int, int]) -> int:
    """How many values there are if each alias is written out; what contains itself ends there."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = 0
        inside = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_nodes(one, known) for one in inside)
    return known[id(value)]


def _text(path: str) -> str:
    try:
        given = sys.stdin.buffer.read() if path == "-" else pathlib.Path(path).read_bytes()
        return given.decode("utf-8")
    except IsADirectoryError as error:
        raise Unreadable("is a folder; name the files in it that are meant") from error
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        where = f"at byte {error.start}; check the path, or save it as UTF-8"
        raise Unreadable(f"is not UTF-8 text {where}") from error
    except ValueError as error:  # a zero byte, or what no file system can spell
        raise Unreadable(f"cannot be read: {error}; check the path") from error


def _is_meant(document: Any, among: int) -> bool:
    """Whether this is a training, or alone in its file and so meant to be one."""
    if among == 1:
        return True
    if not isinstance(document, dict) or document.get("kind") == round.KIND:
        return False
    return document.get("kind") == KIND or document.get("apiVersion") == API_VERSION


def add(commands: common.Commands) -> None:
    validate = common.command(
        commands,
        "validate",
        help="say what is wrong with a file",
        description="One line per problem: the field, what is wrong there, and the remedy.",
        exits={0: "nothing is wrong", 1: "something is"},
    )
    validate.add_argument("files", metavar="FILE", nargs="+", help="YAML, or - to read it here")
    common.output(validate)
    validate.set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    if options.output != "json":
        return max(run(path) for path in options.files)
    told = [_told(path) for path in options.files]
    common.print_json(told)
    return int(any(problem for entry in told for problem in entry["problems"]))


def _told(path: str) -> dict[str, Any]:
    """A file's problems, for programs."""
    try:
        found = trainings(path)
    except Unreadable as reason:
        return {"file": path, "problems": [{"field": "", "sentence": str(reason)}]}
    return {
        "file": path,
        "problems": [
            {"training": _name(document), "field": p.field, "sentence": p.sentence}
            for document in found
            for p in admission.problems(None, document)
        ],
    }


def only(path: str) -> dict[str, Any]:
    """The one training in a file. Raises Unreadable, and Refused if there are several."""
    found = trainings(path)
    if len(found) != 1:
        raise Refused(f"{len(found)} trainings are in it; this takes one, so split the file")
    return found[0]


def checked(path: str) -> dict[str, Any]:
    """The one training in a file, of which nothing is wrong. Raises Refused with all that is."""
    try:
        document = only(path)
    except (Unreadable, Refused) as reason:
        raise Refused(f"{path}: {reason}") from reason
    problems = admission.problems(None, document)
    if problems:
        raise Refused("\n".join(f"{path}: {problem}" for problem in problems))
    return document


def run(path: str) -> int:
    """Print a line for each problem and return 1, or one saying that there is none and return 0."""
    try:
        found = trainings(path)
    except Unreadable as reason:
        print(visible.line(f"{path}: {reason}"))
        return 1
    code = 0
    for document in found:
        problems = admission.problems(None, document)
        if not problems:
            print(visible.line(_praise(document)))
            continue
        code = 1
        of = f"{_name(document)}: " if len(found) > 1 else ""
        for problem in problems:
            print(visible.line(f"{path}: {of}{problem}"))
    return code


def _praise(document: dict[str, Any]) -> str:
    spec = document["spec"]
    counts = {"round": int(spec["rounds"]), "participant": len(spec["participants"])}
    what = " with ".join(f"{n} {thing}{'s' if n > 1 else ''}" for thing, n in counts.items())
    return f"{_name(document) or 'training'} is valid: {what}"


def _name(document: dict[str, Any]) -> object:
    metadata = document.get("metadata")
    return metadata.get("name") if isinstance(metadata, dict) else None
