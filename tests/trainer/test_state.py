"""What a participant keeps between rounds: given back from accepted rounds alone."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedtrain import memory, publication, rounds
from fedtrain.contract import SCRATCH_ENV
from fedtrain.errors import ContractError, DataError, TryAgain
from fedtrain.state import State, read_state

pytestmark = pytest.mark.processes


def kept(federation: Any) -> Path:
    return Path(federation.scratch / "digits-0123-456/north/state")


def folders(federation: Any) -> list[str]:
    return sorted(entry.name for entry in kept(federation).iterdir())


@pytest.fixture
def federation(federation: Any) -> Any:
    federation.begin()
    return federation


def test_state_is_given_back_once_its_round_was_accepted(federation: Any) -> None:
    assert federation.train(1, seen=1, control=np.arange(3.0)) == {}
    federation.accept(1, {"north": (1, 1)})
    began = federation.train(2, seen=2)
    assert (began["seen"], began["control"].tolist()) == (1, [0, 1, 2])
    federation.accept(2, {"north": (2, 1)})
    assert sorted(federation.train(3)) == ["control", "seen"]  # what is not touched stays


def test_state_of_a_rejected_or_lost_round_is_never_seen(federation: Any) -> None:
    federation.train(1, seen=1)
    federation.accept(1, {"north": (1, 1)})
    federation.train(2, attempt=1, seen=21)
    federation.train(2, attempt=2, seen=22)
    federation.accept(2, {"north": (1, 1), "south": (2, 1)})
    assert federation.train(3, seen=3) == {"seen": 1}
    federation.accept(3, {"north": (1, 1)})
    assert federation.train(4) == {"seen": 1}


def test_of_two_attempts_the_accepted_one_counts(federation: Any) -> None:
    federation.train(1, attempt=1, seen=11)
    federation.train(1, attempt=2, seen=12)
    federation.accept(1, {"north": (1, 1)})
    assert federation.train(2) == {"seen": 11}


def test_a_participant_that_was_never_accepted_begins_with_nothing(federation: Any) -> None:
    federation.train(1, seen=1)
    federation.accept(1, {"south": (1, 1)})
    assert federation.train(2) == {}


def test_what_can_never_be_given_back_is_removed_with_the_next_save(
    federation: Any,
) -> None:
    federation.train(1, seen=1)
    federation.accept(1, {"north": (1, 1)})
    federation.train(2, seen=2)
    (kept(federation) / f".tmp-1-1-{'0' * 32}").mkdir()
    (kept(federation) / "mine").mkdir()
    federation.accept(2, {"north": (1, 1)})
    federation.train(3, seen=3)
    assert folders(federation) == ["1-1", "3-1", "mine"]


def test_a_deleted_name_stays_away(federation: Any) -> None:
    federation.train(1, seen=1)
    federation.accept(1, {"north": (1, 1)})
    federation.perform(federation.exchange.train(round=2))
    for rnd in rounds({"w": np.zeros(4, np.float32)}):
        del rnd.state["seen"]
        rnd.submit(samples=1)
    federation.accept(2, {"north": (2, 1)})
    assert federation.train(3) == {}


def test_state_is_saved_before_the_update_is_published(
    federation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    rename = publication.rename_without_replacing

    def remembering(source: Path, target: Path) -> None:
        seen.append("state" if "state" in target.parts else "update")
        rename(source, target)

    monkeypatch.setattr(publication, "rename_without_replacing", remembering)
    federation.train(1, seen=1)
    assert seen == ["state", "update"]


KILLED = """\
import os
import numpy as np
from fedtrain import publication, rounds

rename = publication.rename_without_replacing
def killing(source, target):
    if "updates" in target.parts and os.environ.get("KILL"):
        os.kill(os.getpid(), 9)
    rename(source, target)
publication.rename_without_replacing = killing

model = {"w": np.zeros(4, np.float32)}
for rnd in rounds(model):
    print("began with", dict(rnd.state), flush=True)
    model["w"] += 1
    rnd.state["seen"] = os.environ["SEEN"]
    rnd.submit(samples=1)
