"""docs/how-to/notebook.md: its blocks run as they stand there, in one session after the other."""

import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from fedoperator.local import processes

mpl.use("Agg")
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "notebook.md"


def blocks() -> Iterator[tuple[str, str]]:
    """(what stands beside ```python, the code) of each block."""
    for found in re.finditer(r"^```python ?(.*)\n((?:.*\n)*?)```$", PAGE.read_text(), re.M):
        yield found[1], found[2]


@pytest.mark.processes
def test_the_page_runs_from_top_to_bottom(folder: Path, capsys) -> None:
    session: dict[str, object] = {}
    for beside, code in blocks():
        if named := re.fullmatch(r'title="(.*[.]py)"', beside):
            (folder / named[1]).write_text(code)
        elif beside == "":
            exec(compile(code, str(PAGE), "exec"), session)
    said = capsys.readouterr().out
    assert "spec.rounds: 0 is too small" in said
    assert "\n3 ('north', 'south') {'mean': " in said
    assert np.allclose(session["state"]["w"], 7 / 8, atol=0.2)
    assert (folder / "history.png").stat().st_size > 1000
    assert "Succeeded" in said.splitlines()[-1]
    assert processes.marked(str(folder / "runs")) == []
    mpl.pyplot.close("all")


@pytest.mark.apiserver
def test_its_part_for_a_cluster_runs_too(kubectl, folder: Path, monkeypatch) -> None:
    """With a training that is over, as no operator is there to run it."""
    monkeypatch.setenv("KUBECONFIG", str(kubectl.kubeconfig))
    kubectl("create", "namespace", "research")
    session: dict[str, object] = {}
    build = next(c for beside, c in blocks() if beside == "" and "training = " in c)
    exec(compile(build, str(PAGE), "exec"), session)
    session["training"].submit(namespace="research")  # type: ignore[attr-defined]
    words = ("--subresource=status", "--type=merge", "-p", '{"status": {"phase": "Succeeded"}}')
    answer = kubectl("patch", "fedt", "means", "-n", "research", *words)
    assert answer[0] == 0, answer
    for beside, block in blocks():
        if beside == 'title="cluster"' and "submit" in block:
            exec(compile(block, str(PAGE), "exec"), session)
    assert session["run"].status.phase == "Succeeded"  # type: ignore[attr-defined]
    mpl.pyplot.close("all")
