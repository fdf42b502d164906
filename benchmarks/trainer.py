"""What loading and submitting a model cost each rank: memory beyond the model itself, and time.

    python -m benchmarks.trainer                       # 500 M fp32 parameters, 2 GB
    python -m benchmarks.trainer --millions 50 --print

One plain process; two ranks of fully_shard, whose rows end within tiles of the digest; and two
ranks whose parameters are cut by columns, so that one tensor at a time is whole. The peak is of
anonymous memory (RssAnon of /proc), sampled every millisecond, less what there was when the step
began: the model is there already, and files that were read or written are the page cache's.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import page
from fedtrain.contract import ROOT_ENV, TASK_ENV, ModelRef, ParticipantTask, Role, encode_task

PACKAGES = ("torch", "numpy")
ROOT = Path(__file__).resolve().parents[1]
WIDTH = 4000
"""64 MB a layer, 3.8 tiles, so that the half of its rows ends within one."""

SCRIPT = """
import json, os, sys, threading, time
from pathlib import Path
import torch
from torch import nn
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard
from fedtrain import rounds, session, store, checkpoint

way, layers, width, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
if way != "plain":
    dist.init_process_group("gloo")
    dist.barrier()
rank = dist.get_rank() if way != "plain" else 0
with torch.device("meta"):
    model = nn.Sequential(*(nn.Linear(width, width) for _ in range(layers)))
if way != "plain":
    columns = (lambda parameter: Shard(parameter.ndim - 1)) if way == "columns" else None
    for part in (*model, model):
        fully_shard(part, shard_placement_fn=columns)
model.to_empty(device="cpu")
with torch.no_grad():
    for parameter in model.parameters():
        parameter.fill_(0.01)

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) * 1024

class Step:
    def __enter__(self):
        self.peak = self.begin = anonymous()
        self.over = threading.Event()
        self.watch = threading.Thread(target=self.look)
        self.watch.start()
        self.began = time.perf_counter()
        return self
    def look(self):
        while not self.over.wait(0.001):
            self.peak = max(self.peak, anonymous())
    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self.began
        self.over.set()
        self.watch.join()
    def figures(self):
        return {"seconds": self.seconds, "extra": self.peak - self.begin}

load = Step()
load.__enter__()
for rnd in rounds(model):
    load.__exit__()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.001)
    with Step() as submit:
        rnd.submit(samples=1)
    (folder / f"{way}-{rank}.json").write_text(
        json.dumps({"load": load.figures(), "submit": submit.figures()})
    )
load.over.set()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One way to hold the model. seconds: of the slowest rank. extra: bytes, of each rank."""

    way: str
    step: str
    nbytes: int
    seconds: float
    extra: tuple[int, ...]


WAYS = {"plain": ("one plain process", 0), "rows": ("fully_shard, 2 ranks", 2)}
WAYS["columns"] = ("Shard(1), 2 ranks", 2)


def measure(millions: int = 500, folder: str | None = None) -> list[Measured]:
    layers = max(1, round(millions * 1e6 / (WIDTH * WIDTH + WIDTH)))
    found = []
    with tempfile.TemporaryDirectory(dir=folder) as name:
        root = Path(name)
        (root / "train.py").write_text(SCRIPT)
        _run(root, "plain", 0, layers, Role.INIT, "global/0/1")
        manifest = json.loads((root / "global/0/1/manifest.json").read_text())
        base = ModelRef(path="global/0/1", digest=manifest["digest"])
        digests = set()
        for attempt, (way, (title, processes)) in enumerate(WAYS.items(), start=1):
            output = f"updates/bench/1/{attempt}"
            _run(root, way, processes, layers, Role.TRAIN, output, base)
            update = root / output
            digests.add(json.loads((update / "receipt.json").read_text())["digest"])
            (update / "update.safetensors").unlink()
            ranks = [
                json.loads((root / f"{way}-{rank}.json").read_text())
                for rank in range(max(1, processes))
            ]
            for step in ("load", "submit"):
                one = Measured(
                    way=title,
                    step=step,
                    nbytes=manifest["size"],
                    seconds=max(rank[step]["seconds"] for rank in ranks),
                    extra=tuple(rank[step]["extra"] for rank in ranks),
                )
                found.append(one)
                print(asdict(one), file=sys.stderr, flush=True)
        if len(digests) != 1:
            raise RuntimeError(f"one model, and {len(digests)} digests of its update")
    return found


def table(figures: Sequence[Measured]) -> str:
    lines = [
        "| model of | how | step | seconds | GB/s of the model | peak beyond it, each rank |",
        "|---|---|---|---|---|---|",
    ]
    for one in figures:
        extra = ", ".join(f"{value / 2**20:.0f} MiB" for value in one.extra)
        cells = [
            f"{one.nbytes / 1e9:.2f} GB",
            one.way,
            one.step,
            f"{one.seconds:.1f}",
            f"{one.nbytes / one.seconds / 1e9:.2f}",
            extra,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _run(
    root: Path,
    way: str,
    processes: int,
    layers: int,
    role: Role,
    output: str,
    model: ModelRef | None = None,
) -> None:
    task = ParticipantTask(
        training="bench",
        uid="0123-4567",
        participant="bench",
        attempt=1,
        seed=7,
        role=role,
        round=1 if model else 0,
        model=model,
        output=output,
    )
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(torchrun if processes else [])]
    command += [str(root / "train.py"), way, str(layers), str(WIDTH), str(root)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "trainer")}
    environment |= {ROOT_ENV: str(root), TASK_ENV: encode_task(task), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True, timeout=1800)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--millions", type=int, default=500, help="parameters of the model")
    parser.add_argument("--folder", default=None, help="where to put the files")
    parser.add_argument("--print", action="store_true", help="write no page of results")
    options = parser.parse_args()
    began = page.machine()
    text = table(measure(options.millions, options.folder))
    if options.print:
        print(text)
        return
    today = datetime.datetime.now(datetime.UTC).date()
    paragraphs = [
        f"# Loading and submitting, measured on {today}",
        f"`python -m benchmarks.trainer --millions {options.millions}`",
        f"{began}\n\n{page.versions(PACKAGES)}",
        text,
        "Files in the page cache; `submit` includes flushing to the disk. The updates of all ways "
        "had one digest.",
    ]
    page.write(f"{today}-trainer.md", paragraphs)


if __name__ == "__main__":
    main()
