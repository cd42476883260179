"""Settings of video model training. YAML holds only what differs; see configs/train."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from lyra_core.config import load_config
from lyra_core.errors import ConfigError
from lyra_core.generate.lyra2.packing import PUBLISHED_PACKING, Packing


@dataclass(frozen=True, kw_only=True)
class NetworkCfg:
    """The network; the defaults are the published 14B size."""

    packing: str = PUBLISHED_PACKING
    """History of a chunk and number of new latents."""
    heads: int = 40
    head_dim: int = 128
    ffn_dim: int = 13824
    layers: int = 40
    text_dim: int = 4096
    image_dim: int = 1280
    freq_dim: int = 256
    squeeze: int = 256
    """Width between the two projections of the correspondences."""
    weights: str | None = None
    """Where to start: folder or file of Wan 2.1 (image to video) or of Lyra 2.0, whose sizes count then, but for head_dim, which
    no file tells. None: random numbers."""
    codec: Literal["wan", "patch"] = "wan"
    """'wan': the Wan 2.1 VAE; 'patch': a fixed cosine transform without weights."""
    codec_channels: int = 16
    """Channels of codec 'patch'."""
    vae: str | None = None
    """Folder of the VAE for codec 'wan'. None: that of the converted weights."""
    encoders: Literal["lyra2", "plain"] = "lyra2"
    """'lyra2': umT5 and CLIP; 'plain': no text, and a coarse copy of the newest frame."""
    lora_rank: int = 0
    """0: train the network itself; else a LoRA of this rank."""
    lora_targets: str = "attn1.to_q,attn1.to_k,attn1.to_v,attn1.to_out.0,ffn.net.0.proj,ffn.net.2"
    """Layers of every block that the LoRA changes, ending of the name."""
    trainable: str = ""
    """Comma-separated parts of names of what is trained; empty: everything. The original's list, which its released code
    does not follow: 'attn1,cam_encoder,buffer_encoder,patch_embedding'."""


@dataclass(frozen=True, kw_only=True)
class DataCfg:
    """Clips to learn from."""

    kind: Literal["dl3dv", "worlds", "procedural"] = "dl3dv"
    """'dl3dv': rgb/, pose/, intrinsics/, depth/ as Lyra 2.0's training data; 'worlds': world folders with frames; 'procedural':
    worlds made on the spot."""
    path: str = ""
    """Folder of 'dl3dv' or 'worlds'; folder to keep made worlds in for 'procedural'."""
    width: int = 832
    height: int = 480
    frames: int = 1000
    """Frames taken of a video; shorter ones are mirrored."""
    clips: int = 16
    """Number of clips of 'procedural'."""
    worlds: int = 4
    """Number of worlds of 'procedural'."""
    first_seed: int = 0
    """Seed of the first world of 'procedural'."""
    pool: int = 0
    """> 0: draws of the memory per chunk that stay in main memory, for few small clips; 0: every draw is new."""


@dataclass(frozen=True, kw_only=True)
class HistoryCfg:
    """What happens to the history, and what is drawn from the memory."""

    preset: Literal["repo", "paper", "custom"] = "repo"
    """Where the released code and the paper differ: 'repo' or 'paper' as a whole; 'custom' takes every value as given."""
    every: int = 2
    """Only every n-th step may be self-augmented or image to video."""
    image_share: float = 0.3
    """Of those steps, the share that learns the first chunk after one picture."""
    probability: float = 1.0
    """Of the others, the share that is self-augmented."""
    max_timestep: float = 500.0
    """Largest noise level from which a chunk is denoised in one step to become the spoilt history."""
    write_back: Literal["history", "chunk"] = "history"
    """Decoded frames that take the place of true ones: the whole visible history, or the spoilt chunk."""
    ray_noise: float = 0.0
    """Pluecker corruption: share of samples whose camera rays are those of slightly wrong cameras."""
    ray_degrees: float = 0.5
    """Standard deviation of their rotation [degrees]."""
    ray_metres: float = 0.02
    """Standard deviation of their position, as a share of the newest frame's median depth."""
    memory_stride: int = 8
    """Every n-th frame is in the memory."""
    memory_gap: int = 16
    """Frames this near to the chunk are not retrieved."""
    memory_drop: float = 0.1
    """Share of samples that lose some or all retrieved frames."""
    memory_noise_mean: float = -3.0
    """Mean of the logarithm of the noise added to retrieved latents."""
    memory_noise_std: float = 2.0
    """Its standard deviation; negative: no noise."""
    point_subsampling: int = 4
    """Depth is thinned to one pixel in n x n where visibility is counted."""
    text_dropout: float = 0.2
    """Share of samples without caption."""
    max_segments: int = 13
    """Chunks of a clip that are drawn from, at its beginning."""
    start_share: float = 0.0
    """Part of a clip, at its beginning, in which the first frame may lie."""


