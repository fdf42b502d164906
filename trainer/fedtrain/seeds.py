"""Seeds that follow from identity, so that a round is the same whoever runs it, and when.

    sha256("fedtrain/<spec seed>/<round>/<participant>[/<rank>]"), its first four bytes, big endian

Thirty-two bits, because that is what every generator accepts (numpy's legacy one takes no more).
"""

import hashlib
import random
import sys


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
