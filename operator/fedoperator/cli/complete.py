"""`kubectl_complete-fedtrain WORDS...`: how the last word of `kubectl fedtrain WORDS...` may go on.

kubectl asks for it: a line for each way, and a last one, `:4` where that is all, `:0` where files
may stand, too (kubernetes.io, "Extend kubectl with plugins").
"""

import argparse
import sys
from collections.abc import Sequence

from fedoperator.cli import main as command

ONLY_THESE, FILES_TOO = ":4", ":0"


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments) or [""]
    found, files = ways(command.parser(plugin=True), words[:-1], words[-1])
    print("\n".join([*found, FILES_TOO if files else ONLY_THESE]))
    return 0


def ways(
    parser: argparse.ArgumentParser, before: Sequence[str], last: str
) -> tuple[list[str], bool]:
    """(the words that may stand where `last` is being written, whether a file may)."""
    option: argparse.Action | None = None
    for word in before:
        verbs = _verbs(parser)
        if option is not None:
            option = None
        elif verbs is not None and word in verbs:
            parser = verbs[word]
        elif word.startswith("-") and "=" not in word:
            named = parser._option_string_actions.get(word)
            option = named if named is not None and named.nargs != 0 else None
    verbs = _verbs(parser)
    if option is not None:
        words = [str(choice) for choice in option.choices or ()]
        files = not words
    elif last.startswith("-"):
        words, files = sorted(parser._option_string_actions), False
    elif verbs is not None:
        words, files = list(verbs), False
    else:
        words, files = [], True
    return [word for word in words if word.startswith(last)], files


def _verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser] | None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return None


if __name__ == "__main__":
    sys.exit(main())