HISTORY_PRESETS: dict[str, dict[str, Any]] = {
    "repo": {"every": 2, "image_share": 0.3, "probability": 1.0, "write_back": "history", "ray_noise": 0.0, "point_subsampling": 4},
    "paper": {"every": 1, "image_share": 0.3, "probability": 0.7, "write_back": "chunk", "ray_noise": 0.1, "point_subsampling": 8},
}
"""What the released code and the paper (arXiv 2604.13036) say differently about training."""


@dataclass(frozen=True, kw_only=True)
class OptimCfg:
    """AdamW and its schedule."""

    learning_rate: float = 3e-5
    weight_decay: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    warmup: int = 100
    """Steps until the full learning rate."""
    decay: Literal["none", "cosine"] = "none"
    """'cosine': the learning rate falls to ``final`` of itself at the last step."""
    final: float = 0.1
    clip: float = 0.1
    """Largest norm of the gradient."""
    ema: float = 0.0
    """Decay of the moving average of the weights; 0: none."""
    weighting: Literal["bell", "uniform"] = "bell"
    """Weight of noise levels in the loss."""
    shift: float = 5.0
    """Shift of the noise schedule."""


@dataclass(frozen=True, kw_only=True)
class RunCfg:
    """How it runs."""

    iterations: int = 7000
    batch: int = 64
    """Samples per step, over all processes."""
    micro_batch: int = 1
    """Samples that go through the network at once, per process."""
    minutes: float = 0.0
    """Stop after so long, with a checkpoint to go on from; 0: no limit."""
    save_every: int = 100
    """Steps between checkpoints."""
    keep: int = 2
    """Checkpoints kept."""
    precision: Literal["bf16", "no"] = "bf16"
    gradient_checkpointing: bool = True
    shard: int = 0
    """Processes over which weights are sharded (FSDP); 0: all of them; 1: every process has all."""
    workers: int = 4
    """Processes per training process that read clips."""
    device: str = "auto"
    """'auto', 'cuda', 'cpu'."""
    threads: int = 0
    """CPU threads of each process; 0: as torch chooses."""


@dataclass(frozen=True, kw_only=True)
class TrainCfg:
    """Training of the video model."""

    output: str = ""
    """Folder of the run."""
    seed: int = 0
    network: NetworkCfg = field(default_factory=NetworkCfg)
    data: DataCfg = field(default_factory=DataCfg)
    history: HistoryCfg = field(default_factory=HistoryCfg)
    optim: OptimCfg = field(default_factory=OptimCfg)
    run: RunCfg = field(default_factory=RunCfg)


