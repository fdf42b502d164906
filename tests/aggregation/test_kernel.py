"""The compiled kernel: numpy's bits, and numpy where there is none that can be had."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.aggregation import kernel as kernels
from fedtrain.aggregation.kernel import Kernel, build
from fedtrain.aggregation.sums import CompiledSum, Float32Sum, Sum, sum_of

needs_a_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
SPECIAL = (0.0, -0.0, 1e-45, -1e-45, 1.1e-38, 1e30, -1e30, 3.4e38, 1.0)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Kernel:
    library = tmp_path_factory.mktemp("kernel") / "libkernel.so"
    build(library)
    return Kernel(library)


@needs_a_compiler
@given(
    kinds=st.lists(st.sampled_from(("F32", "BF16", "F16")), min_size=1, max_size=40),
    count=st.integers(0, 400),
    strange=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=200, deadline=None)
def test_the_bits_are_those_of_numpy(
    compiled: Kernel, kinds: list[str], count: int, strange: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    both: tuple[Sum, Sum] = (Float32Sum(), CompiledSum(compiled))
    for running in both:
        running.start(count)
    for kind in kinds:
        drawn = rng.choice(SPECIAL, count) if strange else rng.normal(size=count)
        value = drawn.astype(np.float32)
        if kind == "BF16":
            value = (value.view(np.uint32) >> 16).astype(np.uint16)
        elif kind == "F16":
            value = np.clip(value, -6e4, 6e4).astype(np.float16)
        weight = float(rng.uniform(0, 1))
        for running in both:
            running.add(value, weight)
    in_numpy, in_c = (running.result() for running in both)
    assert np.array_equal(np.isnan(in_numpy), np.isnan(in_c))
    known = ~np.isnan(in_numpy)  # of infinity less infinity the sign is anybody's
    assert in_numpy[known].tobytes() == in_c[known].tobytes()


@needs_a_compiler
def test_a_named_library_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path / "mine.so")
    monkeypatch.setenv("FEDTRAIN_KERNEL", str(tmp_path / "mine.so"))
    monkeypatch.setattr("fedtrain.aggregation.sums.kernel", kernels.kernel.__wrapped__)
    assert type(sum_of("Float32")) is CompiledSum


@needs_a_compiler
def test_a_kernel_with_other_bits_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "kernel.c"
    text = kernels.SOURCE.read_text().replace("+= value[i] * weight", "-= value[i] * -weight * 2")
    other.write_text(text)
    monkeypatch.setattr(kernels, "SOURCE", other)
    with pytest.raises(ValueError, match="numpy's bits"):
        build(tmp_path / "libkernel.so")
    assert list(tmp_path.iterdir()) == [other]


@pytest.mark.parametrize("content", [None, b"", b"not a library"])
def test_a_library_that_cannot_be_loaded_costs_one_line(
    content: bytes | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    library = tmp_path / "wrong.so"
    if content is not None:
        library.write_bytes(content)
    monkeypatch.setenv("FEDTRAIN_KERNEL", str(library))
    assert kernels.kernel.__wrapped__() is None
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert "numpy sums" in said[0]


def test_without_a_library_numpy_sums_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FEDTRAIN_KERNEL", raising=False)
    monkeypatch.setattr(kernels, "LIBRARY", tmp_path / "none.so")
    monkeypatch.setattr("fedtrain.aggregation.sums.kernel", kernels.kernel.__wrapped__)
    assert type(sum_of("Float32")) is Float32Sum
    assert capsys.readouterr().out == ""
