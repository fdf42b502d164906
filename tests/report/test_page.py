import base64
import hashlib
import json
import random
from collections.abc import Sequence

import pytest

from fedoperator.api.round import Record
from fedoperator.api.training import Training
from fedoperator.report import figures, page
from tests.report import lab
from tests.report.lab import Page, a_round, a_training, accepted, failed

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "--><!--<script>",
    "'\"><svg onload=alert(1)>",
    "&lt;b&gt; \u2028 \u0000 </td></table></style>",
]


def read(training: Training, records: Sequence[Record] = ()) -> Page:
    return Page(page.html(training, records))


def repeated(record: Record, rounds: int) -> list[Record]:
    """Rounds from 1 on that went like this one."""
    specs = (record.spec.model_copy(update={"round": n}) for n in range(1, rounds + 1))
    return [record.model_copy(update={"spec": spec}) for spec in specs]


def two_rounds() -> list[Record]:
    return [
        a_round(
            number,
            accepted("north", begin=40 * number, metrics={"loss": 0.5 / number}, weight=0.75),
            accepted("south", begin=40 * number, metrics={"loss": 1 / 3}, weight=0.25),
            failed("west"),
            begin=40 * number,
            metrics={"accuracy": 0.1 + 0.2 * number},
            evaluation=[{"name": "north", "state": "Reported", "metrics": {"accuracy": 0.7}}],
            measured={"bytes": 4096, "seconds": 4.0, "peakMemory": 2**20},
        )
        for number in (1, 2)
    ]


def test_the_tables_hold_the_figures_of_the_records_exactly() -> None:
    tables = read(a_training(), two_rounds()).tables
    assert tables["table-model-accuracy"][1:] == [
        ["1", repr(0.1 + 0.2), "0.7"],
        ["2", repr(0.1 + 0.4), "0.7"],
    ]
    mean = 0.75 * 0.5 + 0.25 * (1 / 3)
    assert tables["table-training-loss"][0] == ["round", "weighted mean", "north", "south"]
    assert tables["table-training-loss"][1] == ["1", repr(mean), "0.5", repr(1 / 3)]
    assert tables["table-lineage"][2][:4] == [
        "2",
        f"sha256:{2:064x}",
        "round 1 + 2 updates",
        "2/3",
    ]
    assert tables["table-time"][1][2:] == [
        "5.000", "20.000", "5.000", "30.000", "2/3", "", "4096", "1048576",
    ]  # fmt: skip


def test_a_model_whose_base_is_of_a_round_that_is_no_longer_known_began_nothing() -> None:
    rows = read(a_training(rounds=60), [a_round(0), a_round(57, accepted("north"))]).tables
    assert [row[2] for row in rows["table-lineage"][1:]] == [
        "the beginning",
        "round 56 + 1 updates",
    ]


def test_plots_are_drawn_of_the_same_figures() -> None:
    found = read(a_training(), two_rounds()).figures
    assert found["trained"] == [1, 2]
    assert found["curves"]["model-accuracy"]["centre"] == [0.1 + 0.2, 0.1 + 0.4]
    assert found["curves"]["training-loss"]["own"] == [
        ["north", [0.5, 0.25]],
        ["south", [1 / 3, 1 / 3]],
    ]
    second = found["rounds"][1]
    assert second["offset"] == 40.0
    assert second["spans"] == [["Starting", 0, 5], ["Training", 5, 25], ["Aggregating", 25, 30]]
    assert second["participants"][0] == {
        "name": "north",
        "state": "Accepted",
        "attempt": 1,
        "failures": 0,
        "start": 5.0,
        "samples": 100,
        "weight": 0.75,
        "seconds": 12.5,
        "metrics": {"loss": 0.25},
        "digest": lab.DIGEST,
    }


def test_norms_and_cosines_are_drawn_of_each_update_or_of_the_range_of_all() -> None:
    ranges = {
        "norms": {"least": 1.0, "median": 2.0, "most": 8.0},
        "cosines": {"least": -0.5, "median": 0.5, "most": 0.75},
    }
    records = [
        a_round(
            1,
            accepted("north", norm=0.125, cosine=1.0),
            accepted("south", norm=0.5, cosine=0.0),
        ),
        a_round(2, accepted("north"), accepted("south"), measured=ranges),
    ]
    found = read(a_training(), records)
    norm = found.figures["curves"]["update-norm"]
    assert norm["centre"] == [0.3125, 2.0]
    assert norm["own"] == [["north", [0.125, None]], ["south", [0.5, None]]]
    assert norm["least"] == [["north", 0.125], ["", 1.0]]
    assert found.figures["curves"]["update-cosine"]["greatest"] == [["north", 1.0], ["", 0.75]]
    assert found.tables["table-update-norm"][1] == ["1", "0.3125", "0.125", "0.5"]
    assert found.figures["rounds"][0]["participants"][1]["norm"] == 0.5


def test_a_metric_of_nought_is_a_figure() -> None:
    none = a_round(1, accepted("north", metrics={"loss": 0.0}, weight=0.0), metrics={"loss": 0.0})
    found = read(a_training(), [none])
    assert found.tables["table-model-loss"][1] == ["1", "0.0"]
    assert found.figures["rounds"][0]["participants"][0]["metrics"] == {"loss": 0.0}
    assert found.figures["rounds"][0]["participants"][0]["weight"] == 0.0


