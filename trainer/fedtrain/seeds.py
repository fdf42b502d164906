"""Seeds that follow from identity, so that a round is the same whoever runs it, and when.

    sha256("fedtrain/<spec seed>/<round>/<participant>[/<rank>]"), its first four bytes, big endian

Thirty-two bits, because that is what every generator accepts (numpy's legacy one takes no more).
"""

import hashlib
import random
import sys
from collections.abc import Mapping
from typing import Any


def derive(seed: int, round_number: int, participant: str, rank: int | None = None) -> int:
    """The seed of one rank, or without `rank` the one that all ranks of a participant share."""
    words = ["fedtrain", str(seed), str(round_number), participant]
    if rank is not None:
        words.append(str(rank))
    return int.from_bytes(hashlib.sha256("/".join(words).encode()).digest()[:4], "big")


def reseed(seed: int) -> None:
    """Seed Python's generator, and numpy's and torch's (all devices) if they are loaded."""
    random.seed(seed)
    if "numpy" in sys.modules:
        import numpy

        numpy.random.seed(seed)
    if "torch" in sys.modules:
        import torch

        torch.manual_seed(seed)


def generators() -> dict[str, Any]:
    """The state of every generator that is loaded: Python's, numpy's, torch's (all devices)."""
    states: dict[str, Any] = {"python": random.getstate()}
    if "numpy" in sys.modules:
        import numpy

        states["numpy"] = numpy.random.get_state()
    if "torch" in sys.modules:
        import torch

        states["torch"] = torch.get_rng_state()
        if torch.cuda.is_available():
            states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def go_on(states: Mapping[str, Any]) -> None:
    """Continue where `generators` was called; what is not loaded here is left alone."""
    random.setstate(states["python"])
    if "numpy" in states:
        import numpy

        numpy.random.set_state(states["numpy"])
    if "torch" in states:
        import torch

        torch.set_rng_state(states["torch"])
        for device, state in enumerate(states.get("cuda", ())[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, device)
