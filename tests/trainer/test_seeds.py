"""Seeds follow from identity."""

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.seeds import derive, reseed

NAMES = st.from_regex(r"\A[a-z]([-a-z0-9]{0,38}[a-z0-9])?\Z")
IDENTITIES = st.tuples(
    st.integers(0, 2**63), st.integers(0, 10_000), NAMES, st.none() | st.integers(0, 4096)
)


@given(IDENTITIES)
def test_a_seed_fits_every_generator_and_never_changes(
    identity: tuple[int, int, str, int | None],
) -> None:
    seed = derive(*identity)
    assert 0 <= seed < 2**32
    assert seed == derive(*identity)
    np.random.RandomState(seed)


@given(st.lists(IDENTITIES, min_size=2, max_size=50, unique=True))
def test_different_rounds_participants_and_ranks_have_different_seeds(
    identities: list[tuple[int, int, str, int | None]],
) -> None:
    # Thirty-two bits: fifty of them collide once in three million draws, and this test is not
    # run that often.
    assert len({derive(*identity) for identity in identities}) == len(identities)


def test_the_documented_formula_is_the_one_in_use() -> None:
    import hashlib

    digest = hashlib.sha256(b"fedtrain/7/3/north/1").digest()
    assert derive(7, 3, "north", 1) == int.from_bytes(digest[:4], "big")


def test_reseeding_makes_python_numpy_and_torch_repeat_themselves() -> None:
    import torch

    def draw() -> tuple[float, float, float]:
        reseed(5)
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    assert draw() == draw()