"""


def test_killed_between_save_and_publication_the_attempt_is_simply_done_again(
    federation: Any, exchange: Any
) -> None:
    env = {SCRATCH_ENV: str(federation.scratch)}
    task = exchange.train()
    died = exchange.run(KILLED, task, env=env | {"KILL": "1", "SEEN": "of the killed"})
    assert (died.code, died.message.reason) == (75, "ScriptKilled")
    assert folders(federation) == ["1-1"]
    assert not (exchange.root / task.output).exists()
    again = exchange.run(KILLED, task, env=env | {"SEEN": "of the living"})
    assert again.code == 0, again.log
    assert "began with {}" in again.log
    federation.accept(1, {"north": (1, 1)})
    assert federation.train(2) == {"seen": "of the living"}


def test_a_failed_submit_saves_nothing(federation: Any) -> None:
    federation.perform(federation.exchange.train())
    model = {"w": np.zeros(4, np.float32)}
    with pytest.raises(DataError, match="NaN"):  # noqa: PT012
        for rnd in rounds(model):
            rnd.state["seen"] = 1
            model["w"][0] = np.nan
            rnd.submit(samples=1)
    assert not kept(federation).exists() or folders(federation) == []


def test_without_state_nothing_is_written(federation: Any) -> None:
    federation.train(1)
    assert not federation.scratch.exists()


def test_without_scratch_state_lives_for_this_process_and_the_log_says_so_once(
    federation: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(SCRATCH_ENV)
    monkeypatch.setattr(memory, "_of_this_process", None)
    monkeypatch.setattr(memory, "_said", set())
    federation.train(1, seen=1)
    federation.accept(1, {"north": (1, 1)})
    assert federation.train(2, seen=2) == {"seen": 1}
    said = capsys.readouterr().err
    assert said.count(f"{SCRATCH_ENV} is not set: rnd.state is kept for this process only") == 1


def test_a_scratch_that_cannot_be_used_is_tried_again(federation: Any, tmp_path: Path) -> None:
    federation.scratch.write_text("a file")
    with pytest.raises(TryAgain) as failed:
        federation.train(1, seen=1)
    assert failed.value.reason == "StateNotSaved"
    assert not (federation.exchange.root / "updates/north/1/1").exists()


def test_a_state_that_was_damaged_is_no_empty_state(federation: Any) -> None:
    federation.train(1, seen=np.ones(3))
    federation.accept(1, {"north": (1, 1)})
    os.truncate(kept(federation) / "1-1/state.safetensors", 40)
    with pytest.raises(TryAgain) as failed:
        federation.train(2)
    assert failed.value.reason == "StateUnreadable"


@pytest.mark.parametrize("text", ['{"version":1}', "[1]", '{"version":1,"json":3,"torch":[]}'])
def test_a_state_of_another_shape_is_told_as_unreadable(federation: Any, text: str) -> None:
    federation.train(1, seen=np.ones(3))
    federation.accept(1, {"north": (1, 1)})
    (kept(federation) / "1-1/state.json").write_text(text)
    with pytest.raises(TryAgain) as failed:
        federation.train(2)
    assert failed.value.reason == "StateUnreadable"


VALUES: Mapping[str, Callable[[], Any]] = {
    "double": lambda: np.linspace(0, 1, 5),
    "matrix": lambda: np.arange(6, dtype=np.int32).reshape(2, 3).T,
    "big-endian": lambda: np.arange(3, dtype=">f4"),
    "scalar": lambda: np.array(2.5, np.float16),
    "empty": lambda: np.zeros((0, 3), np.float32),
    "bits": lambda: np.array([1, 65535], np.uint16),
    "mask": lambda: np.array([True, False]),
    "t.double": lambda: torch.ones(2, 2, dtype=torch.float64),
    "t.bf16": lambda: torch.tensor([1.5, -3.0, 0.1], dtype=torch.bfloat16),
    "t.bf16 scalar": lambda: torch.tensor(1.5, dtype=torch.bfloat16),
    "t.strided": lambda: torch.arange(6).reshape(2, 3).T,
    "t.parameter": lambda: torch.nn.Parameter(torch.ones(3)),
    "t.bool": lambda: torch.tensor([True, False]),
}


def test_arrays_and_tensors_come_back_as_what_they_were(tmp_path: Path) -> None:
    given = {name: make() for name, make in VALUES.items()}
    (tmp_path / "state.json").write_text(State(given).write(tmp_path))
    back = read_state(tmp_path)
    assert sorted(back) == sorted(given)
    for name, value in given.items():
        if isinstance(value, torch.Tensor):
            assert back[name].dtype == value.dtype
            assert torch.equal(back[name], value.detach())
        else:
            assert back[name].dtype == value.dtype.newbyteorder("<")
            assert back[name].shape == value.shape
            assert np.array_equal(back[name], value)


def test_what_json_holds_comes_back_as_what_it_was(tmp_path: Path) -> None:
    given = {"a": None, "b": True, "c": [1, 2.5, "x"], "d": {"k": [{}]}, "e": float("inf")}
    (tmp_path / "state.json").write_text(State(given).write(tmp_path))
    assert read_state(tmp_path) == given


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", object()),
        ("x", (1, 2)),
        ("x", {1: 2}),
        ("x", [np.zeros(2)]),
        ("x", np.float32(1)),
        ("x", np.array(["text"])),
        ("x", np.array([None])),
        ("x", np.zeros(2, np.complex64)),
        ("x", torch.zeros(2, dtype=torch.complex64)),
        ("x", torch.zeros(2).to_sparse()),
        ("__metadata__", 1),
        ("a\nb", 1),
        (1, 1),
    ],
)
def test_what_would_not_come_back_as_it_was_is_refused_when_it_is_set(
    name: Any, value: Any
) -> None:
    with pytest.raises(ContractError, match=r"rnd\.state\[") as refused:
        State()[name] = value
    assert refused.value.reason == "BadState"


def test_a_list_that_was_spoilt_after_it_was_set_is_refused_by_the_submit(
    federation: Any,
) -> None:
    federation.perform(federation.exchange.train())
    with pytest.raises(ContractError, match=r"rnd\.state\['x'\]"):  # noqa: PT012
        for rnd in rounds({"w": np.zeros(4, np.float32)}):
            rnd.state["x"] = [1]
            rnd.state["x"].append(object())
            rnd.submit(samples=1)
    assert not (federation.exchange.root / "updates/north/1/1").exists()


RANKS = """\
import os
import torch
import torch.distributed as dist
from torch import nn
from fedtrain import rounds

