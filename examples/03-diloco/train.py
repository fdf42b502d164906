"""DiLoCo: workers train a small GPT for 50 steps each between exchanges, and an outer optimizer.

The Transformers `Trainer`, and one line that makes it a participant. As one process (one round):

    python train.py

With synchronous data parallelism over two processes of one worker:

    torchrun --nproc-per-node 2 train.py

First a common start, by one process; then four workers on this machine:

    python train.py --every 600 --steps 600 --batch 16 --schedule constant_with_warmup --save start
    fedtrain run federation.yaml --out out

As the same federation on a Kubernetes cluster:

    kubectl apply -f federation.yaml && kubectl get federatedtraining diloco --watch

`--model DIR` trains any causal language model of a local Hugging Face checkpoint with the tokenizer
that lies beside it, a Llama of yours for example. The text is what every machine has: the sources
of Python's standard library, every tenth file held out; `--part k --parts n` takes the k-th of n
parts of the others, counted from 0.
"""

import argparse
import sysconfig
import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

from fedtrain import hf

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--model", type=Path, help="a Hugging Face checkpoint; left out, a small GPT")
parser.add_argument("--save", type=Path, help="where to write such a checkpoint at the end")
parser.add_argument("--part", type=int, default=0)
parser.add_argument("--parts", type=int, default=1)
parser.add_argument("--every", type=int, default=50, help="steps between exchanges, H")
parser.add_argument("--steps", type=int, default=400, help="of the whole schedule: rounds times H")
parser.add_argument("--batch", type=int, default=4, help="windows per step and process")
parser.add_argument("--length", type=int, default=128, help="tokens in a window")
parser.add_argument("--lr", type=float, default=1e-3)
parser.add_argument("--schedule", default="cosine", help="an lr_scheduler_type of Transformers")
parser.add_argument(
    "--kilobytes", type=int, default=1500, help="text to train on, all parts together"
)
args = parser.parse_args()
if not 0 <= args.part < args.parts:
    parser.error(f"--part {args.part} is not one of {args.parts} parts, counted from 0")


# ---- the model and its tokenizer -----------------------------------------------------------------


END = "<|endoftext|>"


def bytes_as_tokens() -> PreTrainedTokenizerBase:
    """256 tokens for the bytes, and one for the end of a text."""
    alphabet = {
        token: number for number, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))
    }
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)


torch.manual_seed(0)  # the untrained weights; `fedtrain.hf` seeds everything that comes after
if args.model:
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
else:
    tokenizer = bytes_as_tokens()
    model = AutoModelForCausalLM.from_config(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=max(256, args.length),
            n_embd=128,
            n_layer=4,
            n_head=4,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


# ---- the text ------------------------------------------------------------------------------------


def windows(files: list[Path], kilobytes: int) -> list[dict[str, torch.Tensor]]:
    """Windows of `--length` tokens, from as many of the files as have so much text."""
    texts, room = [], kilobytes * 1000
    for file in files:
        texts.append(file.read_text(encoding="utf-8")[: max(0, room)])
        room -= len(texts[-1])
    tokens: list[int] = []
    for ids in tokenizer(texts, verbose=False)["input_ids"]:
        tokens += [*ids, tokenizer.eos_token_id] if ids else []
    whole = len(tokens) // args.length
    table = torch.tensor(tokens[: whole * args.length]).view(whole, args.length)
    return [{"input_ids": row, "labels": row} for row in table]


sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
held_out, others = sources[::10], [file for n, file in enumerate(sources) if n % 10]
training = windows(others[args.part :: args.parts], args.kilobytes // args.parts)
test = windows(held_out, 3000)[::80]


# ---- the training --------------------------------------------------------------------------------

trainer = Trainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=training,
    eval_dataset=test,
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
        weight_decay=0.1,
        adam_beta2=0.99,
        lr_scheduler_type=args.schedule,
        warmup_steps=min(20, args.steps // 10),
    ),
)

hf.train_across_rounds(trainer, every=args.every)

if args.save and trainer.is_world_process_zero():
    trainer.save_model(str(args.save))
