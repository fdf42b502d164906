"""The wheel: the same bytes whenever it is built, with both halves in it."""

import zipfile
from pathlib import Path

import pytest

from fedtrain import contract
from release import wheel

pytestmark = pytest.mark.processes


def test_two_builds_have_the_same_bytes_and_another_moment_has_others(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "other", "later")]
    moments = ("1790000000", "1790000000", "1790086400")
    one, other, later = (
        wheel.built(folder, moment) for folder, moment in zip(folders, moments, strict=True)
    )
    assert one.name == f"fedtrain-{contract.VERSION}-py3-none-any.whl"
    assert one.read_bytes() == other.read_bytes()
    assert one.read_bytes() != later.read_bytes()
    names = zipfile.ZipFile(one).namelist()
    assert {"fedoperator/cli/main.py", "fedtrain/contract.py", "fedtrain/py.typed"} <= set(names)
    assert {name.split("/")[0] for name in names} == {
        "fedoperator",
        "fedtrain",
        f"fedtrain-{contract.VERSION}.dist-info",
    }
