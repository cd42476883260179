"""Train the layout network. Every step is a function of the seed and its number, so a stopped run goes on as if it never was."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lyra_core.errors import ConfigError
from lyra_core.io.files import write_bytes
from lyra_core.jobs.progress import Progress
from lyra_core.photo.prior import read_weights
from lyra_core.training.layout.augment import View, example
from lyra_core.training.layout.model import LayoutNet, layout_loss, load_encoder

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW remembers per weight."""
STATE, WEIGHTS, LOG = "state.safetensors", "layout.safetensors", "log.jsonl"


@dataclass(frozen=True)
class LayoutCfg:
    """A run."""

    steps: int = 8000
    batch: int = 32
    views: int = 6000
    """Views of the scenes to learn from."""
    seed: int = 0
    learning_rate: float = 2e-3
    encoder_rate: float = 0.1
    """Learning rate of an encoder that begins with what it learnt elsewhere, over that of the rest."""
    weight_decay: float = 0.02
    warmup: int = 200
    average: float = 0.998
    """Decay of the weights' moving average, which is what a run gives."""
    depth_weight: float = 0.5
    """Of the depth's loss beside the classes'."""
    edge_weight: float = 0.5
    height_weight: float = 0.1
    place_weight: float = 0.1
    only: str = ""
    """Learn only the weights whose names begin so, as of a head added later; '': all."""
    size: tuple[int, int] = (256, 192)
    """Of examples, long and short side [px]."""
    portrait: float = 0.2
    """Share of portrait batches."""
    save_every: int = 200
    threads: int = 0
    """Of torch; 0 = as many as there are cores."""
    workers: int = 0
    """Processes that prepare examples; 0 = none beside the one that trains."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "views", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"layout: {name}: got {getattr(self, name)}, expected 1 or more")
        if self.size[0] < self.size[1] or min(self.size) % 2 or min(self.size) < 16:
            raise ConfigError(f"layout: size: got {self.size}, expected even numbers of 16 or more, the longer one first")


class Batches(Dataset):
    """The examples of every step, a function of the seed and the step's number."""

    def __init__(self, cfg: LayoutCfg, views: list[View], first: int = 0) -> None:
        self.cfg, self.views, self.first = cfg, views, first
        self._wide = [i for i, view in enumerate(views) if view.labels.shape[1] >= view.labels.shape[0]]
        self._tall = [i for i, view in enumerate(views) if view.labels.shape[1] < view.labels.shape[0]]

    def __len__(self) -> int:
        return self.cfg.steps - self.first

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        """Return inputs and the truth of step ``first + number``, as layout_loss takes it."""
        cfg = self.cfg
        rng = np.random.default_rng([cfg.seed, self.first + number])
        tall = bool(self._tall) and (not self._wide or rng.random() < cfg.portrait)
        long, short = cfg.size
        pool, size = (self._tall, (short, long)) if tall else (self._wide, (long, short))
        examples = [example(self.views[pool[i]], rng, size) for i in rng.integers(len(pool), size=cfg.batch)]
        return (*(torch.from_numpy(np.stack([getattr(e, name) for e in examples])) for name in ("inputs", "classes", "log_depth")),
                *(torch.tensor([getattr(e, name) for e in examples], dtype=torch.float32) for name in ("log_height", "outdoors")))


