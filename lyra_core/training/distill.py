"""Distil the video model to four steps: ``python -m lyra_core.training.distill CONFIG.yaml --output DIR [--resume]``.

Teacher, student and critic are one frozen network: the teacher without adapter, the others each with a LoRA of its own. So a card
holds the weights once, processes share only the LoRAs' gradients, and the result is the file that ``--distilled`` reads.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tyro.conf import Positional

from lyra_core.config import load_config
from lyra_core.errors import BackendUnavailable, ConfigError, LyraError, WorldError
from lyra_core.generate.lyra2.samplers import distilled_schedule, guided
from lyra_core.generate.lyra2.tensors import SafetensorsSource, Spec, write_safetensors
from lyra_core.io.files import read_json, write_json
from lyra_core.training.data import build_source
from lyra_core.training.distill_loss import Velocity, comparison_sigma, critic_loss, matching_gradient, matching_loss, simulated
from lyra_core.training.flow import TrainSchedule
from lyra_core.training.network import build_codec, build_encoders, build_network, lora_layers, save_lora
from lyra_core.training.sampling import Sample, Sampler, torch_generator
from lyra_core.training.settings import TrainCfg, checked
from lyra_core.training.state import identity
from lyra_core.training.step import Learnable, Parts, TrainingNetwork, learnable, noise_for, velocity_of

STUDENT, CRITIC = "student", "critic"
STATE, WEIGHTS, LOG, RESULT = "state.json", "state.safetensors", "log.jsonl", "dmd_distillation.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, kw_only=True)
class MatchingCfg:
    """Distribution matching."""

    rank: int = 64
    """Of both LoRAs."""
    guidance: float = 5.0
    """Of the teacher; the student learns its result and needs none."""
    shift: float = 5.0
    """Moves the noise levels of the comparison towards noise."""
    critic_steps: int = 5
    """Steps of the critic per step of the student (DMD2, section 4.2)."""
    student_rate: float = 1e-5
    critic_rate: float = 1e-5
    clip: float = 1.0
    """Largest gradient norm of each."""


@dataclass(frozen=True, kw_only=True)
class DistillCfg:
    """A distillation: what is trained on, and how."""

    train: TrainCfg = field(default_factory=TrainCfg)
    """Network (``weights``: the teacher), data, history and run, as for training; its optimizer is not used."""
    matching: MatchingCfg = field(default_factory=MatchingCfg)


def load_distill_config(path: Path | str) -> DistillCfg:
    """Read a YAML file that holds only what differs.

    Raises:
        ConfigError: not readable, or a key or value that cannot be used.
    """
    cfg = load_config(path, base=DistillCfg())  # type: ignore[arg-type]
    assert isinstance(cfg, DistillCfg)
    return cfg


class Distiller:
    """One run: the network with its two LoRAs, their optimizers, and how far it is."""

    def __init__(self, cfg: DistillCfg, *, sampler: Sampler | None = None, network: nn.Module | None = None) -> None:
        """Build everything; nothing is written.

        Args:
            sampler: in place of the one that the data describe.
            network: the teacher, in place of the one that ``train: network`` describes.

        Raises:
            ConfigError, InputError, BackendUnavailable: something given cannot be used.
        """
        train = checked(cfg.train)
        if not train.output:
            raise ConfigError("output: got nothing, expected a folder")
        for name in ("rank", "critic_steps"):
            if getattr(cfg.matching, name) < 1:
                raise ConfigError(f"matching: {name}: got {getattr(cfg.matching, name)}, expected at least 1")
        self.cfg = replace(cfg, train=train)
        if train.run.threads:
            torch.set_num_threads(train.run.threads)
        cuda = train.run.device != "cpu" and torch.cuda.is_available()
        self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
        self.folder = Path(train.output)
        teacher = network or build_network(replace(train.network, lora_rank=0), seed=train.seed)
        self.network = add_adapters(teacher, train.network.lora_targets, cfg.matching.rank, seed=train.seed).to(self.device)
        self.module = TrainingNetwork(self.network)
        text, image = build_encoders(train.network, self.device)
        self.nothing = text("").to(self.device)
        codec, kept = build_codec(train.network, self.device), {} if train.data.pool else None
        self.parts = Parts(self.network.packing, codec, text, image, TrainSchedule(), train.history, self.device, kept)
        self.sampler = sampler or Sampler(
            build_source(train.data), self.network.packing, train.history, seed=train.seed, pool=train.data.pool
        )
        rates = {STUDENT: cfg.matching.student_rate, CRITIC: cfg.matching.critic_rate}
        # Moments without momentum: both follow a target that moves (DMD2's settings).
        self.optimizers = {
            role: torch.optim.AdamW(list(self.weights(role).values()), lr=rate, betas=(0.0, 0.999), weight_decay=0.0)
            for role, rate in rates.items()
        }
        self.step = 0

    def weights(self, role: str) -> dict[str, nn.Parameter]:
        """Return the LoRA of a role, by name."""
        return {name: p for name, p in self.network.named_parameters() if f".{role}." in name}

    @contextmanager
    def acting(self, role: str | None) -> Iterator[None]:
        """Let the network be student or critic, or for None the teacher."""
        if role is None:
            self.network.disable_adapters()
            try:
                yield
            finally:
                self.network.enable_adapters()
            return
        self.network.set_adapter(role)
        for name, parameter in self.network.named_parameters():
            # peft freezes what does not act; here both are trained, in turn.
            parameter.requires_grad_("lora_" in name)
        yield

    def velocity(self, batch: Learnable, role: str | None) -> Velocity:
        """Return the velocity of a role under a batch's conditions; the teacher's is guided."""
        def found(state: Tensor, timesteps: Tensor) -> Tensor:
            with self.acting(role):
                plain = velocity_of(self.module, batch, state, timesteps)
                if role is not None or self.cfg.matching.guidance == 1:
                    return plain
                empty = replace(batch, text=self.nothing.expand_as(batch.text))
                return guided(plain, velocity_of(self.module, empty, state, timesteps), self.cfg.matching.guidance)

        return found

    def train_step(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Make one step of the critic, and of the student when it is its turn; returns what is logged."""
        matching, schedule = self.cfg.matching, [float(s) for s in distilled_schedule()]
        generators = [torch_generator(sample.seed) for sample in samples]
        with self.acting(STUDENT):
            batch = learnable(self.module, samples, self.parts, generators)
        turn = self.step % matching.critic_steps == 0
        last = int(torch.randint(len(schedule), (1,), generator=generators[0]))
        noise, *fresh = (noise_for(batch.targets, generators) for _ in schedule)
        with torch.enable_grad() if turn else torch.no_grad():
            clean = simulated(self.velocity(batch, STUDENT), noise, fresh, schedule, last)
        entry: dict[str, Any] = {"step": self.step, "last": last}
        if turn:
            gradient = matching_gradient(
                clean.detach(), noise_for(clean, generators), self._sigma(generators), self.velocity(batch, None),
                self.velocity(batch, CRITIC),
            )
            entry["student"] = self._update(STUDENT, matching_loss(clean, gradient))
            entry["gradient"] = float(gradient.abs().mean())
        loss = critic_loss(self.velocity(batch, CRITIC), clean, noise_for(clean, generators), self._sigma(generators))
        entry["critic"] = self._update(CRITIC, loss)
        self.step += 1
        return entry

    def _sigma(self, generators: Sequence[torch.Generator]) -> Tensor:
        draws = torch.cat([torch.rand(1, generator=g) for g in generators])
        return comparison_sigma(draws, shift=self.cfg.matching.shift).to(self.device)

    def _update(self, role: str, loss: Tensor) -> float:
        """Follow a loss's gradient, averaged over processes; a step that is not finite is left out."""
        weights, optimizer = list(self.weights(role).values()), self.optimizers[role]
        with self.acting(role):  # blocks that are computed again for the gradient must be those that were
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = torch.zeros_like(weight) if gradient is None else gradient
            if torch.distributed.is_initialized():
                torch.distributed.all_reduce(weight.grad, torch.distributed.ReduceOp.AVG)
        norm = nn.utils.clip_grad_norm_(weights, self.cfg.matching.clip)
        if torch.isfinite(norm):
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def run(self, *, resume: bool = False) -> dict[str, Any]:
        """Distil to the last step; Ctrl-C leaves the last checkpoint. Returns the step and whether it was the last.

        Raises:
            ConfigError: the folder holds another run, or one that was not to be resumed.
        """
        run = self.cfg.train.run
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        self._open(resume)
        from rich.progress import track

        steps = range(self.step, run.iterations)
        for step in track(steps, "distil", disable=rank > 0, transient=True):
            entry = self.train_step([self.sampler.sample(step, rank * run.batch + place) for place in range(run.batch)])
            if rank == 0:
                with (self.folder / LOG).open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(entry) + "\n")
                if self.step % run.save_every == 0 or self.step == run.iterations:
                    self.save()
        if rank == 0:
            self.export(self.folder / RESULT)
        return {"step": self.step, "done": True}

    @property
    def log(self) -> list[dict[str, Any]]:
        """What was logged so far."""
        path = self.folder / LOG
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []

    def export(self, path: Path) -> None:
        """Write the student's LoRA under the published names; with weight 1 it makes the teacher the student."""
        save_lora(path, {name: p.detach().cpu() for name, p in self.weights(STUDENT).items()}, adapter=STUDENT)

    def save(self) -> None:
        """Write both LoRAs and what their optimizers remember."""
        tensors: dict[str, Tensor] = {}
        for role, optimizer in self.optimizers.items():
            for name, weight in self.weights(role).items():
                tensors[f"weight/{name}"] = weight.detach().cpu().contiguous()
                for moment in MOMENTS:
                    if moment in optimizer.state.get(weight, {}):
                        tensors[f"{moment}/{name}"] = optimizer.state[weight][moment].cpu().contiguous()
        counts = {role: _count(optimizer) for role, optimizer in self.optimizers.items()}
        specs = {name: Spec(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
        write_safetensors(self.folder / WEIGHTS, specs, tensors.__getitem__)
        write_json(self.folder / STATE, {"step": self.step, "counts": counts, "identity": self._identity()})

    def _identity(self) -> str:
        return identity(self.cfg.train) + json.dumps(asdict(self.cfg.matching), sort_keys=True)

    def _open(self, resume: bool) -> None:
        state_file = self.folder / STATE
        if state_file.is_file():
            if not resume:
                raise ConfigError(f"{self.folder}: holds a distillation; give --resume or another --output")
            state = read_json(state_file)
            if state.get("identity") != self._identity():
                raise ConfigError(f"{self.folder}: holds a distillation with other settings; expected the same ones")
            self._load(state)
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = [entry for entry in self.log if entry["step"] < self.step]
        (self.folder / LOG).write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")

    @torch.no_grad()
    def _load(self, state: dict[str, Any]) -> None:
        self.step = int(state["step"])
        with SafetensorsSource(self.folder / WEIGHTS) as source:
            for role, optimizer in self.optimizers.items():
                for name, weight in self.weights(role).items():
                    if f"weight/{name}" not in source.specs:
                        raise WorldError(f"{source.path}: lacks {name}; expected a checkpoint of this network")
                    weight.copy_(source.read(f"weight/{name}"))
                    if f"{MOMENTS[0]}/{name}" in source.specs:
                        moments = {moment: source.read(f"{moment}/{name}").to(weight) for moment in MOMENTS}
                        optimizer.state[weight] = {"step": torch.tensor(float(state["counts"][role])), **moments}


def _count(optimizer: torch.optim.Optimizer) -> int:
    """Return how many steps an optimizer has made."""
    return max((int(state["step"]) for state in optimizer.state.values()), default=0)


def add_adapters(network: Any, targets: str, rank: int, *, seed: int) -> Any:
    """Freeze a network and give it the LoRAs of student and critic; both begin as the network itself.

    Raises:
        BackendUnavailable: peft is missing.
        ConfigError: the targets match no layer.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise BackendUnavailable("distillation", reason=str(error), install="pip install 'lyra-worlds[lyra2]'") from error
    network.requires_grad_(False)
    layers = lora_layers(network, targets)
    torch.manual_seed(seed)
    for role in (STUDENT, CRITIC):
        network.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=layers), adapter_name=role)
    for name, parameter in network.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    return network


def main(config: Positional[Path], *, output: str | None = None, resume: bool = False) -> None:
    """Distil the video model to four steps. On several GPUs: torchrun -m lyra_core.training.distill ...

    Args:
        config: YAML file; see configs/train.
        output: Folder of the run, in place of the file's.
        resume: Go on from the folder's checkpoint, if it has one.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    cfg = load_distill_config(config)
    cfg = replace(cfg, train=replace(cfg.train, output=output)) if output else cfg
    distiller = Distiller(cfg)
    summary = distiller.run(resume=resume)
    print(f"{distiller.folder / RESULT}: after step {summary['step']}")


if __name__ == "__main__":
    import tyro

    try:
        tyro.cli(main, prog="python -m lyra_core.training.distill")
    except LyraError as error:
        print(f"distill: {error}", file=sys.stderr)
        sys.exit(2)