LIMITS: dict[str, tuple[float, float]] = {
    "network.heads": (1, 1024), "network.head_dim": (12, 1024), "network.layers": (1, 1024), "network.lora_rank": (0, 4096),
    "network.codec_channels": (1, 768), "data.width": (16, 8192), "data.height": (16, 8192), "data.frames": (2, 10**6),
    "data.clips": (1, 10**6), "data.worlds": (1, 10**5), "history.every": (1, 10**6), "history.image_share": (0, 1),
    "history.probability": (0, 1), "history.max_timestep": (1, 1000), "history.ray_noise": (0, 1), "history.ray_degrees": (0, 90),
    "history.ray_metres": (0, 10), "history.memory_stride": (1, 1000), "history.memory_gap": (0, 10**6),
    "history.memory_drop": (0, 1), "history.point_subsampling": (1, 32), "history.text_dropout": (0, 1),
    "history.max_segments": (1, 10**6), "history.start_share": (0, 1), "optim.learning_rate": (0, 1), "optim.weight_decay": (0, 1),
    "optim.beta1": (0, 0.9999999), "optim.beta2": (0, 0.9999999), "optim.warmup": (0, 10**6), "optim.final": (0, 1),
    "optim.clip": (1e-6, 1e6), "optim.ema": (0, 0.9999999), "optim.shift": (0.1, 100), "run.iterations": (1, 10**8),
    "run.batch": (1, 10**5), "run.micro_batch": (1, 10**5), "run.minutes": (0, 10**6), "data.pool": (0, 10**4),
    "run.save_every": (1, 10**7), "run.keep": (1, 1000), "run.shard": (0, 10**5), "run.workers": (0, 256),
    "run.threads": (0, 1024), "network.ffn_dim": (1, 10**6), "network.text_dim": (1, 10**5), "network.image_dim": (1, 10**5),
    "network.freq_dim": (2, 10**5), "network.squeeze": (1, 10**5), "data.first_seed": (0, 2**31),
    "history.memory_noise_mean": (-50, 50), "history.memory_noise_std": (-1, 50),
}
"""Section and field -> lowest and highest value."""


def load_train_config(path: Path | str) -> TrainCfg:
    """Read a YAML file that holds only what differs from the defaults.

    Raises:
        ConfigError: not readable, or a key or value that cannot be used; section and field are named.
    """
    cfg = cast(TrainCfg, load_config(path, base=cast(Any, TrainCfg())))
    return checked(cfg, where=str(path))


def checked(cfg: TrainCfg, *, where: str = "config") -> TrainCfg:
    """Return the settings with the preset of the history filled in.

    Raises:
        ConfigError: a value outside its limits, or one that belongs to no preset although one is named.
    """
    if not 0 <= cfg.seed < 2**31:
        raise ConfigError(f"{where}: seed: got {cfg.seed}, expected 0 to {2**31 - 1}")
    for name, (low, high) in LIMITS.items():
        section, key = name.split(".")
        value = getattr(getattr(cfg, section), key)
        if not low <= value <= high:
            raise ConfigError(f"{where}: {section}: {key}: got {value}, expected {low} to {high}")
    packing = Packing.parse(cfg.network.packing)
    if not packing.temporal_positions:
        raise ConfigError(f"{where}: network: packing: got {packing.text!r}, expected at least one segment fNkM: the first frame")
    for name in ("width", "height"):
        if getattr(cfg.data, name) % 16:
            raise ConfigError(f"{where}: data: {name}: got {getattr(cfg.data, name)}, expected a multiple of 16")
    if cfg.data.kind != "procedural" and not cfg.data.path:
        raise ConfigError(f"{where}: data: path: got nothing, expected the folder of kind {cfg.data.kind!r}")
    if cfg.network.codec == "wan" and cfg.network.codec_channels != 16:
        raise ConfigError(f"{where}: network: codec_channels: got {cfg.network.codec_channels}, expected 16 for codec 'wan'")
    return dataclasses.replace(cfg, history=_preset(cfg.history, where))


def _preset(cfg: HistoryCfg, where: str) -> HistoryCfg:
    if cfg.preset == "custom":
        return cfg
    wanted, default = HISTORY_PRESETS[cfg.preset], HistoryCfg()
    for key, value in wanted.items():
        if getattr(cfg, key) not in (value, getattr(default, key)):
            said = f"got {getattr(cfg, key)}, but preset {cfg.preset!r} has {value}; expected that, or preset 'custom'"
            raise ConfigError(f"{where}: history: {key}: {said}")
    return dataclasses.replace(cfg, **wanted)
