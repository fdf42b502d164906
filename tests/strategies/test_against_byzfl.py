"""byzfl's rules as second oracles.

Its Krum and Multi-Krum take one neighbour more than the paper (n - f - 1, not n - f - 2): with
f + 1 they are the paper's with f, but for Multi-Krum's selecting one less. Its geometric median
starts at zero, so both are walked to the end. It has no Bulyan.
"""

import importlib
import warnings
from typing import Any

import numpy as np
import pytest

from benchmarks import peers
from fedtrain.strategies import strategy
from tests.strategies.rounds_in_memory import initial, reduce_by, reduced, updates

pytestmark = pytest.mark.processes  # byzfl is downloaded, once

SEEDS = range(20)
byzfl: Any = None


@pytest.fixture(autouse=True, scope="module")
def _byzfl_itself() -> None:
    """Not at import: the quick tests collect this file too."""
    global byzfl
    peers.installed()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what they import: not ours to mend
        byzfl = importlib.import_module("byzfl")


@pytest.mark.parametrize("seed", SEEDS)
def test_krum_is_byzfls_with_the_papers_neighbours(seed: int) -> None:
    f = seed % 3
    deltas = updates(seed, 2 * f + 3 + seed % 5)
    theirs = byzfl.Krum(f=f + 1)(deltas.astype(np.float64))
    assert np.array_equal(reduce_by({"name": "Krum", "byzantine": f}, deltas), theirs)


@pytest.mark.parametrize("seed", SEEDS)
def test_multi_krum_is_byzfls_with_the_papers_neighbours(seed: int) -> None:
    f = seed % 3
    deltas = updates(seed, 2 * f + 3 + seed % 5)
    theirs = byzfl.MultiKrum(f=f + 1)(deltas.astype(np.float64))
    document = {"name": "MultiKrum", "byzantine": f, "selected": len(deltas) - f - 1}
    assert np.allclose(reduce_by(document, deltas), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_median_is_byzfls(seed: int) -> None:
    deltas = updates(seed, 1 + seed)
    theirs = byzfl.Median()(deltas.astype(np.float64))
    assert np.allclose(reduce_by({"name": "Median"}, deltas), theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_trimmed_mean_is_byzfls(seed: int) -> None:
    trim = seed % 4
    deltas = updates(seed, 2 * trim + 1 + seed)
    theirs = byzfl.TrMean(f=trim)(deltas.astype(np.float64))
    result = reduce_by({"name": "TrimmedMean", "trim": trim}, deltas)
    assert np.allclose(result, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("nu", [1e-6, 0.1])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_geometric_median_is_byzfls(seed: int, nu: float) -> None:
    deltas = updates(seed, 3 + seed)
    theirs = byzfl.GeometricMedian(nu=nu, T=2000)(deltas.astype(np.float64))
    document = {"name": "GeometricMedian", "epsilon": nu, "iterations": 2000}
    assert np.allclose(reduce_by(document, deltas), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("iterations", [1, 4])
@pytest.mark.parametrize("radius", [0.5, 4.0, 100.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_centered_clipping_is_byzfls_for_several_rounds(
    seed: int, radius: float, iterations: int
) -> None:
    theirs = byzfl.CenteredClipping(L=iterations, tau=radius)
    rule = strategy({"name": "CenteredClipping", "radius": radius, "iterations": iterations})
    slots = initial(rule, 33)
    model = np.zeros(33, np.float32)
    for round_number in range(4):
        deltas = updates(100 * seed + round_number, 2 + seed % 9)
        delta = reduced(rule, deltas, slots=slots)
        assert np.allclose(delta, theirs(deltas.astype(np.float64)), rtol=1e-5, atol=1e-5)
        model = rule.step(model, delta, slots)
