"""Fine-tune the Gaussian head on worlds made here: their frames, exact cameras and depths.

    python -m lyra_core.training.gaussian_head --config configs/train/gaussian_head.yaml --worlds worlds/ --output runs/head

Some frames of a run are shown to the frozen features and the head; frames between them, which the head has not seen, are what its
Gaussians are rendered against. Each world's last frames are kept apart and measure the result.
"""

# pyright: reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false
# To a type checker, what is registered in a torch module is a tensor or a module; here it is known which.

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lyra_core.build_files import frame_files, load_frame
from lyra_core.camera.formats import load_trajectory
from lyra_core.config import SplatCfg, load_config
from lyra_core.errors import ConfigError, InputError, LyraError, WorldError
from lyra_core.io.files import atomic_path, write_json
from lyra_core.io.images import read_image
from lyra_core.splats._torch_backbone import DA3Size
from lyra_core.splats._torch_da3 import DA3, load_da3, save_da3, unit_per_metre
from lyra_core.splats._torch_infer import MEAN, STD, Views, decoded, views_of_frames
from lyra_core.splats._torch_render import Rendering, pick_renderer, render
from lyra_core.splats.feed_forward import weights_licence
from lyra_core.splats.from_frames import SH_C0
from lyra_core.types import Frame, Trajectory

STATE, LOG, WEIGHTS = "state.pt", "log.json", "gaussian_head.safetensors"
"""Files of a run: what it continues from, what it measured, and the network for ``splats: weights``."""
SIZES = {
    "giant": DA3Size(),
    "tiny": DA3Size(dim=32, depth=6, heads=2, out_layers=(1, 2, 3, 5), alternate_from=2, position_grid=4, features=32,
                    channels=(16, 24, 32, 32)),
}
"""Networks that can be started from random numbers."""
SMALL = -2.0
"""Start of the scales' numbers in a random head: 0.7 pixels wide instead of 3, which would all lie over each other."""
RANDOM_LICENCE = "trained from random numbers: the licence of its training pictures"


