"""The compiled kernel of fp32 sums, where there is one; without it numpy gives the same bits.

    python -m fedtrain.aggregation.kernel        # compile it beside this file, with $CC or cc

FEDTRAIN_KERNEL names another library; "" asks for numpy. A library that cannot be loaded or that
does not give numpy's bits is left alone, with a line in the log.
"""

import ctypes
import functools
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from fedtrain.aggregation.log import say

Array = np.ndarray[Any, Any]

SOURCE = Path(__file__).with_name("kernel.c")
LIBRARY = Path(__file__).with_name("libkernel.so")  # kernel.so would be imported for this module
VERSION = 1
FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-fPIC", "-shared")


class Kernel:
    """A loaded library. Raises OSError if it is none, ValueError if it is not what we know."""

    def __init__(self, path: Path) -> None:
        loaded = ctypes.CDLL(str(path))  # calls let go of the interpreter's lock
        try:
            version = loaded.fedtrain_kernel_version()
            self._fp32, self._bf16 = loaded.fedtrain_add_fp32, loaded.fedtrain_add_bf16
        except AttributeError as error:
            raise ValueError(f"it has no function of ours: {error}") from None
        if version != VERSION:
            raise ValueError(f"it is version {version}, not {VERSION}")
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        for function in (self._fp32, self._bf16):
            function.argtypes = [pointer, pointer, size, ctypes.c_float, ctypes.c_int]
            function.restype = None
        self._try_out()

    def add(self, partial: Array, value: Array, weight: float, first: bool) -> None:
        """`partial += weight * value`, or `=` at first; fp32, and fp32 or the bits of bf16."""
        assert partial.dtype == np.float32
        assert value.dtype in (np.float32, np.uint16)
        assert partial.shape == value.shape == (partial.size,), "C looks at no bounds"
        if not (value.flags.c_contiguous and value.flags.aligned):
            value = np.require(value, requirements=("C", "A"))
        assert partial.flags.c_contiguous
        function = self._bf16 if value.dtype == np.uint16 else self._fp32
        function(partial.ctypes.data, value.ctypes.data, value.size, weight, first)

    def _try_out(self) -> None:
        """A fused multiply-add, or subnormals flushed to zero, would be other bits."""
        bits = np.random.default_rng(7).integers(0, 0x7F00, 203).astype(np.uint16)
        bits[:3] = 0x8000, 1, 0x8001
        narrow = (bits.astype(np.uint32) << 16).view(np.float32)
        wide = narrow * np.float32(1 / 3)
        weight = np.float32(0.7)
        expected, found = np.empty((2, bits.size), np.float32)
        for value, same in ((wide, wide), (bits, narrow)):
            np.multiply(same, weight, out=expected)
            self.add(found, value, float(weight), first=True)
            np.add(expected, same[::-1] * weight, out=expected)
            self.add(found, value[::-1], float(weight), first=False)
            if found.tobytes() != expected.tobytes():
                raise ValueError("it does not give numpy's bits")


@functools.cache
def kernel() -> Kernel | None:
    """The kernel of this process, looked for once."""
    named = os.environ.get("FEDTRAIN_KERNEL")
    if named == "" or (named is None and not LIBRARY.exists()):
        return None
    path = LIBRARY if named is None else Path(named).absolute()
    try:
        return Kernel(path)
    except (OSError, ValueError) as error:
        say(f"the compiled kernel {path} is not used, numpy sums: {error}")
        return None


def build(library: Path = LIBRARY) -> str:
    """Compile it and try it out; returns the command. Raises OSError, ValueError or
    CalledProcessError, and leaves what was there before."""
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    making = library.with_name(f"{library.name}.{os.getpid()}")
    command = [*compiler, *FLAGS, "-o", str(making), str(SOURCE)]
    try:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        Kernel(making)
        making.replace(library)
    finally:
        making.unlink(missing_ok=True)
    return shlex.join(command)


def main() -> None:
    try:
        print(f"{build()}\nmade {LIBRARY}")
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"the kernel was not made, numpy sums without it: {error}")


if __name__ == "__main__":
    main()
