"""A run on this machine, followed as a notebook follows it; nothing of it outlives the notebook."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors import numpy as safetensors

from fedoperator.local import processes
from fedoperator.notebook import Failed, FederatedTraining, LocalRun, Refused, Round

pytestmark = pytest.mark.processes

Federation = Callable[..., FederatedTraining]


def left_of(out: Path) -> list[int]:
    return processes.marked(str(out.resolve() / "children"))


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def numbers(rounds: Iterable[Round]) -> list[int]:
    return [rnd.number for rnd in rounds]


def test_rounds_come_in_order_as_they_end(folder: Path, federation: Federation) -> None:
    seen = []
    for rnd in federation().run("out"):
        seen.append(rnd)
        at_least = yaml.safe_load((folder / "out" / "status.yaml").read_text())["round"]
        assert rnd.number <= at_least
    assert numbers(seen) == [1, 2, 3]
    assert [rnd.accepted for rnd in seen] == [("north", "south")] * 3
    assert [dict(rnd.missing) for rnd in seen] == [{}] * 3
    # Of 1 and 3 the mean is 2, and each round goes half of the way that is left.
    assert [rnd.metrics["w"] for rnd in seen] == pytest.approx([1.0, 1.5, 1.75])
    assert seen[2].trained() == pytest.approx({"w": 2.0, "seen": 3.0})
    assert seen[0].samples == 20
    assert left_of(folder / "out") == []


def test_its_model_is_the_file_that_the_status_names(undisturbed: Path) -> None:
    run = LocalRun(undisturbed)
    model = run.model()
    status = yaml.safe_load((undisturbed / "status.yaml").read_text())
    path = undisturbed / "exchange" / status["globalModel"]["path"]
    expected = safetensors.load_file(path)
    assert model.keys() == expected.keys()
    assert all(np.array_equal(model[name], expected[name]) for name in expected)
    assert (run.status.phase, run.rounds[-1].digest) == (
        "Succeeded",
        status["globalModel"]["digest"],
    )
    assert run.model(exchange=undisturbed / "exchange").keys() == expected.keys()


def test_it_is_the_run_that_fedtrain_run_does(
    undisturbed: Path, folder: Path, federation: Federation
) -> None:
    (folder / "federation.yaml").write_text(federation().to_yaml())
    command = [sys.executable, "-m", "fedoperator.cli", "run", "federation.yaml", "--out", "out"]
    subprocess.run([*command, "--quiet"], check=True, timeout=120, capture_output=True)
    assert LocalRun("out").rounds[-1].digest == LocalRun(undisturbed).rounds[-1].digest


def test_a_run_that_is_over_gives_its_rounds_again(
    undisturbed: Path, federation: Federation
) -> None:
    assert numbers(LocalRun(undisturbed)) == [1, 2, 3]
    again = federation().run(undisturbed, scripts=undisturbed.parent)
    assert numbers(again) == numbers(again) == [1, 2, 3]


def test_leaving_the_loop_ends_the_processes_and_it_goes_on_where_it_was(
    undisturbed: Path, folder: Path, federation: Federation
) -> None:
    run = federation().run("out")
    for _ in run:
        break
    assert left_of(folder / "out") == []
    assert run.status.phase != "Succeeded"
    again = federation().run("out")
    assert numbers(again) == [1, 2, 3]
    assert again.rounds[-1].digest == LocalRun(undisturbed).rounds[-1].digest
    assert all(p.attempt == 1 for rnd in again.rounds for p in rnd.participants)


NOTEBOOK = """
import signal
from fedoperator.notebook import FederatedTraining
run = FederatedTraining.from_yaml("federation.yaml").run("out")
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background lacks
print("begun", flush=True)
{then}
"""


@pytest.mark.parametrize(
    ("number", "then"),
    [
        (signal.SIGINT, "for rnd in run: pass"),
        (signal.SIGINT, "import time; time.sleep(60)"),
        (signal.SIGKILL, "for rnd in run: pass"),
    ],
    ids=["an interrupt in the loop", "an interrupt elsewhere", "a kernel that is killed"],
)
def test_its_processes_end_with(
    number: int, then: str, folder: Path, federation: Federation
) -> None:
    (folder / "federation.yaml").write_text(federation(sleep=60).to_yaml())
    kernel = subprocess.Popen(
        [sys.executable, "-c", NOTEBOOK.format(then=then)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: len(left_of(folder / "out")) >= 4)
    kernel.send_signal(number)
    _, err = kernel.communicate(timeout=30)
    wait_for(lambda: left_of(folder / "out") == [], seconds=20)
    if number == signal.SIGINT:
        assert err.splitlines()[-1] == "KeyboardInterrupt"


def test_it_runs_from_any_thread(folder: Path, federation: Federation) -> None:
    seen: list[int] = []
    run = federation(rounds=1).run
    thread = threading.Thread(target=lambda: seen.extend(numbers(run("out"))))
    handler = signal.getsignal(signal.SIGINT)
    thread.start()
    thread.join(120)
    assert seen == [1]
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_folder_in_which_another_works_is_refused(folder: Path, federation: Federation) -> None:
    run = federation(sleep=60).run("out")
    with pytest.raises(Refused, match="another `fedtrain run` works in"):
        federation().run("out")
    run.stop()
    assert left_of(folder / "out") == []


def test_a_training_that_failed_says_of_what(folder: Path, federation: Federation) -> None:
    quorum = {"minimum": 2, "onMiss": "Fail"}
    run = federation(fail=2, rounds=2, retries=0, quorum=quorum).run("out")
    seen = []
    with pytest.raises(Failed) as failed:
        seen.extend(numbers(rnd for rnd in run))
    assert failed.value.reason == run.status.reason
    assert str(failed.value) == f"{run.status.reason}: {run.status.message}"
    assert numbers(run.rounds) == [1]


def test_what_blocks_it_is_a_warning_and_it_is_left_in_the_end(
    folder: Path, federation: Federation
) -> None:
    run = federation(rounds=1, model={"claimName": "weights", "path": "llm"})
    (folder / "weights").mkdir()
    begun = run.run("out", claims={"weights": "weights"}, give_up_after="1s")
    with pytest.warns(UserWarning, match="Blocked"), pytest.raises(Failed) as failed:
        begun.wait()
    assert failed.value.reason == "Blocked"
    assert "run it again to go on" in str(failed.value)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"claims": {"weights": "nowhere"}}, "claims['weights']: nowhere is not a folder"),
        ({"give_up_after": "soon"}, "give_up_after: 'soon' is not a time"),
    ],
)
def test_what_cannot_be_asked_of_a_run_is_one_sentence(
    more: dict, sentence: str, folder: Path, federation: Federation
) -> None:
    with pytest.raises(Refused) as refused:
        federation().run("out", **more)
    assert str(refused.value).startswith(sentence)
    assert not (folder / "out").exists()


def test_what_the_machine_has_not_is_refused_at_once(folder: Path, federation: Federation) -> None:
    training = federation(model={"claimName": "weights", "path": "llm"})
    with pytest.raises(Refused, match=r"model\.claimName: weights is not on this machine"):
        training.run("out")


def test_a_folder_without_a_training_is_refused(folder: Path) -> None:
    with pytest.raises(Refused, match="nowhere holds no training"):
        LocalRun("nowhere")


def test_a_model_that_is_not_kept_any_more_is_one_sentence(
    folder: Path, federation: Federation
) -> None:
    run = federation(keep={"last": 2}).run("out").wait()
    assert run.rounds[2].model().keys() == {"b", "w"}
    with pytest.raises(Refused, match=r"round 1 is not at .*spec\.keep\.last says"):
        run.rounds[0].model()


def test_a_model_in_several_files_is_one_model(
    undisturbed: Path, folder: Path, federation: Federation
) -> None:
    run = federation(aggregation={"shards": 2}).run("out").wait()
    assert run.status.global_model is not None
    assert run.status.global_model.path.endswith("model.safetensors.index.json")
    whole = LocalRun(undisturbed).model()
    model = run.model()
    assert model.keys() == whole.keys()
    assert all(np.array_equal(model[name], whole[name]) for name in whole)


def test_it_says_nothing_itself(
    folder: Path, federation: Federation, capfd: pytest.CaptureFixture[str]
) -> None:
    run = federation(rounds=1).run("out").wait()
    assert "Succeeded" in repr(run)
    assert capfd.readouterr() == ("", "")
    assert os.getpid() not in left_of(folder / "out")
