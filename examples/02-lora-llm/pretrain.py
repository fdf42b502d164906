"""The base model of this example: a small Llama, pre-trained on the sources of Python itself.

    python pretrain.py --save base          # two minutes on one core

An ordinary script of Transformers, which knows nothing of a federation. It writes what
`from_pretrained` reads: config, tokenizer, weights. Any other checkpoint of a causal language model
will do in its place.
"""

import argparse
import sysconfig
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

END = "<|endoftext|>"

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--save", type=Path, default=Path("base"))
parser.add_argument("--width", type=int, default=128, help="a multiple of 4")
parser.add_argument("--layers", type=int, default=4)
parser.add_argument("--steps", type=int, default=500)
parser.add_argument("--batch", type=int, default=8)
parser.add_argument("--length", type=int, default=128, help="tokens in a window")
args = parser.parse_args()

# A token for each byte, and one for the end of a text.
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
bytes_as_tokens = Tokenizer(models.BPE(vocab={t: n for n, t in enumerate(alphabet)}, merges=[]))
bytes_as_tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
bytes_as_tokens.decoder = decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_as_tokens, eos_token=END)

torch.manual_seed(0)
model = AutoModelForCausalLM.from_config(
    LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=args.width,
        intermediate_size=11 * args.width // 4,
        num_hidden_layers=args.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
)

room, tokens = args.steps * args.batch * args.length, []
for source in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
    if len(tokens) > room:
        break
    tokens += tokenizer(source.read_text(encoding="utf-8"), verbose=False)["input_ids"]
    tokens.append(tokenizer.eos_token_id)
whole = len(tokens) // args.length
windows = torch.tensor(tokens[: whole * args.length]).view(whole, args.length)

trainer = Trainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=[{"input_ids": window, "labels": window} for window in windows],
    data_collator=default_data_collator,
    args=TrainingArguments(
        output_dir=str(args.save),
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        max_steps=args.steps,
        per_device_train_batch_size=args.batch,
        learning_rate=2e-3,
        weight_decay=0.1,
        lr_scheduler_type="cosine",
        warmup_steps=min(20, args.steps // 10),
        logging_steps=100,
    ),
)
trainer.train()
trainer.save_model()
