"""A folder with a script of numpy's, in which a notebook would be; runs are ended behind it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedoperator.local import processes
from fedoperator.notebook import FederatedTraining

ROOT = Path(__file__).parents[2]
PATHS = os.pathsep.join(str(ROOT / name) for name in ("operator", "trainer"))

SCRIPT = '''
"""A mean, learnt by participants who each know one number; SLEEP and FAIL disturb them."""

import os
import time

import numpy as np
from fedtrain import rounds

mine = float(os.environ.get("MINE", "1"))
model = {"w": np.zeros(3, np.float32), "b": np.zeros(2, np.float32)}
for rnd in rounds(model, evaluate=lambda m: {"w": float(m["w"].mean())}):
    time.sleep(float(os.environ.get("SLEEP", "0")))
    if os.environ.get("FAIL") == str(rnd.number):
        raise ValueError("no luck")
    model["w"] += 0.5 * (mine - model["w"])
    rnd.submit(samples=10, metrics={"w": mine, "seen": rnd.number})
'''


def a_federation(*, sleep: float = 0.0, fail: int = 0, **spec: Any) -> FederatedTraining:
    """Two participants who know 1 and 3; keyword arguments replace top-level fields."""
    env = [{"name": "SLEEP", "value": str(sleep)}, {"name": "FAIL", "value": str(fail)}]
    others = {"env": [*env, {"name": "MINE", "value": "3"}]}
    given = {
        "rounds": 3,
        "trainer": {"image": "mean", "command": ["python", "train.py"], "env": env},
        "participants": ["north", {"name": "south", "trainer": others}],
        "exchange": {"size": "1Gi"},
        "evaluation": {"by": "north"},
    }
    return FederatedTraining("mean", **{**given, **spec})


@pytest.fixture(scope="session")
def federation() -> Callable[..., FederatedTraining]:
    return a_federation


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with train.py; nothing that was run in it is left."""
    (tmp_path / "train.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", PATHS)
    yield tmp_path
    for children in tmp_path.glob("*/children"):
        processes.kill(str(children))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of three rounds that all who only look at it share."""
    here = tmp_path_factory.mktemp("notebook")
    (here / "train.py").write_text(SCRIPT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PATHS)
        a_federation().run(here / "out", scripts=here).wait()
    return here / "out"
