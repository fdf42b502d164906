"""LoRA: participants with different text train one adapter of a frozen language model.

The Transformers `Trainer`, a PEFT model, and one line that makes it a participant. First the base
(or any local Hugging Face checkpoint of a causal language model), then one process without a
federation:

    python pretrain.py --save base
    python train.py --text docs

With synchronous data parallelism over two processes:

    torchrun --nproc-per-node 2 train.py --text docs

Three participants on this machine, each with text of another kind:

    fedtrain run federation.yaml --out out --claim base=.

As the same federation on a Kubernetes cluster, with the base on the claim `base`:

    kubectl apply -f federation.yaml && kubectl get federatedtraining lora --watch

The text is what every machine with PyTorch has: the reference of the Python language (`docs`), the
C++ headers of PyTorch (`headers`), the licenses of what is installed (`licenses`). At a real site
`--text` is a folder of files. Every fifth file or chapter is held out.
"""

import argparse
import importlib.metadata
import importlib.util
import math
import pydoc_data.topics
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

from fedtrain import adapter_rank, base_model, hf

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--text", default="docs", help="docs, headers, licenses, or a folder")
parser.add_argument("--test", nargs="*", help="what to be measured on; left out, its own text")
parser.add_argument("--model", type=Path, default=Path("base"), help="without spec.model.base")
parser.add_argument("--rank", type=int, default=8, help="without spec.adapters.rank")
parser.add_argument("--steps", type=int, default=40, help="in each round")
parser.add_argument("--batch", type=int, default=8, help="windows per step and process")
parser.add_argument("--length", type=int, default=128, help="tokens in a window")
parser.add_argument("--lr", type=float, default=3e-3)
parser.add_argument("--kilobytes", type=int, default=300, help="of text, held out included")
args = parser.parse_args()


# ---- the text ------------------------------------------------------------------------------------


def texts(kind: str) -> list[str]:
    """All there is of a kind, in an order that is the same everywhere."""
    if kind == "docs":
        return [chapter for _, chapter in sorted(pydoc_data.topics.topics.items())]
    if kind == "headers":
        torch_folder = Path(importlib.util.find_spec("torch").origin).parent
        files = sorted(torch_folder.glob("include/ATen/*.h"))
    elif kind == "licenses":
        installed = [
            file for each in importlib.metadata.distributions() for file in each.files or []
        ]
        files = sorted(
            Path(file.locate())
            for file in installed
            if ".dist-info" in str(file) and file.name.lower().startswith(("license", "notice"))
        )
    else:
        files = sorted(Path(kind).rglob("*"))
    found = [file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file()]
    return list(dict.fromkeys(found))  # each license once


def windows(pieces: list[str], kilobytes: float) -> list[dict[str, torch.Tensor]]:
    """Windows of `--length` tokens, from as many of the pieces as have so much text."""
    tokens, room = [], round(kilobytes * 1000)
    for piece in pieces:
        tokens += tokenizer(piece[:room], verbose=False)["input_ids"] if room > 0 else []
        tokens.append(tokenizer.eos_token_id)
        room -= len(piece)
    whole = len(tokens) // args.length
    table = torch.tensor(tokens[: whole * args.length]).view(whole, args.length)
    return [{"input_ids": row, "labels": row} for row in table]


# ---- the model -----------------------------------------------------------------------------------

base = base_model(args.model)  # of spec.model.base, whose digest all participants must have
tokenizer = AutoTokenizer.from_pretrained(base)
torch.manual_seed(0)  # the untrained adapter; `fedtrain.hf` seeds everything that comes after
rank = adapter_rank(args.rank)
model = get_peft_model(
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
    LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"),
)


# ---- the training --------------------------------------------------------------------------------

mine = texts(args.text)
tests = {
    kind: windows(texts(kind)[::5], 0.2 * args.kilobytes)[:64] for kind in args.test or [args.text]
}
trainer = Trainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=windows([t for n, t in enumerate(mine) if n % 5], 0.8 * args.kilobytes),
    data_collator=default_data_collator,  # windows are all of one length
    args=TrainingArguments(
        output_dir=tempfile.gettempdir(),  # nothing is saved there: the federation does that
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        max_steps=args.steps,
        per_device_train_batch_size=args.batch,
        per_device_eval_batch_size=16,
        learning_rate=args.lr,
        lr_scheduler_type="constant",
    ),
)


def evaluate(_: torch.nn.Module) -> dict[str, float]:
    """Perplexity per token of held-out text: of each kind, and the mean over the kinds."""
    found = {kind: math.exp(trainer.evaluate(test)["eval_loss"]) for kind, test in tests.items()}
    of_kinds = found if args.test else {}
    samples = sum(map(len, tests.values()))
    return {**of_kinds, "perplexity": sum(found.values()) / len(found), "samples": samples}


hf.train_each_round(trainer, evaluate=evaluate)