@dataclass(frozen=True, kw_only=True)
class GaussianHeadCfg:
    """Fine-tuning of the Gaussian head."""

    worlds: str = ""
    """Folder of one world, or of world folders (made with --keep all)."""
    output: str = ""
    """Folder of the run; an interrupted run goes on from there."""
    weights: str | None = None
    """Network to start from, as splats: weights. None: random numbers."""
    size: Literal["giant", "tiny"] = "giant"
    """Sizes of a network of random numbers."""
    long_side: int | None = None
    """Long side of the pictures [px]. None: the frames' own."""
    downsample: int = 2
    """One Gaussian per n x n pixels."""
    context: int = 8
    """Frames shown to the network."""
    stride: int = 4
    """Frames from one of them to the next."""
    targets: int = 2
    """Frames between them that are rendered per step."""
    held_out: float = 0.2
    """Share of each world's frames, at its end, never trained on."""
    iterations: int = 2000
    """Steps of the whole run."""
    learning_rate: float = 1e-4
    """Of AdamW."""
    warmup: int = 100
    """Steps until the full learning rate."""
    weight_decay: float = 0.0
    """Of AdamW."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    ssim: float = 0.2
    """Weight of 1 - SSIM against the absolute colour difference."""
    depth: float = 0.1
    """Weight of the relative depth difference."""
    save_every: int = 200
    """Steps between saved states."""
    seed: int = 0
    """Decides windows and random numbers."""
    renderer: Literal["auto", "torch", "gsplat"] = "auto"
    """'auto': gsplat on CUDA where it is installed."""
    device: str = "auto"
    """'auto', 'cuda', 'cpu'."""


@dataclass(frozen=True)
class Rollout:
    """The frames of one world, read when needed."""

    folder: Path
    path: Trajectory

    def frames(self, ids: Sequence[int]) -> list[Frame]:
        """Read frames."""
        return [load_frame(self.folder, int(i), self.path) for i in ids]


@dataclass(frozen=True)
class Window:
    """Which frames of a rollout one step sees."""

    rollout: Rollout
    context: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True)
class Measured:
    """Means over held-out windows."""

    loss: float
    psnr: float
    """Of rendered against true colours where the depth is known [dB]."""
    depth_error: float
    """Relative."""
    gaussians_per_frame: float
    """Whose opacity can be seen."""


def check_cfg(cfg: GaussianHeadCfg) -> None:
    """Refuse settings that cannot work.

    Raises:
        ConfigError: a field, what was got and what is expected.
    """
    for name in ("worlds", "output"):
        if not getattr(cfg, name):
            raise ConfigError(f"gaussian_head: {name}: got nothing, expected a folder")
    for name, low, high in (("context", 1, 1024), ("stride", 2, 1000), ("targets", 1, 64), ("iterations", 1, 10**7),
                            ("save_every", 1, 10**7), ("warmup", 0, 10**6), ("held_out", 0.0, 0.9)):
        if not low <= getattr(cfg, name) <= high:
            raise ConfigError(f"gaussian_head: {name}: got {getattr(cfg, name)}, expected {low} to {high}")


def load_rollouts(folder: Path) -> list[Rollout]:
    """Find worlds with their frames.

    Raises:
        WorldError: no world there, or one whose frames were dropped.
    """
    folders = [folder] if (folder / "world.json").is_file() else sorted(p.parent for p in folder.glob("*/world.json"))
    if not folders:
        raise WorldError(f"{folder}: neither a world folder nor a folder of them")
    out = []
    for world in folders:
        first = world / frame_files(0)[0]
        if not first.is_file():
            raise WorldError(f"{world}: its frames were dropped (--keep training); create it again with --keep all")
        height, width = read_image(first).shape[:2]
        out.append(Rollout(world, load_trajectory(world / "trajectory.npz", width=width, height=height)))
    return out


def sample_window(rollouts: Sequence[Rollout], cfg: GaussianHeadCfg, rng: np.random.Generator) -> Window:
    """Draw a world, context frames of its training part and targets between them."""
    rollout = rollouts[int(rng.integers(len(rollouts)))]
    count, span = len(rollout.path) - held_out_frames(rollout, cfg), window_span(cfg)
    if count < span:
        raise InputError(f"{rollout.folder}: got {count} frames to train on, expected {span} (context, stride and held_out decide)")
    return _window(rollout, int(rng.integers(count - span + 1)), cfg, rng)


def held_out_windows(rollouts: Sequence[Rollout], cfg: GaussianHeadCfg, per_world: int = 2) -> list[Window]:
    """Return the windows that measure a run, always the same ones.

    Raises:
        InputError: a world's held-out part is shorter than a window.
    """
    rng, out = np.random.default_rng(cfg.seed), []
    for rollout in rollouts:
        count, span = held_out_frames(rollout, cfg), window_span(cfg)
        if count < span:
            raise InputError(f"{rollout.folder}: got {count} held-out frames, expected {span} (context, stride, held_out decide)")
        first = len(rollout.path) - count
        starts = np.unique(np.linspace(first, len(rollout.path) - span, per_world).astype(int))
        out += [_window(rollout, int(start), cfg, rng) for start in starts]
    return out


def window_span(cfg: GaussianHeadCfg) -> int:
    """Return the frames from a window's first to its last."""
    return (cfg.context - 1) * cfg.stride + 1 if cfg.context > 1 else cfg.stride


def held_out_frames(rollout: Rollout, cfg: GaussianHeadCfg) -> int:
    """Return how many frames at a world's end are never trained on."""
    return round(cfg.held_out * len(rollout.path))


def _window(rollout: Rollout, start: int, cfg: GaussianHeadCfg, rng: np.random.Generator) -> Window:
    context = tuple(range(start, start + (cfg.context - 1) * cfg.stride + 1, cfg.stride))
    between = [i for i in range(start, start + window_span(cfg)) if i not in context]
    targets = rng.choice(between, min(cfg.targets, len(between)), replace=False)
    return Window(rollout, context, tuple(int(i) for i in sorted(targets)))


