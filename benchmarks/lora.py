"""LoRA by federation against the base and everybody's own adapter, by `fedtrain run`.

    python -m benchmarks.lora --work DIR       # about 15 minutes of one core; goes on where it was

Example 02: participants with text of three kinds, one frozen base that was trained on a fourth. For
each rule of `spec.adapters` a federation, and for each participant a run by itself of as many
steps; perplexity of every result on everybody's held-out text. Hu et al. 2022, "LoRA".
"""

import argparse
import datetime
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks import page

EXAMPLE = Path(__file__).parents[1] / "examples" / "02-lora-llm"
PACKAGES = ("torch", "transformers", "peft", "numpy")
RULES = ("Factors", "Product", "FrozenA")
KINDS = ("docs", "headers", "licenses")
LIMIT_SECONDS = 7200


def measure(work: Path, rounds: int, steps: int) -> dict[str, dict[str, float]]:
    """Of each run: perplexity by kind of text, their mean, the residual, bytes of an update."""
    work.mkdir(parents=True, exist_ok=True)
    for name in ("train.py", "pretrain.py"):
        shutil.copy(EXAMPLE / name, work)
    if not (work / "base" / "model.safetensors").exists():
        command = [sys.executable, "pretrain.py", "--save", "base"]
        subprocess.run(command, cwd=work, check=True, timeout=LIMIT_SECONDS)
    runs = ["base", *KINDS, *RULES]
    return {name: measured(work, name, rounds, steps) for name in runs}


def measured(work: Path, name: str, rounds: int, steps: int) -> dict[str, float]:
    kept = work / f"{name}.json"
    if not kept.exists():
        print(f"{name} ...", file=sys.stderr, flush=True)
        (work / f"{name}.yaml").write_text(yaml.safe_dump(federation(name, rounds, steps)))
        out = work / f"out-{name}"
        command = [sys.executable, "-m", "fedoperator.cli.main", "run", f"{name}.yaml"]
        subprocess.run(
            [*command, "--out", str(out), "--claim", "base=.", "--quiet", "--jobs", "1"],
            cwd=work,
            check=True,
            timeout=LIMIT_SECONDS,
        )
        status = yaml.safe_load((out / "status.yaml").read_text())
        last = yaml.safe_load(sorted((out / "rounds").glob("*.yaml"))[-1].read_text())
        found = dict(status["metrics"])
        found["residual"] = last["status"]["measured"]["residual"]
        found["bytes"] = max(f.stat().st_size for f in out.rglob("update.safetensors"))
        kept.write_text(json.dumps(found))
    result: dict[str, float] = json.loads(kept.read_text())
    return result


def federation(name: str, rounds: int, steps: int) -> dict[str, Any]:
    """The example's: with this rule, or with one participant, who trains all steps in one round."""
    document: dict[str, Any] = yaml.safe_load((EXAMPLE / "federation.yaml").read_text())
    spec = document["spec"]
    if name in RULES:
        spec["adapters"]["aggregation"] = name
    else:
        who = KINDS[0] if name == "base" else name
        spec["participants"] = [p for p in spec["participants"] if p["name"] == who]
        steps, rounds = (1, 1) if name == "base" else (steps * rounds, 1)
    command = ["python", "train.py", "--steps", str(steps), "--test", *KINDS]
    spec["trainer"]["command"] = [*command, "--lr", "0"] if name == "base" else command
    by = spec["participants"][0]["name"]
    spec |= {"rounds": rounds, "evaluation": {"by": by, "every": rounds}}
    return document


def table(found: dict[str, dict[str, float]]) -> str:
    rows = []
    for name, one in found.items():
        shown = {"base": "base"} | {rule: f"federation, {rule}" for rule in RULES}
        kinds = " | ".join(f"{one[kind]:.2f}" for kind in KINDS)
        residual = f"{one['residual']:.1e}" if name in RULES else ""
        who = shown.get(name, f"{name}, by itself")
        rows.append(f"| {who} | {kinds} | **{one['perplexity']:.3f}** | {residual} |")
    head = f"| adapter | {' | '.join(KINDS)} | mean | residual |"
    return "\n".join([head, "|---|---|---|---|---|---|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="a folder for the runs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40, help="in each round")
    given = parser.parse_args()
    began, today = page.machine(), datetime.datetime.now(datetime.UTC).date()
    work = given.work.absolute()
    found = measure(work, given.rounds, given.steps)
    whole = (work / "base" / "model.safetensors").stat().st_size
    page.write(
        f"{today}-lora.md",
        [
            f"# LoRA, {today}",
            f"`python -m benchmarks.lora --rounds {given.rounds} --steps {given.steps}`: "
            "perplexity per byte of held-out text; residual: of the published product against "
            "the exact weighted sum of the participants', in the last round.",
            f"{began}\n\n{page.versions(PACKAGES)}",
            table(found),
            f"An update has {int(found['Factors']['bytes']):,} bytes, the base {whole:,}.",
        ],
    )


if __name__ == "__main__":
    main()
