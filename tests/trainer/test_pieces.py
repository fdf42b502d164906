"""The digest of what ranks saw in pieces is the file's own, and proves what they saw."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain import digest, pieces, tensorfile
from fedtrain.collective import Alone
from fedtrain.errors import ContractError, TryAgain
from fedtrain.meeting import Meeting
from fedtrain.pieces import Differs, Pieces, joint_digest
from fedtrain.sharedfile import SharedWriter
from fedtrain.tensorfile import TensorFile, TensorWriter, bytes_of, digest_file, plan
from tests.trainer.threads import Threads

DTYPES = {"F32": np.float32, "F64": np.float64, "I16": np.int16, "BOOL": np.bool_}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (digest, pieces, tensorfile):
        monkeypatch.setattr(module, "TILE_BYTES", 32)
    for module in (pieces, tensorfile):
        monkeypatch.setattr(module, "PIECE_BYTES", 16)


@st.composite
def files(draw: Any) -> tuple[dict[str, Any], list[list[int]]]:
    """Arrays by name, and for each where the rows of each rank end."""
    world = draw(st.integers(1, 4))
    arrays, cuts = {}, []
    for number in range(draw(st.integers(1, 4))):
        count = draw(st.integers(0, 60))
        dtype = DTYPES[draw(st.sampled_from(sorted(DTYPES)))]
        values = np.random.default_rng(number).integers(0, 2, count)
        arrays[f"t{number}"] = values.astype(dtype)
        inner = draw(st.lists(st.integers(0, count), min_size=world - 1, max_size=world - 1))
        cuts.append([0, *sorted(inner), count])
    return arrays, cuts


def layout(arrays: dict[str, Any]) -> Any:
    return plan((name, tensorfile.dtype_name(a), a.shape) for name, a in arrays.items())


@pytest.mark.usefixtures("small")
@settings(max_examples=60, deadline=None)
@given(file=files(), step=st.integers(1, 9))
def test_a_file_that_ranks_wrote_together_is_that_of_one_process(
    tmp_path_factory: pytest.TempPathFactory, file: Any, step: int
) -> None:
    arrays, cuts = file
    folder, infos = tmp_path_factory.mktemp("files"), layout(arrays)
    with TensorWriter(folder / "alone", infos) as alone:
        for name, array in arrays.items():
            alone.write(name, 0, array)
        wanted = alone.digest()

    def write(ranks: Any) -> str:
        with SharedWriter(ranks, folder / "together", infos) as together:
            for (name, array), cut in zip(arrays.items(), cuts, strict=True):
                begin, end = cut[ranks.rank], cut[ranks.rank + 1]
                for start in range(begin, end, step):
                    together.write(name, start, array[start : min(start + step, end)])
            return together.digest()

    world = len(cuts[0]) - 1
    assert Threads(world).run(write) == [wanted] * world
    assert (folder / "together").read_bytes() == (folder / "alone").read_bytes()


@pytest.mark.usefixtures("small")
@settings(max_examples=60, deadline=None)
@given(file=files(), seed=st.integers(0, 99))
def test_whatever_ranks_read_of_a_file_its_digest_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, file: Any, seed: int
) -> None:
    arrays, cuts = file
    path = tmp_path_factory.mktemp("files") / "model"
    with TensorWriter(path, layout(arrays)) as written:
        for name, array in arrays.items():
            written.write(name, 0, array)

    def read(ranks: Any) -> str:
        seen, draw = Pieces(), np.random.default_rng([seed, ranks.rank])
        with TensorFile.open(path) as model:
            for info in model.tensors.values():
                item = info.nbytes // max(1, info.count)
                for _ in range(3):  # any parts, twice or never
                    begin, end = sorted(draw.integers(0, info.count + 1, 2).tolist())
                    end = min(end, (begin * item // 32 + 1) * 32 // max(1, item))
                    seen.add(info, begin, bytes_of(model.read(info.name, begin, end)))
            again = lambda name, a, b: bytes_of(model.read(name, a, b))  # noqa: E731
            return joint_digest(ranks, model.tensors, seen, again, whole=False)

    world = len(cuts[0]) - 1
    with TensorFile.open(path) as model:
        assert Threads(world).run(read) == [digest_file(model)] * world


def read_by(ranks: Any, path: Path, ranges: list[tuple[int, int]], change: Any) -> Any:
    """One rank reads its range; then `change` happens to the file, and all compare."""
    seen = Pieces()
    with TensorFile.open(path) as model:
        info, (begin, end) = model.tensors["w"], ranges[ranks.rank]
        seen.add(info, begin, bytes_of(model.read("w", begin, end)))
        ranks.gather(None)
        if ranks.rank == 0:
            change()
        ranks.gather(None)
        again = lambda name, a, b: bytes_of(model.read(name, a, b))  # noqa: E731
        meeting = Meeting(ranks)

        def compare() -> str:
            try:
                return joint_digest(meeting, model.tensors, seen, again, whole=False)
            except Differs as error:
                raise TryAgain("BaseDigestMismatch", str(error)) from error

        return meeting.act(compare)


def test_bytes_that_one_rank_used_and_that_are_gone_since_are_noticed_by_all(
    tmp_path: Path,
) -> None:
    path, values = tmp_path / "model", np.arange(10, dtype=np.float32)
    with TensorWriter(path, plan([("w", "F32", (10,))])) as file:
        file.write("w", 0, values)
    ranges = [(0, 4), (4, 10)]
    assert len(set(Threads(2).run(lambda r: read_by(r, path, ranges, lambda: None)))) == 1

    def change() -> None:
        with open(path, "r+b") as file:
            file.seek(-4, 2)
            file.write(b"\1\2\3\4")

    errors = Threads(2).run(lambda ranks: read_by(ranks, path, ranges, change))
    assert [error.reason for error in errors] == ["BaseDigestMismatch"] * 2
    assert {str(error) for error in errors} == {"'w', elements 4 to 10"}


def test_what_another_writer_did_to_a_shared_tile_is_noticed(tmp_path: Path) -> None:
    def write(ranks: Any) -> Any:
        meeting = Meeting(ranks)

        def act() -> str:
            infos = plan([("w", "F32", (8,))])
            with SharedWriter(meeting, tmp_path / "update", infos) as file:
                file.write("w", 4 * ranks.rank, np.ones(4, np.float32))
                meeting.gather(None)
                if ranks.rank == 1:
                    with open(tmp_path / "update", "r+b") as other:
                        other.seek(-32, 2)
                        other.write(bytes(4))
                return file.digest()

        return meeting.act(act)

    errors = Threads(2).run(write)
    assert [error.reason for error in errors] == ["ExchangeFailed"] * 2
    assert "does not hold what was written: 'w', elements 0 to 4" in str(errors[0])


def test_elements_that_no_rank_wrote_are_missed_by_all(tmp_path: Path) -> None:
    def write(ranks: Any) -> str:
        with SharedWriter(ranks, tmp_path / "update", plan([("w", "F32", (8,))])) as file:
            file.write("w", 4 * ranks.rank, np.ones(3, np.float32))
            return file.digest()

    errors = Threads(2).run(write)
    assert {str(error) for error in errors} == {"w: elements from 3 on were never written"}


def test_ranks_with_different_models_are_refused(tmp_path: Path) -> None:
    def write(ranks: Any) -> None:
        infos = plan([("w", "F32", (8 + ranks.rank // 2,))])
        SharedWriter(ranks, tmp_path / "update", infos)

    errors = Threads(3).run(write)
    assert all(isinstance(error, ContractError) for error in errors)
    assert "rank 2 has other tensors than rank 0" in str(errors[1])


def test_a_tensor_without_elements_is_part_of_the_digest(tmp_path: Path) -> None:
    infos = plan([("w", "F32", (0, 3))])
    with SharedWriter(Alone(), tmp_path / "update", infos) as file:
        said = file.digest()
    with TensorFile.open(tmp_path / "update") as read:
        assert digest_file(read) == said
