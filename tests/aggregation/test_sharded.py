"""Several processes aggregate as one would: the same model, the same verdicts, and no hang."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors

from fedtrain.contract import Message, ModelRef, Receipt, encode_task
from fedtrain.modelfiles import open_model
from fedtrain.publication import Publication

Make = Callable[..., Any]
TRAINER = Path(__file__).parents[2] / "trainer"


@dataclasses.dataclass
class Shard:
    """A process of an aggregation, running or ended."""

    process: subprocess.Popen[str]
    message: Path

    def end(self, timeout: float = 120) -> tuple[int, Message | None, str]:
        output, _ = self.process.communicate(timeout=timeout)
        text = self.message.read_text() if self.message.exists() else ""
        return self.process.returncode, Message.decode(text) if text else None, output


def start(federation: Any, index: int, before: str = "", **said: Any) -> Shard:
    """As pod `index` of the aggregation, with Python statements before the program's own."""
    task = federation.task(**said)
    message = Path(tempfile.mkdtemp(dir=federation.root.parent)) / "message"
    code = f"{before}\nfrom fedtrain.aggregation.process import main\nraise SystemExit(main())"
    environment = {
        **os.environ,
        "PYTHONPATH": str(TRAINER),
        "FEDTRAIN_ROOT": str(federation.root),
        "FEDTRAIN_TERMINATION_LOG": str(message),
        "FEDTRAIN_THREADS": "2",
        "FEDTRAIN_TASK": encode_task(task),
        "JOB_COMPLETION_INDEX": str(index),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return Shard(process, message)


def in_shards(federation: Any, shards: int, n: int, **said: Any) -> Message:
    """The first shard's message, once all have ended well; the model is `global/<round>/<n>`."""
    said = {"output": f"global/1/{n}", "shards": shards, **said}
    running = [start(federation, index, **said) for index in range(shards)]
    ended = [shard.end() for shard in running]
    for index, (code, message, output) in enumerate(ended):
        assert code == 0, output
        assert message is not None
        if index > 0:
            assert message == Message()
    folder = federation.root / said["output"]
    assert not list(folder.parent.glob(".tmp-*")), "nothing is left behind"
    first = ended[0][1]
    assert first is not None
    return first


def tensors_of(folder: Path) -> dict[str, bytes]:
    with open_model(folder) as model:
        return {name: model.read(name).tobytes() for name in model.tensors}


@pytest.fixture(scope="module")
def a_round(a_federation: Make, a_delta: Make) -> Callable[..., Any]:
    """Seven participants, and one more whose NaN lies in a tensor that one shard owns."""

    def make(hostile: bool = True) -> Any:
        federation = a_federation(**{"bn.running_var": "buffer"})
        for k, name in enumerate("abcdefg"):
            federation.with_update(name, a_delta(k), samples=k + 1)
        if hostile:
            update = a_delta(99)
            update["fc.bias"][3] = np.nan
            federation.with_update("mallory", update, samples=1000)
        return federation

    return make


def every_strategy() -> list[Any]:
    byzantine = {"byzantine": 1}
    return [
        pytest.param({"name": "FedAvg"}, [2, 3, 7], id="FedAvg"),
        pytest.param({"name": "FedAdam"}, [2, 7], id="FedAdam"),
        pytest.param({"name": "Median"}, [3], id="Median"),
        pytest.param({"name": "Krum", **byzantine}, [2, 3], id="Krum"),
        pytest.param({"name": "CenteredClipping"}, [2], id="CenteredClipping"),
    ]


@pytest.mark.processes
@pytest.mark.parametrize(("strategy", "counts"), every_strategy())
def test_any_number_of_shards_gives_the_model_of_one_process(
    a_round: Make, strategy: dict[str, Any], counts: Sequence[int]
) -> None:
    federation = a_round()
    alone = federation.aggregate(strategy=strategy)
    assert federation.verdict_on("mallory", alone) == "NotFinite"
    for n, shards in enumerate(counts, 2):
        together = in_shards(federation, shards, n, strategy=strategy)
        for key in ("digest", "verdicts", "reasons", "details", "bytes"):
            assert together.result[key] == alone.result[key]
        ours, theirs = federation.manifest(n), federation.manifest(1)
        assert ours.accepted == theirs.accepted
        assert ours.rejected == theirs.rejected
        assert tensors_of(federation.root / f"global/1/{n}") == tensors_of(
            federation.root / "global/1/1"
        )


@pytest.mark.processes
@pytest.mark.parametrize("said", [{"norm_bound": 0.05}, {"precision": "Exact"}])
def test_measured_weightings_are_the_same_in_shards(a_round: Make, said: dict[str, Any]) -> None:
    federation = a_round()
    alone = federation.aggregate(**said)
    assert in_shards(federation, 3, 2, **said).result["digest"] == alone.result["digest"]


@pytest.mark.processes
def test_the_files_are_what_hugging_face_and_the_safetensors_library_read(a_round: Make) -> None:
    federation = a_round()
    federation.aggregate(strategy={"name": "FedAdam"})
    in_shards(federation, 3, 2, strategy={"name": "FedAdam"})
    folder = federation.root / "global/1/2"
    stems = ("model", "server")
    for stem in stems:
        index = json.loads((folder / f"{stem}.safetensors.index.json").read_text())
        files = sorted(set(index["weight_map"].values()))
        assert files == [f"{stem}-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
        read: dict[str, np.ndarray[Any, Any]] = {}
        for file in files:
            with safetensors.safe_open(folder / file, "numpy") as shard:
                assert shard.metadata() == {"format": "pt"}
                read |= {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118
        assert {name: index["weight_map"][name] for name in read} == index["weight_map"]
        assert index["metadata"]["total_size"] == sum(array.nbytes for array in read.values())
        with safetensors.safe_open(
            federation.root / f"global/1/1/{stem}.safetensors", "numpy"
        ) as whole:
            assert set(whole.keys()) == set(read)
            assert all(np.array_equal(whole.get_tensor(name), read[name]) for name in read)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [
            *(
                f"{stem}-0000{number}-of-00003.safetensors"
                for stem in stems
                for number in (1, 2, 3)
            ),
            *(f"{stem}.safetensors.index.json" for stem in stems),
            "manifest.json",
            "schema.json",
        ]
    )


@pytest.mark.processes
def test_a_sharded_model_and_its_state_are_the_base_of_the_next_round(
    a_round: Make, a_delta: Make
) -> None:
    federation = a_round(hostile=False)
    adam = {"name": "FedAdam"}
    digest = in_shards(federation, 3, 1, strategy=adam).result["digest"]
    said = {"round": 2, "model": ModelRef(path="global/1/1", digest=digest), "strategy": adam}
    for number, name in enumerate("abcdefg"):
        first = federation.folder_of(name)
        with Publication(federation.folder_of(name, round_number=2)) as publication:
            # The same deltas again, relative to the new model.
            update = (first / "update.safetensors").read_bytes()
            (publication.path / "update.safetensors").write_bytes(update)
            receipt = Receipt.from_json((first / "receipt.json").read_text())
            renewed = dataclasses.replace(receipt, round=2, base=digest, samples=number + 1)
            publication.commit(renewed.to_json())
    alone = federation.aggregate(output="global/2/1", **said)
    together = in_shards(federation, 2, 2, output="global/2/2", **said)
    assert together.result["digest"] == alone.result["digest"]
    assert alone.result["digest"] != digest


@pytest.mark.processes
def test_too_few_accepted_is_every_shards_verdict(a_round: Make) -> None:
    federation = a_round()
    said = {"shards": 2, "minimum": 8}
    running = [start(federation, index, **said) for index in range(2)]
    for code, message, output in [shard.end() for shard in running]:
        assert code == 66, output
        assert message is not None
        assert message.reason == "TooFewAccepted"
        assert federation.verdict_on("mallory", message) == "NotFinite"


KILLED = """
import os, signal
from fedtrain import publication
me, calls = os.getpid(), 0

def counted(function):
    def call(*args, **named):
        global calls
        calls += os.getpid() == me
        if calls == AT and os.getpid() == me:
            os.kill(me, signal.SIGKILL)
        return function(*args, **named)
    return call

for name in NAMES:
    place = publication if name == "rename_without_replacing" else os
    setattr(place, name, counted(getattr(place, name)))
"""
"""Kills the process, not its children, at a call."""

SHORT = """
from fedtrain.aggregation import shards
shards.Shards.__init__.__kwdefaults__["patience"] = 2.0
"""
ANY = ("open", "preadv", "pwrite", "fsync", "mkdir", "replace", "link")
POINTS = [
    (1, 2, ANY),
    (2, 15, ANY),
    (0, 30, ANY),
    (1, 45, ANY),
    (2, 60, ANY),
    (1, 1, ("link",)),  # before its first report
    (2, 3, ("link",)),  # before it says that its part is in its place
    (1, 1, ("replace",)),  # before its part is in its place
    (0, 2, ("rename",)),  # amid the parts' move into the publication
    (0, 1, ("rename_without_replacing",)),  # before the publication
]
"""Which shard of three is killed, at which of the calls with these names."""


def with_a_kill(federation: Any, victim: int, at: int, names: tuple[str, ...], n: int) -> None:
    """Aggregation `n` with three shards of which one is killed; all end, and soon."""
    code = KILLED.replace("AT", str(at)).replace("NAMES", str(names))
    running = [
        start(federation, index, SHORT + code * (index == victim), shards=3, output=f"global/1/{n}")
        for index in range(3)
    ]
    ended = [shard.end(timeout=60) for shard in running]
    assert ended[victim][0] == -signal.SIGKILL, ended
    assert {code for code, _, _ in ended} <= {0, 75, -signal.SIGKILL}, ended
    assert not (federation.root / f"global/1/{n}").exists()


@pytest.mark.processes
@pytest.mark.parametrize(("victim", "at", "names"), POINTS)
def test_a_shard_that_is_killed_leaves_no_hang_and_the_next_attempt_the_same_model(
    a_round: Make, victim: int, at: int, names: tuple[str, ...]
) -> None:
    federation = a_round()
    with_a_kill(federation, victim, at, names, 1)
    again = in_shards(federation, 3, 2)
    alone = federation.aggregate(output="global/1/3")
    for key in ("digest", "verdicts", "reasons"):
        assert again.result[key] == alone.result[key]


@pytest.mark.processes
@pytest.mark.parametrize(("victim", "at", "names"), [POINTS[3], POINTS[7], POINTS[8]])
def test_the_same_attempt_run_again_after_a_kill_gives_the_same_model(
    a_round: Make, victim: int, at: int, names: tuple[str, ...]
) -> None:
    federation = a_round()
    with_a_kill(federation, victim, at, names, 1)
    again = in_shards(federation, 3, 1)
    assert again.result["digest"] == federation.aggregate(output="global/1/2").result["digest"]
    assert federation.verdict_on("mallory", again) == "NotFinite"


OVERTAKEN = """
import os, time
from pathlib import Path

def wait(done):
    until = time.monotonic() + 60
    while not done():
        if time.monotonic() > until:
            raise TimeoutError("nobody published")
        time.sleep(0.01)

real = os.replace

def replace(source, target):
    (Path(target).parent / "waiting").touch()
    if "WHEN" == "before":
        wait(lambda: not Path(target).parent.exists())
    real(source, target)
    wait(lambda: not Path(target).exists())

os.replace = replace
"""
"""A shard that puts its part in its place while the first one publishes what lay there before."""


@pytest.mark.processes
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_shard_whose_earlier_part_is_published_while_it_writes_it_again_ends_well(
    a_round: Make, when: str
) -> None:
    federation = a_round()
    with_a_kill(federation, 0, 2, ("rename",), 1)
    said = {"shards": 3, "output": "global/1/1"}
    slow = start(federation, 2, OVERTAKEN.replace("WHEN", when), **said)
    waiting = federation.root / "global/1/.tmp-1-shards/files/waiting"
    until = time.monotonic() + 60
    while not waiting.exists():
        assert slow.process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    running = [start(federation, index, **said) for index in (0, 1)]
    ended = [shard.end() for shard in (*running, slow)]
    assert [code for code, _, _ in ended] == [0, 0, 0], ended
    assert not list((federation.root / "global/1").glob(".tmp-*")), "nothing is left behind"
    alone = federation.aggregate(output="global/1/2")
    assert federation.manifest(1).digest == alone.result["digest"]


@pytest.mark.processes
def test_a_pod_that_runs_twice_at_the_same_time_changes_nothing(a_round: Make) -> None:
    federation = a_round()
    said = {"shards": 2, "output": "global/1/2"}
    running = [start(federation, index, **said) for index in (0, 0, 1, 1)]
    ended = [shard.end() for shard in running]
    assert federation.manifest(2).digest == federation.aggregate().result["digest"]
    assert any(code == 0 for code, _, _ in ended[:2])
    assert {code for code, _, _ in ended} <= {0, 75}


@pytest.mark.processes
def test_a_process_that_is_not_told_which_shard_it_is_says_so(a_round: Make) -> None:
    federation = a_round()
    code, message, output = start(federation, -1, shards=2).end()
    assert (code, message and message.reason) == (64, "BadTask"), output


@pytest.mark.processes
def test_more_shards_than_tensors_is_no_harm(a_federation: Make) -> None:
    model = {"w": np.ones((3, 2), np.float32), "steps": np.array(4)}
    federation = a_federation(model)
    federation.with_update("a", {"w": np.full((3, 2), 0.5, np.float32), "steps": np.array(9)})
    alone = federation.aggregate(strategy={"name": "FedAdam"})
    together = in_shards(federation, 4, 2, strategy={"name": "FedAdam"})
    assert together.result["digest"] == alone.result["digest"]
    with open_model(federation.root / "global/1/2") as published:
        assert list(published.tensors) == ["steps", "w"]
