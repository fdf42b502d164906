"""How words go on: for kubectl, and for the shells that shtab knows."""

import shutil
import subprocess
from pathlib import Path

import pytest

from fedoperator.cli import complete, completion, document, main

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("typed", "goes_on", "files"),
    [
        (["de"], ["describe"], False),
        (["models", ""], ["list", "download", "push", "verify"], False),
        (["logs", "digits", "--ro"], ["--role", "--round"], False),
        (["logs", "digits", "--role", "e"], ["evaluate"], False),
        (["plan", "fed"], [], True),
        (["plan", "--model", ""], [], True),
    ],
)
def test_kubectl_is_told_what_may_come_next(
    capsys: pytest.CaptureFixture[str], typed: list[str], goes_on: list[str], files: bool
) -> None:
    assert complete.main(typed) == 0
    *words, directive = capsys.readouterr().out.splitlines()
    assert words == goes_on
    assert directive == (complete.FILES_TOO if files else complete.ONLY_THESE)


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_a_script_for_each_shell_is_printed(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert main.main(["completion", shell]) == 0
    said = capsys.readouterr().out
    assert all(f"{verb}" in said for verb in ("describe", "download", "kubeconfig"))


def test_bash_completes_a_command_with_it(tmp_path: Path) -> None:
    script = tmp_path / "complete.sh"
    script.write_text(_printed("bash"))
    bash = shutil.which("bash")
    assert bash is not None
    ask = 'source "$1"; COMP_WORDS=(fedtrain desc); COMP_CWORD=1; COMP_LINE="fedtrain desc"; '
    ask += "_shtab_fedtrain fedtrain desc fedtrain; echo ${COMPREPLY[@]}"
    done = subprocess.run([bash, "-c", ask, "bash", script], capture_output=True, text=True)
    assert done.stdout.split() == ["describe"], done.stderr


def _printed(shell: str) -> str:
    import shtab

    return str(shtab.complete(main.parser(), shell=shell))


def test_the_page_of_the_documentation_is_the_help_of_the_program() -> None:
    assert (ROOT / document.PATH).read_text() == document.page(), "run `make manifests`"