class Trainer:
    """A network whose Gaussian head is trained; everything before it is frozen."""

    def __init__(self, cfg: GaussianHeadCfg) -> None:
        check_cfg(cfg)
        self.cfg, self.rollouts = cfg, load_rollouts(Path(cfg.worlds))
        self.windows = held_out_windows(self.rollouts, cfg)
        there = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(there if cfg.device == "auto" else cfg.device)
        self.renderer = pick_renderer(cfg.renderer, self.device)
        self.model = _start_model(cfg).to(self.device).eval().requires_grad_(False)
        self.head = self.model.gs_head.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(self.head.parameters(), lr=cfg.learning_rate, weight_decay=cfg.weight_decay)
        self.step = 0
        self.losses: list[float] = []
        self.before: Measured | None = None

    def gaussians(self, frames: Sequence[Frame]) -> dict[str, Tensor]:
        """Predict Gaussians of context frames, flat (N, ...) under the renderer's names; gradients reach the head."""
        views = views_of_frames(frames, long_side=self.cfg.long_side, device=self.device)
        with torch.no_grad():
            levels = self.model.features(views.images, views.K, views.T_world_camera)
            unit = unit_per_metre(self.model.depth(levels, views.images.shape[-2:]), views.depth)
        found = decoded(self.model.raw_gaussians(levels, views.images, self.cfg.downsample), views, unit)
        use = torch.isfinite(found.means).all(-1) & (found.scales.detach() > 0).all(-1)
        rgb = (0.5 + SH_C0 * found.dc).clamp(min=0)
        return {"means": found.means[use], "quats_wxyz": found.quats_wxyz[use], "scales": found.scales[use],
                "opacities": found.opacities[use], "rgb": rgb[use]}

    def draw(self, cloud: dict[str, Tensor], views: Views, i: int) -> Rendering:
        """Render what view i sees of predicted Gaussians."""
        height, width = views.images.shape[-2:]
        return render(**cloud, K=views.K[i], T_world_camera=views.T_world_camera[i].float(), width=width, height=height,
                      renderer=self.renderer)

    def loss(self, window: Window) -> Tensor:
        """Return the mean loss over a window's targets."""
        cloud = self.gaussians(window.rollout.frames(window.context))
        views = views_of_frames(window.rollout.frames(window.targets), long_side=self.cfg.long_side, device=self.device)
        shown = [self.draw(cloud, views, i) for i in range(len(views.images))]
        return torch.stack([picture_loss(r, views, i, self.cfg) for i, r in enumerate(shown)]).mean()

    def train_step(self) -> float:
        """Make one step; its window depends on the seed and the step's number alone."""
        window = sample_window(self.rollouts, self.cfg, np.random.default_rng([self.cfg.seed, self.step]))
        for group in self.optimizer.param_groups:
            group["lr"] = self.cfg.learning_rate * min(1.0, (self.step + 1) / max(1, self.cfg.warmup))
        loss = self.loss(window)
        if not torch.isfinite(loss):
            raise LyraError(f"step {self.step}: the loss is {float(loss)}; lower learning_rate or clip")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.head.parameters(), self.cfg.clip)
        self.optimizer.step()
        self.step += 1
        self.losses.append(float(loss.detach()))
        return self.losses[-1]

    @torch.no_grad()
    def evaluate(self) -> Measured:
        """Measure the head on the held-out windows."""
        rows = []
        for window in self.windows:
            cloud = self.gaussians(window.rollout.frames(window.context))
            views = views_of_frames(window.rollout.frames(window.targets), long_side=self.cfg.long_side, device=self.device)
            visible = float((cloud["opacities"] > 1 / 255).sum()) / len(window.context)
            for i in range(len(views.images)):
                shown, known = self.draw(cloud, views, i), torch.isfinite(views.depth[i])
                squared = ((shown.rgb.clamp(max=1) - true_rgb(views, i))[known] ** 2).mean()
                depth = ((shown.depth - views.depth[i]).abs() / views.depth[i])[known].mean()
                loss = picture_loss(shown, views, i, self.cfg)
                rows.append((float(loss), float(-10 * torch.log10(squared)), float(depth), visible))
        return Measured(*(float(np.mean(column)) for column in zip(*rows, strict=True)))

    def save(self, folder: Path) -> None:
        """Write the state and the log."""
        state = {"settings": _identity(self.cfg), "step": self.step, "losses": self.losses, "head": self.head.state_dict(),
                 "optimizer": self.optimizer.state_dict(), "before": None if self.before is None else asdict(self.before)}
        with atomic_path(folder / STATE) as temporary:
            torch.save(state, temporary)
        write_json(folder / LOG, {"settings": asdict(self.cfg), "losses": self.losses, "before": state["before"]})

    def load(self, folder: Path) -> bool:
        """Go on from a saved state; False if there is none.

        Raises:
            ConfigError: it belongs to other settings.
        """
        path = folder / STATE
        if not path.is_file():
            return False
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["settings"] != _identity(self.cfg):
            raise ConfigError(f"{path}: belongs to a run with other settings or weights; choose another output folder")
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.losses = state["step"], list(state["losses"])
        self.before = None if state["before"] is None else Measured(**state["before"])
        return True


