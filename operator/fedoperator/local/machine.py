"""This machine in place of a cluster: the processes of a workload, and what cannot be had here."""

import os
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fedoperator.api.trainer import EnvVar, TrainerFields
from fedoperator.api.training import TrainingSpec
from fedoperator.local.folder import Folder
from fedoperator.local.processes import Command
from fedoperator.rounds import jobs
from fedoperator.rounds.workloads import Workload
from fedtrain import contract

_READ = frozenset(
    {"command", "args", "env", "nodes", "processesPerNode"}
    | {"terminationGracePeriodSeconds", "hangTimeout"}
)
"""The fields of a trainer that mean something on this machine."""

GRACE_SECONDS = 10.0
"""From SIGTERM to SIGKILL, unless the trainer says otherwise: long enough for torchrun to end its
workers, and for a small model to be saved."""

LOOPBACK = "lo" if sys.platform == "linux" else "lo0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a run's hub listens, and what the operator shows it."""

    port: int
    token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """scripts: where commands run, the folder of the file that was applied. claims: --claim."""

    folder: Folder
    scripts: Path
    claims: Mapping[str, Path]
    hub: Address = field(default_factory=lambda: Address(port=free_port()))

    def commands(self, workload: Workload, uid: str) -> list[Command]:
        """One per node, as the pods of the workload's Job of that uid would run."""
        root = str(self.folder.exchange / workload.folder)
        logs = self.logs(workload.name, workload.nodes)
        trainer = workload.trainer
        if trainer is None:
            workload = replace(workload, task=self._here(workload))
            arguments = [sys.executable, "-P", "-m", "fedtrain.aggregation"]
            environment = inherited()
        else:
            command = [*(trainer.command or []), *(trainer.args or [])]
            if command[:1] in (["python"], ["python3"]):
                command[0] = sys.executable
            arguments = [sys.executable, "-P", "-m", "fedtrain.launch", "--", *command]
            environment = inherited() | _own(trainer) | _rendezvous()
        environment |= jobs.environment(workload, root) | {"HOME": os.path.expanduser("~")}
        if workload.stays:
            environment[contract.CARRIER_ENV] = uid
            environment[contract.HUB_ENV] = f"127.0.0.1:{self.hub.port}"
            if workload.identity.role is contract.Role.PREPARE:
                environment[contract.HUB_TOKEN_ENV] = self.hub.token
        environment[contract.GRACE_ENV] = f"{grace(workload):g}"
        if workload.has_scratch:
            scratch = self.folder.scratch(workload.identity.participant)
            scratch.mkdir(parents=True, exist_ok=True)
            environment[contract.SCRATCH_ENV] = str(scratch)
        if workload.base is not None:
            folder = self.claims[workload.base.claim_name] / (workload.base.path or "")
            environment[contract.BASE_ENV] = str(folder)
        return [
            Command(
                arguments=arguments,
                environment=environment
                | {
                    "PET_NODE_RANK": str(node),
                    contract.SHARD_ENV: str(node),
                    contract.MESSAGE_ENV: str(self.message(workload.name, node)),
                },
                folder=self.scripts if trainer is not None else self.folder.root,
                log=logs[node],
            )
            for node in range(workload.nodes)
        ]

    def message(self, name: str, node: int) -> Path:
        """Where a node of the workload leaves its termination message."""
        return self.folder.children / name / f"message-{node}"

    def logs(self, name: str, nodes: int) -> list[Path]:
        """Where its nodes write."""
        if nodes == 1:
            return [self.folder.logs / f"{name}.log"]
        return [self.folder.logs / f"{name}-{node}.log" for node in range(nodes)]

    def refusals(self, spec: TrainingSpec) -> Iterator[str]:
        """Why this training cannot run here, each with its remedy."""
        for name, claim in _models(spec):
            if claim not in self.claims:
                yield f"{name}: {claim} is not on this machine; add --claim {claim}=FOLDER"
        for name, trainer in _trainers(spec):
            for variable in trainer.env or []:
                missing = variable.value_from is not None and variable.name not in os.environ
                if missing and not _optional(variable):
                    yield (
                        f"{name}.env: {variable.name} comes from a Secret or ConfigMap, which this "
                        f"machine has not; set {variable.name} in your shell"
                    )

    def remarks(self, spec: TrainingSpec) -> Iterator[str]:
        """What the file says and this machine ignores."""
        ignored = {
            name
            for _, trainer in _trainers(spec)
            for name in trainer.to_dict()
            if name not in _READ
        }
        if spec.aggregation.resources is not None:
            ignored.add("aggregation.resources")
        if ignored:
            names = ", ".join(sorted(ignored))
            yield f"processes stand in for pods, and nothing reads {names}"
        if any(site.data for site in spec.sites):
            yield (
                "data claims are not mounted: scripts see this machine's own files; "
                "say where the data is by args or env"
            )

    def _here(self, workload: Workload) -> contract.Task:
        """The task, with the path of an imported model as it is on this machine."""
        task, model = workload.task, workload.training.spec.model
        if not isinstance(task, contract.ImportTask) or model.claim_name is None:
            return task
        return replace(task, source=str(self.claims[model.claim_name] / (model.path or "")))


def grace(workload: Workload) -> float:
    """Seconds from SIGTERM to SIGKILL."""
    given = workload.trainer.termination_grace_period_seconds if workload.trainer else None
    return float(given or GRACE_SECONDS)


def inherited() -> dict[str, str]:
    """Our own environment without what belongs to one workload, and with our Python first."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(contract.RESERVED_ENV_PREFIXES) and name not in contract.RESERVED_ENV
    }
    # torchrun is found beside the Python that runs us, whether or not its venv is activated.
    beside = os.path.dirname(sys.executable)
    environment["PATH"] = os.pathsep.join([beside, environment.get("PATH", os.defpath)])
    if "PYTHONPATH" in environment:  # relative to our folder, and scripts run in another one
        paths = environment["PYTHONPATH"].split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(path) for path in paths)
    return environment


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _rendezvous() -> dict[str, str]:
    return {
        "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": str(free_port()),
        # Without a word gloo takes the interface that this machine's name resolves to, if any.
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", LOOPBACK),
    }


def _own(trainer: TrainerFields) -> dict[str, str]:
    """The user's variables; those from a Secret or ConfigMap are inherited from the shell."""
    given = trainer.env or []
    return {variable.name: variable.value or "" for variable in given if not variable.value_from}


def _optional(variable: EnvVar) -> bool:
    source = variable.value_from
    references = (source.secret_key_ref, source.config_map_key_ref) if source else ()
    return any(reference is not None and reference.optional for reference in references)


def _models(spec: TrainingSpec) -> Iterator[tuple[str, str]]:
    """(field, claim) of each model that is read from one."""
    if spec.model.claim_name is not None:
        yield "model.claimName", spec.model.claim_name
    if spec.model.base is not None and any(p.base is None for p in spec.participants):
        yield "model.base.claimName", spec.model.base.claim_name
    for index, participant in enumerate(spec.participants):
        if participant.base is not None:
            yield f"participants[{index}].base.claimName", participant.base.claim_name


def _trainers(spec: TrainingSpec) -> Iterator[tuple[str, TrainerFields]]:
    yield "trainer", spec.trainer
    for index, participant in enumerate(spec.participants):
        if participant.trainer is not None:
            yield f"participants[{index}].trainer", participant.trainer
    if spec.evaluator is not None and spec.evaluator.trainer is not None:
        yield "evaluation.evaluator.trainer", spec.evaluator.trainer
