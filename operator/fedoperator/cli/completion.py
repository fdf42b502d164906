"""`fedtrain completion bash|zsh|tcsh`: what a shell needs to complete our words, by shtab."""

import argparse
from collections.abc import Callable

from fedoperator.cli import options as common
from fedoperator.local.folder import Refused

SHELLS = ("bash", "zsh", "tcsh")
DESCRIPTION = """\
Print what a shell needs to complete commands and options:

  bash   fedtrain completion bash > ~/.local/share/bash-completion/completions/fedtrain
  zsh    fedtrain completion zsh > a folder of your $fpath/_fedtrain
  tcsh   fedtrain completion tcsh > ~/.fedtrain.tcsh, and source it"""


def add(commands: common.Commands, whole: Callable[[], argparse.ArgumentParser]) -> None:
    """whole: makes the parser of the command line, this one included."""
    completion = common.command(
        commands, "completion", help="let a shell complete our words", description=DESCRIPTION
    )
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(act=lambda options: act(options.shell, whole()))


def act(shell: str, parser: argparse.ArgumentParser) -> int:
    try:
        import shtab
    except ImportError as error:
        raise Refused("shtab is not installed; pip install shtab") from error
    print(shtab.complete(parser, shell=shell))
    return 0