def train(cfg: GaussianHeadCfg) -> dict[str, Any]:
    """Run or finish a run; write the network with the trained head, and return the log.

    Raises:
        ConfigError, InputError, WorldError: something given cannot be used.
    """
    trainer, folder = Trainer(cfg), Path(cfg.output)
    if not trainer.load(folder):
        trainer.before = trainer.evaluate()
    while trainer.step < cfg.iterations:
        loss = trainer.train_step()
        if trainer.step % cfg.save_every == 0 or trainer.step == cfg.iterations:
            trainer.save(folder)
            print(f"step {trainer.step}/{cfg.iterations} loss {loss:.4f}", flush=True)
    after = trainer.evaluate()
    licence = RANDOM_LICENCE if cfg.weights is None else weights_licence(SplatCfg(weights=cfg.weights))
    save_da3(folder / WEIGHTS, trainer.model, licence=licence)
    assert trainer.before is not None
    log = {"settings": asdict(cfg), "losses": trainer.losses, "before": asdict(trainer.before), "after": asdict(after)}
    write_json(folder / LOG, log)
    return log


def picture_loss(shown: Rendering, views: Views, i: int, cfg: GaussianHeadCfg) -> Tensor:
    """Colour loss of 3D Gaussian splatting (Kerbl et al. 2023, eq. 7) plus relative depth, where the true depth is known.

    Where it is unknown (sky) no Gaussian can be, and nothing is asked.
    """
    known = torch.isfinite(views.depth[i])
    truth = torch.where(known[..., None], true_rgb(views, i), 0.0)
    rgb = torch.where(known[..., None], shown.rgb, 0.0)
    color = (1 - cfg.ssim) * (rgb - truth).abs()[known].mean() + cfg.ssim * (1 - ssim(rgb, truth))
    off = (shown.depth - views.depth[i]).abs() / views.depth[i]
    return color + cfg.depth * (off[known] * shown.coverage.detach()[known]).mean()


def true_rgb(views: Views, i: int) -> Tensor:
    """Return the colours (H, W, 3) in [0, 1] of view i."""
    device = views.images.device
    return views.images[i].permute(1, 2, 0) * torch.tensor(STD, device=device) + torch.tensor(MEAN, device=device)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean structural similarity of pictures (H, W, 3) in [0, 1]: Gaussian window of 11 px, sigma 1.5 (Wang et al. 2004)."""
    x = torch.arange(11, device=a.device) - 5.0
    line = torch.softmax(-(x**2) / (2 * 1.5**2), 0)
    window = (line[:, None] * line).expand(3, 1, 11, 11)

    def smooth(picture: Tensor) -> Tensor:
        return F.conv2d(picture, window, groups=3)

    a, b = a.permute(2, 0, 1)[None], b.permute(2, 0, 1)[None]
    mean_a, mean_b = smooth(a), smooth(b)
    var_a, var_b, cov = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2, smooth(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean()


def _start_model(cfg: GaussianHeadCfg) -> DA3:
    if cfg.weights is not None:
        return load_da3(cfg.weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.seed)
        model = DA3(SIZES[cfg.size])
        for name in ("cls_token", "pos_embed"):
            torch.nn.init.normal_(getattr(model.backbone.pretrained, name), std=0.02)
        torch.nn.init.constant_(model.gs_head.scratch.output_conv2[2].bias[2:5], SMALL)
    return model


def _identity(cfg: GaussianHeadCfg) -> str:
    """Hash of what makes the steps of a run; its length and its folder may change."""
    free = {"iterations": 0, "output": "", "save_every": 0, "renderer": "", "device": ""}
    return hashlib.sha256(json.dumps({**asdict(cfg), **free}, sort_keys=True).encode()).hexdigest()


def main(*, config: Path, worlds: str | None = None, output: str | None = None, weights: str | None = None) -> None:
    """Fine-tune the Gaussian head; run again after a crash, it goes on where it stopped.

    Args:
        config: YAML file with what differs from the defaults.
        worlds: Folder of one world, or of world folders.
        output: Folder of the run.
        weights: Network to start from.
    """
    cfg = cast(GaussianHeadCfg, load_config(config, base=cast(Any, GaussianHeadCfg())))
    given = {"worlds": worlds, "output": output, "weights": weights}
    log = train(replace(cfg, **{key: value for key, value in given.items() if value is not None}))
    for when in ("before", "after"):
        said = log[when]
        print(f"{when}: loss {said['loss']:.4f}, {said['psnr']:.2f} dB, depth {100 * said['depth_error']:.1f} % off, "
              f"{said['gaussians_per_frame']:.0f} Gaussians per frame")


if __name__ == "__main__":
    import tyro

    try:
        tyro.cli(main, prog="python -m lyra_core.training.gaussian_head")
    except LyraError as error:
        print(f"gaussian_head: {error}", file=sys.stderr)
        sys.exit(2)
