"""Train the video model: one process or many, from nothing or from a checkpoint, whole or by a LoRA."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.parallelism_config import ParallelismConfig
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.utils.data import DataLoader, Dataset

from lyra_core.errors import ConfigError, LyraError
from lyra_core.generate.lyra2.tensors import Spec, write_safetensors
from lyra_core.io.files import write_json
from lyra_core.training.data import build_source
from lyra_core.training.flow import TrainSchedule
from lyra_core.training.network import build_codec, build_encoders, build_network, save_lora
from lyra_core.training.sampling import Sample, Sampler, draw_mode
from lyra_core.training.settings import OptimCfg, TrainCfg, checked
from lyra_core.training.state import Average, checkpoints, finish, load_part, save_part, trained, whole
from lyra_core.training.step import Parts, TrainingNetwork, losses

LOG, SETTINGS, NETWORK, LORA = "log.jsonl", "settings.json", "network", "lora.safetensors"
"""Files of a run beside its checkpoints."""
BAD_STEPS = 10
"""So many steps in a row without a finite gradient end a run."""


class Slots(Dataset):
    """This process's samples of all steps, one after the other."""

    def __init__(self, sampler: Sampler, *, steps: int, batch: int, rank: int, world: int) -> None:
        self.sampler, self.steps, self.share, self.rank = sampler, steps, batch // world, rank

    def __len__(self) -> int:
        return self.steps * self.share

    def __getitem__(self, index: int) -> Sample:
        step, place = divmod(index, self.share)
        return self.sampler.sample(step, self.rank * self.share + place)


def make_accelerator(cfg: TrainCfg) -> Accelerator:
    """Return accelerate's handle on devices and processes, with sharding set up where there are several."""
    world, run = int(os.environ.get("WORLD_SIZE", "1")), cfg.run
    cpu = run.device == "cpu" or not torch.cuda.is_available()
    if run.batch % world:
        raise ConfigError(f"run: batch: got {run.batch} for {world} processes, expected a multiple")
    shard = run.shard or world
    if world % shard:
        raise ConfigError(f"run: shard: got {shard} for {world} processes, expected a divisor")
    # accelerate keeps its settings for the whole process; one process may train several networks, one after the other.
    AcceleratorState._reset_state(reset_partial_state=world == 1)
    if world == 1 or shard == 1:
        return Accelerator(cpu=cpu, mixed_precision=run.precision)
    # Inputs are not cast: a timestep of 937.5 is 936 in bfloat16. The network casts what may be cast.
    low = torch.bfloat16 if run.precision == "bf16" else None
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32, cast_forward_inputs=False)
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, reshard_after_forward=True, auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["Lyra2Block"], mixed_precision_policy=policy, cpu_ram_efficient_loading=False,
        state_dict_type="SHARDED_STATE_DICT",
    )
    mesh = None if shard == world else ParallelismConfig(dp_replicate_size=world // shard, dp_shard_size=shard)
    accelerator = Accelerator(cpu=cpu, mixed_precision="no", fsdp_plugin=plugin, parallelism_config=mesh)
    if accelerator.distributed_type == DistributedType.MULTI_CPU:
        # accelerate offers sharding to GPUs alone; torch's works on CPUs as well, where it is tested.
        accelerator.state.distributed_type, accelerator.state.fsdp_plugin = DistributedType.FSDP, plugin
    return accelerator


def learning_rate(cfg: OptimCfg, step: int, iterations: int) -> float:
    """Return the learning rate of a step, from 0."""
    rate = cfg.learning_rate * min(1.0, (step + 1) / max(1, cfg.warmup))
    if cfg.decay == "none":
        return rate
    return rate * (cfg.final + (1 - cfg.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / iterations))))


