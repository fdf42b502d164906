"""`fedtrain validate FILE`: everything wrong with a training, before the cluster sees it."""

import pathlib
import re
import sys
from typing import Any

import yaml

from fedoperator.api import API_VERSION, admission, round
from fedoperator.api.training import KIND


class _Loader(yaml.SafeLoader):
    """YAML as kubectl reads it: 1e-3 is a number, 2026-01-31 is text, and no key comes twice."""

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


_TIMESTAMP, _FLOAT, _INT = (f"tag:yaml.org,2002:{name}" for name in ("timestamp", "float", "int"))
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


def documents(text: str) -> list[Any]:
    """The documents of a YAML (or JSON) text, empty ones left out; raises yaml.YAMLError."""
    return [document for document in yaml.load_all(text, _Loader) if document is not None]


def run(path: str) -> int:
    """Print a line for each problem and return 1, or one saying that there is none and return 0.

    path: of a YAML file, or "-". Only FederatedTrainings are looked at.
    """
    try:
        text = sys.stdin.read() if path == "-" else pathlib.Path(path).read_text("utf-8")
        lines = _judge(documents(text))
    except OSError as error:
        lines = [f"cannot be read: {error.strerror}; check the path"]
    except UnicodeDecodeError as error:
        lines = [f"is not UTF-8 text at byte {error.start}; save it as UTF-8"]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        lines = [f"is not YAML{where}: {error.problem}; correct it there or just before"]
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        lines = [f"is not YAML: {' '.join(str(error).split())}; correct it"]
    for line in lines:
        print(f"{path}: {line}")
    return 1 if lines else 0


def _judge(found: list[Any]) -> list[str]:
    """The problems of all trainings of a file; prints one line for each that has none."""
    trainings = [document for document in found if _is_meant(document, len(found))]
    if not trainings:
        return [f"no {KIND} in it; write kind: {KIND} and apiVersion: {API_VERSION}"]
    lines = []
    for document in trainings:
        if not isinstance(document, dict):
            return ["is a list or a text, not a resource; begin with apiVersion, kind, metadata"]
        metadata = document.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        problems = [str(problem) for problem in admission.problems(None, document)]
        lines += problems if len(trainings) == 1 else [f"{name}: {problem}" for problem in problems]
        if not problems:
            spec = document["spec"]
            many = len(spec["participants"])
            what = f"{spec['rounds']} rounds with {many} participant{'s' if many > 1 else ''}"
            print(f"{name or 'training'} is valid: {what}")
    return lines


def _is_meant(document: Any, among: int) -> bool:
    """Whether this is a training, or alone in its file and so meant to be one."""
    if among == 1:
        return True
    if not isinstance(document, dict) or document.get("kind") == round.KIND:
        return False
    return document.get("kind") == KIND or document.get("apiVersion") == API_VERSION