torch.manual_seed(0)
model = nn.Linear(2, 1)
for rnd in rounds(model):
    rank = dist.get_rank()
    seen = {name: value.tolist() for name, value in rnd.state.items()}
    os.write(1, f"rank {rank} began with {seen}\\n".encode())
    with torch.no_grad():
        model.weight += 1
    rnd.state["mine"] = torch.tensor([float(rank)])
    rnd.submit(samples=1)
"""


def test_rank_0s_state_is_saved_and_all_ranks_begin_with_it(exchange: Any, tmp_path: Path) -> None:
    exchange.publish_initial(RANKS)
    env = {SCRATCH_ENV: str(tmp_path / "scratch")}
    first = exchange.run(RANKS, exchange.train(), processes=2, env=env)
    assert first.code == 0, first.log
    manifest = exchange.root / "global/0/1/manifest.json"
    document = json.loads(manifest.read_text()) | {"last_accepted": {"north": [1, 1]}}
    manifest.write_text(json.dumps(document))
    second = exchange.run(RANKS, exchange.train(round=2), processes=2, env=env)
    assert second.code == 0, second.log
    for rank in (0, 1):
        assert f"rank {rank} began with {{}}" in first.log
        assert f"rank {rank} began with {{'mine': [0.0]}}" in second.log
