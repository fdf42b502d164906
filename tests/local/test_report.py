"""The report of a real run, read in a real browser."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from playwright.sync_api import Page

from fedoperator.report import page as report_page
from tests import browser
from tests.browser import Reader, Scheme
from tests.report import lab

pytestmark = pytest.mark.processes
ROOT = Path(__file__).parents[2]


def report(*words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    paths = os.pathsep.join(str(ROOT / name) for name in ("operator", "trainer"))
    return subprocess.run(
        [sys.executable, "-m", "fedoperator.cli", "report", *words],
        env=os.environ | {"PYTHONPATH": paths} | environment,
        capture_output=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def lived(
    a_federation: Callable[[Path], Any],
    three: Callable[..., dict[str, list[str]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    """Three rounds of three, of which one fails for good in the second; and its report."""
    made = a_federation(tmp_path_factory.mktemp("reported"))
    names = three() | {"c": ["--part", "2", "--raise-in", "2"]}
    made.of(names, rounds=3, retries=1, quorum={"minimum": 2}, evaluation={"by": "a"})
    result = made.run()
    assert result.returncode == 0, result.stderr
    written = report(str(made.out), "-o", str(made.folder / "linear.html"))
    assert (written.returncode, written.stderr) == (0, b"")
    yield made
    made.close()


def cells(page: Page, table: str) -> list[list[str]]:
    """Of its body, exact figures where shortened ones are shown."""
    read = """rows => rows.map(row => [...row.children].map(
        cell => cell.querySelector("data")?.value ?? cell.textContent))"""
    found = page.locator(f"#{table} tbody tr").evaluate_all(read)
    return cast(list[list[str]], found)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
def test_a_reader_finds_the_figures_of_the_status_and_chooses_rounds(
    reader: Reader, lived: Any, width: int, scheme: Scheme
) -> None:
    status, records = lived.status, lived.records
    url = (lived.folder / "linear.html").as_uri()
    with reader.reading(url, width=width, scheme=scheme) as page:
        assert page.locator("h1").inner_text() == "linear"
        assert page.locator(".lede strong").inner_text() == status["phase"] == "Succeeded"
        assert page.locator("#model code").first.inner_text() == status["globalModel"]["digest"]
        loss = page.locator("#how-good data").first.get_attribute("value")
        assert loss is not None
        assert float(loss) == status["metrics"]["loss"]
        assert browser.overflow(page) <= 0

        page.locator("figure[data-curve=model-loss] summary").click()
        assert page.locator("#table-model-loss").is_visible()
        found = [float(row[1]) for row in cells(page, "table-model-loss")]
        assert found == [r["status"]["metrics"]["loss"] for r in records[1:]]
        lineage = [row[1] for row in cells(page, "table-lineage")]
        assert lineage == [r["status"]["globalModel"]["digest"] for r in records]

        page.select_option("#chosen", "2")
        assert "2 of 3 accepted" in page.locator("#told").inner_text()
        by_name = {row[0]: row for row in cells(page, "table-round")}
        second = {p["name"]: p for p in records[2]["status"]["participants"]}
        assert by_name["c"][1:3] == ["Failed", "ScriptFailed"]
        assert "no luck in round 2" in "".join(by_name["c"])
        for name in ("a", "b"):
            row = [float(text) for text in by_name[name][3:7]]
            expected = [second[name][key] for key in ("attempt", "samples", "weight", "seconds")]
            assert row == expected
            assert second[name]["digest"] in by_name[name]
        page.locator("#later").click()
        assert page.locator("#table-round caption").inner_text() == "Contributions to round 3"
        assert page.locator("#later").is_disabled()

        dropped = cells(page, "table-dropped")
        assert dropped[0][:5] == ["c", "failed", "2", "1", "ScriptFailed"]
        strip = page.locator("[data-strip='2'] svg")
        assert strip.get_attribute("aria-label") == "c: 2 accepted, 1 failed"
        page.locator("input[value=clock]").check()
        assert page.locator("#timing svg path.Training").count() == 1
        assert browser.overflow(page) <= 0
    assert reader.complaints == []


def test_pointer_and_keys_tell_exact_figures(reader: Reader, lived: Any) -> None:
    losses = [r["status"]["metrics"]["loss"] for r in lived.records[1:]]
    with reader.reading((lived.folder / "linear.html").as_uri()) as page:
        page.emulate_media(reduced_motion="reduce")
        plot = page.locator("figure[data-curve=model-loss] .plot svg")
        plot.focus()
        page.keyboard.press("ArrowLeft")
        told = page.locator("#tip").inner_text()
        assert told.startswith(f"round 2\nglobal model: {losses[1]}")
        assert page.locator("#chosen").input_value() == "2"
        page.keyboard.press("Escape")
        assert page.locator("#tip").is_hidden()
        plot.hover(position={"x": 70, "y": 100})
        assert f"global model: {losses[0]}" in page.locator("#tip").inner_text()
        plot.click(position={"x": 70, "y": 100})
        assert page.locator("#chosen").input_value() == "1"
    assert reader.complaints == []


def test_light_and_dark_follow_the_system_until_a_reader_chooses(
    reader: Reader, lived: Any
) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    url = (lived.folder / "linear.html").as_uri()
    with reader.reading(url, scheme="dark") as page:
        dark = page.evaluate(paper)
        page.locator("#theme").click()
        assert page.locator("#theme").inner_text() == "Theme: light"
        light = page.evaluate(paper)
        page.reload()
        assert page.evaluate(paper) == light != dark
    with reader.reading(url, scheme="light") as page:
        assert page.evaluate(paper) == light
    assert reader.complaints == []


def test_hostile_texts_are_read_and_never_run(reader: Reader, tmp_path: Path) -> None:
    text = (
        "</script><script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"
    )
    record = lab.a_round(
        1,
        lab.failed(text, reason=text, message=text),
        lab.accepted("north", metrics={text: 1.0}, digest=text),
        metrics={text: 2.0},
    )
    training = lab.a_training(name=text, phase="Blocked", reason=text, message=text)
    path = tmp_path / "hostile.html"
    path.write_text(report_page.html(training, [record]))
    with reader.reading(path.as_uri(), width=360) as page:
        assert page.title().startswith("</script>")
        assert page.locator("h1").inner_text() == text
        assert cells(page, "table-round")[0][0] == text
        assert page.locator("img").count() == 0
        page.locator("#contributions .plot svg").hover(position={"x": 40, "y": 30})
        assert page.locator("#tip").inner_text().startswith(text)
        assert browser.overflow(page) <= 0
    assert reader.complaints == []


def test_what_is_measured_every_other_round_is_a_line(reader: Reader, tmp_path: Path) -> None:
    metrics = [{"loss": 1 / n} if n % 2 == 0 else {} for n in range(1, 6)]
    records = [
        lab.a_round(n, lab.accepted("north", metrics=m), metrics=m)
        for n, m in enumerate(metrics, 1)
    ]
    path = tmp_path / "page.html"
    path.write_text(report_page.html(lab.a_training(), records))
    with reader.reading(path.as_uri()) as page:
        plot = page.locator("figure[data-curve=model-loss] .plot")
        assert (plot.locator(".centre").get_attribute("d") or "").count("L") == 1
        training = page.locator("figure[data-curve=training-loss] .plot")
        assert (training.locator(".line.gap").get_attribute("d") or "").count("L") == 1
    assert reader.complaints == []


def test_a_page_that_complains_or_asks_outside_is_noticed(reader: Reader, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text(
        "<script>console.error('no'); fetch('http://127.0.0.1:9/x').catch(() => 0)</script>"
    )
    with reader.reading(path.as_uri()) as page:
        page.wait_for_load_state("networkidle")
    heard, reader.complaints = reader.complaints, []
    assert "error: no" in heard
    assert "asked for http://127.0.0.1:9/x" in heard


def test_the_same_run_gives_the_same_bytes_in_every_process(lived: Any) -> None:
    first, second = (report(str(lived.out), "-o", "-", PYTHONHASHSEED=seed) for seed in "12")
    assert first.returncode == second.returncode == 0
    assert first.stdout == second.stdout == (lived.folder / "linear.html").read_bytes()


def test_what_cannot_be_written_or_read_is_one_sentence(lived: Any, tmp_path: Path) -> None:
    unwritable = report(str(lived.out), "-o", str(tmp_path / "no" / "x.html"))
    assert unwritable.returncode == 1
    assert unwritable.stderr.decode().endswith("with -o, or - for standard output\n")
    missing = report(str(tmp_path))
    assert missing.returncode == 1
    assert missing.stderr.decode().count("\n") == 1
    assert "Traceback" not in missing.stderr.decode()