class LayoutTrainer:
    """One run: the network, what AdamW remembers, the moving average, and how far it is."""

    def __init__(self, cfg: LayoutCfg, views: list[View], folder: Path, *, device: str = "cpu", resume: bool = False,
                 start: Path | None = None, encoder: Path | None = None) -> None:
        """Build the network, or take up a run from its folder.

        Args:
            device: torch's, that trains; on CUDA convolutions run in bfloat16.
            start: weights that a new run begins with, such as the installed ones.
            encoder: EfficientNet-Lite0 from ImageNet that a new run begins with.

        Raises:
            InputError: ``start`` or ``encoder`` cannot be read.
            ConfigError: the folder holds a run of other settings, or one and it is not to be resumed.
        """
        if cfg.threads:
            torch.set_num_threads(cfg.threads)
        torch.manual_seed(cfg.seed)
        self.cfg, self.views, self.folder, self.device = cfg, views, folder, torch.device(device)
        self.network = LayoutNet()
        if encoder is not None:
            load_encoder(self.network.encoder, encoder)
        if start is not None:
            self.network.load_state_dict({name: torch.from_numpy(value) for name, value in read_weights(start).items()})
        self.network.to(self.device)
        learnt = encoder is not None or start is not None
        rates = {True: cfg.encoder_rate if learnt else 1.0, False: 1.0}
        named = list(self.network.named_parameters())
        for name, p in named:
            p.requires_grad_(name.startswith(cfg.only))
        groups = [{"params": [p for name, p in named if name.startswith("encoder.") == inside], "rate": rate}
                  for inside, rate in rates.items()]
        self.optimizer = torch.optim.AdamW(groups, lr=cfg.learning_rate, weight_decay=cfg.weight_decay)
        self.average = {name: p.detach().clone() for name, p in self.network.named_parameters()}
        self.step = 0
        self._coming: Iterator | None = None
        state = folder / STATE
        if state.exists() and not resume:
            raise ConfigError(f"{folder}: got a folder with a run in it, expected a new one or --resume")
        if state.exists():
            self._load(state)

    def run(self, progress: Progress | None = None) -> dict[str, float]:
        """Train to the last step and write the averaged weights; returns the mean losses of the last hundred steps."""
        recent: list[dict[str, float]] = []
        if progress is not None:
            progress.stage("training", self.cfg.steps - self.step)
        while self.step < self.cfg.steps:
            recent = [*recent[-99:], self.train_step()]
            if self.step % self.cfg.save_every == 0 or self.step == self.cfg.steps:
                self._save(recent)
            if progress is not None:
                progress.update()
        write_weights(self.folder / WEIGHTS, self.average)
        return {name: float(np.mean([r[name] for r in recent])) for name in recent[0]} if recent else {}

    def train_step(self) -> dict[str, float]:
        """Take one step and return its losses."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * learning_rate(self.cfg, self.step)
        if self._coming is None:
            self._coming = self._batches()
        inputs, *truth = (part.to(self.device, non_blocking=True) for part in next(self._coming))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            out = self.network(inputs.to(memory_format=torch.channels_last))
        losses = layout_loss(*(part.float() for part in out), *truth)
        cfg = self.cfg
        total = (losses["classes"] + cfg.depth_weight * losses["depth"] + cfg.edge_weight * losses["edges"]
                 + cfg.height_weight * losses["height"] + cfg.place_weight * losses["place"])
        self.optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        # A young average follows the weights more closely.
        decay = min(cfg.average, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), list(self.network.parameters()), 1 - decay)
        self.step += 1
        names = list(losses)
        return dict(zip(names, torch.stack([losses[name].detach() for name in names]).tolist(), strict=True))

    def _batches(self) -> Iterator[tuple[Tensor, ...]]:
        """Begin to prepare the steps that are left."""
        if self.cfg.workers:
            # OpenCV's threads do not live on in a forked process, which would wait for them.
            cv2.setNumThreads(1)
        # Forked, so that the views are not copied; spawned processes would hold them all.
        return iter(DataLoader(Batches(self.cfg, self.views, self.step), batch_size=None, num_workers=self.cfg.workers,
                               multiprocessing_context="fork" if self.cfg.workers else None,
                               pin_memory=self.device.type == "cuda"))

    def _tensors(self) -> dict[str, Tensor]:
        """Return all that changes from step to step, by name."""
        out = {f"network.{name}": p.detach() for name, p in self.network.named_parameters()}
        out |= {f"average.{name}": value for name, value in self.average.items()}
        for name, p in self.network.named_parameters():
            for moment in MOMENTS:
                state = self.optimizer.state.get(p, {})
                out[f"{moment}.{name}"] = state.get(moment, torch.zeros_like(p))
        return out

    def _save(self, recent: list[dict[str, float]]) -> None:
        mean = {name: round(float(np.mean([r[name] for r in recent])), 4) for name in recent[0]}
        log = self.folder / LOG
        lines = log.read_text(encoding="utf-8") if log.exists() else ""
        write_bytes(log, f"{lines}{json.dumps({'step': self.step, **mean})}\n".encode())
        write_tensors(self.folder / STATE, {**self._tensors(), "step": torch.tensor(self.step)}, identity(self.cfg))

    def _load(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                made_by = (file.metadata() or {}).get("run")
                held = {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, OSError) as error:
            raise ConfigError(f"{path}: not readable as safetensors: {error}") from error
        if made_by != identity(self.cfg):
            raise ConfigError(f"{path}: got a run with settings {made_by}, expected {identity(self.cfg)}")
        self.step = int(held.pop("step"))
        for name, p in self.network.named_parameters():
            p.data.copy_(held[f"network.{name}"])
            self.average[name].copy_(held[f"average.{name}"])
            moments = {moment: held[f"{moment}.{name}"].clone(memory_format=torch.preserve_format) for moment in MOMENTS}
            self.optimizer.state[p] = {"step": torch.tensor(float(self.step)), **{n: m.to(p.device) for n, m in moments.items()}}


def identity(cfg: LayoutCfg) -> str:
    """Return what makes the steps of a run; its threads, its workers and how often it is saved may change."""
    kept = {name: value for name, value in asdict(cfg).items() if name not in ("save_every", "threads", "workers")}
    return json.dumps(kept, sort_keys=True)


def learning_rate(cfg: LayoutCfg, step: int) -> float:
    """Return the learning rate of a step, from 0: a short rise, then half a cosine down to a hundredth."""
    return cfg.learning_rate * min(1.0, (step + 1) / cfg.warmup) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / cfg.steps)))


def write_tensors(path: Path, tensors: dict[str, Tensor], run: str) -> None:
    """Write tensors with the settings of the run that they are of."""
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(contiguous, metadata={"run": run}))


def write_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Write a network's weights in half precision, as ``lyra_core.photo.prior`` reads them."""
    write_bytes(path, save({name: value.half().contiguous() for name, value in weights.items()}))
