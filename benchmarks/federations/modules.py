"""The models of the tasks. Classes of their own without arguments: FLARE makes them by their names.

Stands alone: it is copied beside `work.py`, which imports it only where torch is wanted.
"""

import torch
from torch import nn

TENSORS, ELEMENTS = 10, 10_000_000


class Tiny(nn.Linear):
    """110 parameters."""

    def __init__(self):
        super().__init__(10, 10)


class Large(nn.ParameterList):
    """100 million parameters that nothing is computed with."""

    def __init__(self):
        super().__init__(nn.Parameter(torch.zeros(ELEMENTS)) for _ in range(TENSORS))


class Digits(nn.Sequential):
    """The convolutional network of the digits example."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.25),
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, 128),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(128, 10),
        )