class Trainer:
    """One run: its network, its optimizer, and how far it is."""

    def __init__(self, cfg: TrainCfg, *, sampler: Sampler | None = None) -> None:
        """Build everything; nothing is written.

        Args:
            sampler: in place of the one that ``cfg.data`` describes.

        Raises:
            ConfigError, InputError, WorldError, BackendUnavailable: something given cannot be used.
        """
        self.cfg = cfg = checked(cfg)
        if not cfg.output:
            raise ConfigError("output: got nothing, expected a folder")
        if cfg.run.threads:
            torch.set_num_threads(cfg.run.threads)
        self.accelerator = make_accelerator(cfg)
        self.folder, device = Path(cfg.output), self.accelerator.device
        network = build_network(cfg.network, seed=cfg.seed)
        if cfg.run.gradient_checkpointing:
            network.enable_gradient_checkpointing()
        codec = build_codec(cfg.network, device)
        text, image = build_encoders(cfg.network, device)
        schedule = TrainSchedule(cfg.optim.shift, cfg.optim.weighting)
        self.parts = Parts(network.packing, codec, text, image, schedule, cfg.history, device, {} if cfg.data.pool else None)
        self.sampler = sampler or Sampler(build_source(cfg.data), network.packing, cfg.history, seed=cfg.seed, pool=cfg.data.pool)
        module = TrainingNetwork(network)
        optim = cfg.optim
        optimizer = torch.optim.AdamW(
            list(trained(module).values()), lr=optim.learning_rate, betas=(optim.beta1, optim.beta2),
            weight_decay=optim.weight_decay,
        )
        self.module, prepared = self.accelerator.prepare(module, optimizer)
        self.optimizer: torch.optim.Optimizer = prepared.optimizer
        self.average = Average(self.trained, optim.ema)
        self.step = 0
        self._bad = 0
        self._stop = False

    @property
    def network(self) -> TrainingNetwork:
        """The network without accelerate's wrapping."""
        return self.accelerator.unwrap_model(self.module)

    @property
    def trained(self) -> dict[str, torch.nn.Parameter]:
        """Parameters that are trained."""
        return trained(self.network)

    @property
    def log(self) -> list[dict[str, Any]]:
        """What was logged so far, one entry per step."""
        path = self.folder / LOG
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []

    def train_step(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Make one step with this process's samples; return what is logged of it.

        Raises:
            LyraError: the gradient has not been finite for too long.
        """
        began, total = time.perf_counter(), torch.zeros((), device=self.accelerator.device)
        size = self.cfg.run.micro_batch
        groups = [samples[i : i + size] for i in range(0, len(samples), size)]
        for i, group in enumerate(groups):
            last = i == len(groups) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.module):
                loss = losses(self.module, group, self.parts).sum() / len(samples)
                self.accelerator.backward(loss)
            total += loss.detach()
        norm = float(self.accelerator.clip_grad_norm_(self.module.parameters(), self.cfg.optim.clip) or 0.0)
        rate = learning_rate(self.cfg.optim, self.step, self.cfg.run.iterations)
        self._bad = 0 if math.isfinite(norm) else self._bad + 1
        if self._bad > BAD_STEPS:
            raise LyraError(f"step {self.step}: the gradient was not finite {self._bad} times in a row; lower learning_rate")
        if not self._bad:
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
            self.average.update(self.trained)
        self.optimizer.zero_grad(set_to_none=True)
        loss, stop = self._agreed(total)
        entry = {"step": self.step, "mode": draw_mode(self.cfg.history, seed=self.cfg.seed, step=self.step), "loss": loss,
                 "norm": norm if not self._bad else None, "rate": rate, "seconds": round(time.perf_counter() - began, 3)}
        self._stop = stop
        self.step += 1
        return entry

    def _agreed(self, loss: Tensor) -> tuple[float, bool]:
        """Return the mean loss over processes, and whether one of them was asked to stop: then all stop after the same step."""
        mine = torch.stack([loss, loss.new_tensor(float(self._stop))])
        mean = self.accelerator.reduce(mine, "mean") if self.accelerator.num_processes > 1 else mine
        return float(mean[0]), float(mean[1]) > 0

    def run(self, *, resume: bool = False) -> dict[str, Any]:
        """Train to the last step; Ctrl-C or the time limit leave a checkpoint. Returns the step and whether it was the last.

        Raises:
            ConfigError: the folder holds another run, or one that was not to be resumed.
        """
        self._open(resume)
        cfg, accelerator, began = self.cfg.run, self.accelerator, time.monotonic()
        rank, world = accelerator.process_index, accelerator.num_processes
        slots = Slots(self.sampler, steps=cfg.iterations, batch=cfg.batch, rank=rank, world=world)
        samples = iter(self._loader(slots))
        with self._interruptible(), _Bar(cfg.iterations, self.step, shown=accelerator.is_main_process) as bar:
            while self.step < cfg.iterations and not self._stop:
                entry = self.train_step([next(samples) for _ in range(slots.share)])
                self._write(entry)
                bar.update(entry)
                if cfg.minutes and time.monotonic() - began > 60 * cfg.minutes:
                    self._stop = True
                if self._stop or self.step % cfg.save_every == 0 or self.step == cfg.iterations:
                    self.save()
        done = self.step == cfg.iterations
        if done:
            self.export()
        return {"step": self.step, "done": done}

    def _loader(self, slots: Slots) -> DataLoader:
        workers = 0 if self.cfg.data.pool else self.cfg.run.workers
        ids = range(self.step * slots.share, len(slots))
        # Started afresh, not forked: the retrieval's kernels do not survive a fork.
        context = "spawn" if workers else None
        return DataLoader(slots, batch_size=None, sampler=ids, num_workers=workers, multiprocessing_context=context)

    def _open(self, resume: bool) -> None:
        found = checkpoints(self.folder)
        if found and not resume:
            raise ConfigError(f"{self.folder}: holds a run of step {found[-1].name}; give --resume or another --output")
        accelerator = self.accelerator
        if found:
            self.step = load_part(found[-1], self.cfg, self.network, self.optimizer, self.average, rank=accelerator.process_index,
                                  world=accelerator.num_processes)
        if accelerator.is_main_process:
            write_json(self.folder / SETTINGS, asdict(self.cfg))
            kept = [entry for entry in self.log if entry["step"] < self.step]
            (self.folder / LOG).write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
        accelerator.wait_for_everyone()

    def _write(self, entry: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            with (self.folder / LOG).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(entry) + "\n")

    def save(self) -> None:
        """Write a checkpoint of the step."""
        folder, accelerator = self.folder / "checkpoints" / f"{self.step:08d}", self.accelerator
        rank, world = accelerator.process_index, accelerator.num_processes
        save_part(folder, self.network, self.optimizer, self.average, rank=rank, world=world)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            finish(folder, self.cfg, step=self.step, world=world, keep=self.cfg.run.keep)
        accelerator.wait_for_everyone()

    def export(self) -> None:
        """Write the result: the network (its average, if there is one) as a folder that the generator loads, or the LoRA."""
        network = self.network.network
        values = {name.removeprefix("network."): whole(value) for name, value in self.average.values.items()}
        if self.cfg.network.lora_rank:
            tensors = {name: values.get(name, whole(p)) for name, p in network.named_parameters() if "lora_" in name}
            if self.accelerator.is_main_process:
                save_lora(self.folder / LORA, tensors)
            return
        dtype = torch.bfloat16 if self.cfg.run.precision == "bf16" else torch.float32
        tensors = {name: values[name] if name in values else whole(p) for name, p in network.named_parameters()}
        tensors = {name: value.to(dtype) for name, value in tensors.items()}
        if self.accelerator.is_main_process:
            (self.folder / NETWORK).mkdir(parents=True, exist_ok=True)
            network.save_config(self.folder / NETWORK)
            specs = {name: Spec(tuple(value.shape), value.dtype) for name, value in tensors.items()}
            write_safetensors(self.folder / NETWORK / "diffusion_pytorch_model.safetensors", specs, tensors.__getitem__)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let the first Ctrl-C end the run after its step; a second one acts at once."""

        def stop(number: int, frame: Any) -> None:
            self._stop = True
            signal.signal(signal.SIGINT, before)

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


class _Bar:
    """A progress bar on a terminal, else a line now and then."""

    def __init__(self, total: int, start: int, *, shown: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._progress = Progress(TextColumn("train"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                                  TextColumn("{task.description}"), console=console, disable=not (shown and console.is_terminal))
        self._task = self._progress.add_task("", total=total, completed=start)
        self._plain = shown and not console.is_terminal
        self._console, self._total, self._recent = console, total, []

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def update(self, entry: dict[str, Any]) -> None:
        """Show a finished step."""
        self._recent = [*self._recent[-49:], entry["loss"]]
        said = f"loss {np.mean(self._recent):.4f}  {entry['seconds']:.2f} s"
        self._progress.update(self._task, advance=1, description=said)
        if self._plain and (entry["step"] + 1) % max(1, self._total // 50) == 0:
            self._console.print(f"step {entry['step'] + 1}/{self._total}  {said}", highlight=False)
