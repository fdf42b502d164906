import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedoperator.report import losses, markup


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (3599.6, "1 h 0 min"),
        (47 * 3600 + 59 * 60, "47 h 59 min"),
        (49 * 3600, "2 d 1 h"),
    ],
)
def test_a_duration_has_two_units(seconds: float, words: str) -> None:
    assert markup.duration(seconds).replace("\N{NO-BREAK SPACE}", " ") == words


@given(st.floats(-1e300, 1e300))
def test_a_figure_is_short_to_read_and_exact_to_copy(value: float) -> None:
    shown = re.fullmatch(
        '<data value="(.*)" title="(.*)">(.*)</data>', markup.cell(markup.Exact(value))
    )
    assert shown is not None
    assert float(shown[1]) == float(shown[2]) == value
    assert abs(float(shown[3]) - value) <= abs(value) * 6e-3
    assert len(shown[3]) <= 10


@given(st.text())
def test_no_text_ends_the_element_that_it_is_embedded_in(text: str) -> None:
    inside = markup.embedded("x", [text]).removeprefix('<script type="application/json" id="x">')
    inside = inside.removesuffix("</script>")
    assert not set("<>&") & set(inside)
    assert json.loads(inside) == [text]


@given(st.sets(st.integers(1, 60)))
def test_rounds_are_told_as_ranges(rounds: set[int]) -> None:
    told = losses.ranges(sorted(rounds))
    ends = [part.split("-") for part in told.split(", ") if part]
    assert {n for part in ends for n in range(int(part[0]), int(part[-1]) + 1)} == rounds