@pytest.mark.parametrize("text", HOSTILE)
def test_what_participants_and_scripts_say_is_text(text: str) -> None:
    bad = failed(text, reason=text, message=text)
    model = {"round": 1, "path": text, "digest": text}
    record = a_round(
        1,
        bad,
        accepted("north", metrics={text: 1.0}, digest=text, lastFailure=f"{text}: {text}"),
        metrics={text: 2.0},
        globalModel=model,
        evaluation=[{"name": text, "state": "Failed", "reason": text, "message": text}],
    )
    training = a_training(
        name=text,
        spec={"parameters": {text: text}},
        phase="Blocked",
        reason=text,
        message=text,
        metrics={text: 2.0},
        globalModel=model,
        score=text,
        quarantine=text,
    )
    harmless = read(a_training(), [a_round(1, failed("west"), accepted("north"))])
    found = read(training, [record])
    kinds = {tag for tag, _ in found.elements}
    assert kinds <= {tag for tag, _ in harmless.elements} | {"figure", "figcaption", "h3", "b"}
    assert sum(tag == "script" for tag, _ in found.elements) == 2
    assert not any(name.startswith("on") for _, given in found.elements for name in given)
    said = found.figures["rounds"][0]["participants"][0]
    assert (said["name"], said["reason"], said["message"]) == (text, text, text)
    assert [row[0] for row in found.tables["table-dropped"]][1:] == [text, "north"]


def test_the_policy_lets_nothing_run_but_the_script_of_the_page() -> None:
    found = read(a_training(), two_rounds())
    policy = next(g["content"] for _, g in found.elements if "http-equiv" in g) or ""
    style, data, script = found.scripts
    for kind, text in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert json.loads(data)["trained"] == [1, 2]
    linked = [g for _, g in found.elements for key in g if key in ("src", "href")]
    assert all((g.get("href") or "").startswith(("#", "data:,")) for g in linked)


def test_the_same_values_are_the_same_bytes_in_any_order() -> None:
    records = two_rounds()
    shuffled = records[:]
    random.Random(1).shuffle(shuffled)
    assert page.html(a_training(), records) == page.html(a_training(), list(reversed(shuffled)))


def test_a_training_that_has_not_begun_says_so() -> None:
    found = read(a_training())
    assert "Pending 0 of 3 rounds, 3 participants, FedAvg" in found.words
    assert "No round has begun." in found.words
    assert found.figures["rounds"] == []


def test_a_first_round_under_way_has_no_figure_that_nobody_measured() -> None:
    running = {"name": "north", "state": "Running", "startedAt": lab.moment(4)}
    unfinished = {"publishedAt": None, "globalModel": None, "aggregation": None}
    since = {"phase": "Training", "phaseSince": lab.moment(0), "durations": {}}
    record = a_round(1, running, **unfinished, **since)
    found = read(a_training(phase="Training", round=1, startedAt=lab.moment(-5)), [record])
    assert "No round has measured anything yet." in found.words
    assert found.figures["rounds"][0]["spans"] == [["Starting", 0, 4]]
    assert found.figures["strips"][0] == ["north", "o"]
    assert "why-not" not in {given.get("id") for _, given in found.elements}


@pytest.mark.parametrize("phase", ["Failed", "Suspended", "Blocked"])
def test_what_does_not_go_on_says_why_not_at_the_top(phase: str) -> None:
    said = a_training(phase=phase, reason="QuorumMissed", message="0 updates of the 2")
    found = read(said, [a_round(1, failed("north"))])
    assert f"{phase} 0 of 3 rounds" in found.words
    assert "QuorumMissed: 0 updates of the 2" in found.words


def test_who_was_dropped_and_why_is_told_once_for_each_reason() -> None:
    records = [
        a_round(1, failed("west"), accepted("north", lastFailure="Evicted: node drained")),
        a_round(2, failed("west", message="it broke again"), accepted("north")),
        a_round(3, {"name": "north", "state": "Late"}, spec={"quarantined": {"west": 4}}),
    ]
    rows = read(a_training(), records).tables["table-dropped"]
    said = "for having lost too many rounds; up to round 4"
    assert rows[1:] == [
        ["west", "failed", "1-2", "2", "ScriptFailed", "it broke again"],
        ["north", "late", "3", "1", "Late", ""],
        ["west", "quarantined", "3", "1", "Quarantined", said],
        ["north", "retried", "1", "1", "Evicted", "node drained"],
    ]
    strips = dict(read(a_training(), records).figures["strips"])
    assert strips == {"north": "AAL", "south": "...", "west": "FFQ"}


def test_a_thousand_participants_and_five_hundred_rounds_stay_a_page() -> None:
    names = [f"site-{n:04d}" for n in range(1000)]
    shared = [accepted(n, metrics={"loss": i / 7}) for i, n in enumerate(names)]
    shared[-1] = failed("site-0999", message="x" * 2000)
    records = repeated(a_round(1, *shared, metrics={"accuracy": 0.5}), 500)
    text = page.html(a_training(*names, rounds=500), records)
    assert len(text) < 8_000_000
    found = Page(text)
    shown = found.figures["rounds"][0]
    assert len(shown["participants"]) + shown["leftOut"] == 1000
    assert 5 <= len(shown["participants"]) <= 40
    assert "site-0999" in {p["name"] for p in shown["participants"]}, "losses come first"
    assert f"all contributions but {len(shown['participants'])}" in found.words
    loss = found.figures["curves"]["training-loss"]
    assert (len(loss["own"]), loss["leftOut"]) == (24, 975)
    assert loss["greatest"][0] == ["site-0998", 998 / 7]
    assert len(found.tables["table-who"]) == 1001


def test_of_more_rounds_than_a_page_holds_the_last_are_there() -> None:
    records = repeated(a_round(1, accepted("north")), figures.ROUNDS + 2)
    found = read(a_training(), records)
    assert found.figures["trained"][0] == 3
    assert "Left out: 2 earlier rounds" in found.words
