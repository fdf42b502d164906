"""Handwritten digits: a small CNN, trained by participants who never show each other an image.

An ordinary training script with one loop around it. As one process, without a federation:

    python train.py

With synchronous SGD over two processes (the same batches, half of each on either):

    torchrun --nproc-per-node 2 train.py

As a federation of five participants on this machine, each with its own part of the data:

    fedtrain run federation.yaml --out out

As the same federation on a Kubernetes cluster:

    kubectl apply -f federation.yaml && kubectl get federatedtraining digits --watch

The data are scikit-learn's 1,797 images of 8 x 8 pixels, 360 of them held out. At a real site they
would simply be other files; here `--part k --parts n` (or PART, PARTS and SPLIT in the environment)
picks the k-th part of them, counted from 0; federation.yaml says so for each participant.
"""

import argparse
import gzip
import importlib.util
import os
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from fedtrain import rounds

TEST_IMAGES = 360

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--part", type=int, default=int(os.environ.get("PART", "0")))
parser.add_argument("--parts", type=int, default=int(os.environ.get("PARTS", "1")))
parser.add_argument("--split", choices=("iid", "shards"), default=os.environ.get("SPLIT", "iid"))
parser.add_argument("--dropout", type=float, default=0.25, help="after the convolutions; 0 is off")
parser.add_argument("--mnist", type=Path, help="a folder with MNIST's four IDX files, to use them")
args = parser.parse_args()
if not 0 <= args.part < args.parts:
    parser.error(f"--part {args.part} is not one of {args.parts} parts, counted from 0")


# ---- the data ------------------------------------------------------------------------------------


def read_idx(folder: Path, name: str) -> np.ndarray:
    """An IDX file, gzipped or not: four bytes of type and rank, the lengths, then the bytes."""
    plain = folder / name
    data = (
        plain.read_bytes()
        if plain.exists()
        else gzip.decompress((folder / f"{name}.gz").read_bytes())
    )
    lengths = np.frombuffer(data, ">i4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(lengths)).reshape(lengths)


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images in [0, 1] and labels: to train on, and held out (the same ones for everybody)."""
    if args.mnist:
        images = [read_idx(args.mnist, f"{kind}-images-idx3-ubyte") for kind in ("train", "t10k")]
        labels = [read_idx(args.mnist, f"{kind}-labels-idx1-ubyte") for kind in ("train", "t10k")]
        return images[0] / 255, labels[0], images[1] / 255, labels[1]
    # scikit-learn's load_digits reads this file too; importing scikit-learn itself would cost every
    # rank of every round more than its training does.
    package = importlib.util.find_spec("sklearn").submodule_search_locations[0]
    table = np.loadtxt(Path(package, "datasets", "data", "digits.csv.gz"), delimiter=",")
    table = table[np.random.RandomState(0).permutation(len(table))]
    images, labels = table[:, :-1].reshape(-1, 8, 8) / 16, table[:, -1].astype(int)
    held_out = slice(0, TEST_IMAGES), slice(TEST_IMAGES, None)
    return images[held_out[1]], labels[held_out[1]], images[held_out[0]], labels[held_out[0]]


def my_part(labels: np.ndarray) -> np.ndarray:
    """Which images are this participant's; parts differ in size, as sites do.

    iid: drawn at random, in proportions of 1:2:3:1:2:3 ... shards: sorted by label and cut into
    two pieces per participant (of 3:4:5:3:4:5 ...), so that each has a few classes only (after
    McMahan et al. 2017, section 3).
    """
    pieces, least = (args.parts, 1) if args.split == "iid" else (2 * args.parts, 3)
    shares = np.array([least + piece % 3 for piece in range(pieces)])
    ends = (len(labels) * np.cumsum(shares) / shares.sum()).astype(int)
    if args.split == "iid":
        return np.split(np.arange(len(labels)), ends[:-1])[args.part]
    shards = np.split(np.argsort(labels, kind="stable"), ends[:-1])
    mine = np.random.RandomState(1).permutation(pieces)[2 * args.part : 2 * args.part + 2]
    return np.concatenate([shards[shard] for shard in mine])


if torch.cuda.is_available():
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

train_images, train_labels, test_images, test_labels = load()
mine = my_part(train_labels)
side = train_images.shape[-1]
images = torch.tensor(train_images[mine], dtype=torch.float32, device=device).unsqueeze(1)
labels = torch.tensor(train_labels[mine], dtype=torch.int64, device=device)
held_out = torch.tensor(test_images, dtype=torch.float32, device=device).unsqueeze(1)
truth = torch.tensor(test_labels, dtype=torch.int64, device=device)


# ---- the model -----------------------------------------------------------------------------------


class CNN(nn.Module):
    def __init__(self, side: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.fc1 = nn.Linear(64 * (side // 2) ** 2, 128)
        self.fc2 = nn.Linear(128, 10)
        self.dropout1 = nn.Dropout(dropout)
        self.dropout2 = nn.Dropout(min(2 * dropout, 0.9))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.conv1(x))
        x = functional.relu(self.conv2(x))
        x = self.dropout1(functional.max_pool2d(x, 2)).flatten(1)
        x = self.dropout2(functional.relu(self.fc1(x)))
        return self.fc2(x)


@torch.no_grad()
def evaluate(model: nn.Module) -> dict[str, float]:
    """How well a global model does on the images that nobody trains on."""
    model.eval()
    logits = model(held_out)
    accuracy = (logits.argmax(1) == truth).float().mean().item()
    loss = functional.cross_entropy(logits, truth).item()
    return {"accuracy": accuracy, "loss": loss, "samples": len(truth)}


torch.manual_seed(0)  # the untrained weights; `rounds` seeds everything that comes after
model = CNN(side, args.dropout).to(device)


# ---- the training --------------------------------------------------------------------------------

for rnd in rounds(model, evaluate=evaluate):
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    ddp = DistributedDataParallel(model) if dist.is_initialized() else model
    learning_rate = rnd.parameters.get("lr", 0.05)
    optimizer = torch.optim.SGD(ddp.parameters(), lr=learning_rate, momentum=0.9)
    batch_size = rnd.parameters.get("batch", 64)  # over all ranks of a participant together
    # One order of the images for all ranks, another one in each round.
    generator = torch.Generator().manual_seed(rnd.seed)
    total, steps = torch.zeros((), device=device), 0

    ddp.train()
    for _ in range(rnd.parameters.get("localEpochs", 5)):
        for batch in torch.randperm(len(mine), generator=generator).split(batch_size):
            own = batch[rank::world].to(device)
            # DDP takes the mean over the ranks; of this sum, that is the mean over the batch, also
            # for the last batch of an epoch, of which the ranks may have unequal shares.
            summed = functional.cross_entropy(ddp(images[own]), labels[own], reduction="sum")
            loss = summed * world / len(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
            steps += 1

    if dist.is_initialized():
        dist.all_reduce(total)
    rnd.submit(samples=len(mine), steps=steps, metrics={"loss": total / max(1, steps) / world})
