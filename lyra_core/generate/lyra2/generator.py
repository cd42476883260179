"""The Lyra 2.0 video model as a generator: retrieve - warp - denoise - decode - encode again, 80 frames at a time.

The loop around it (generate/loop.py) owns the frame cache, the retrieval and the depth of new frames; this class owns the latents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lyra_core.camera.se3 import inverse
from lyra_core.config import GenerateCfg, Lyra2Cfg
from lyra_core.errors import InputError
from lyra_core.generate.base import ChunkRequest
from lyra_core.generate.captions import template_prompt
from lyra_core.generate.frames import photo_frame, with_provenance
from lyra_core.generate.lyra2.captioner import Captioner
from lyra_core.generate.lyra2.components import Components, guided_velocity
from lyra_core.generate.lyra2.conditioning import Cameras, ChunkInputs, View, assemble, timeline_frames
from lyra_core.generate.lyra2.loading import check_parts, load_parts, models_folder, weights_id
from lyra_core.generate.lyra2.packing import SUBFRAMES, Packing
from lyra_core.generate.lyra2.samplers import DISTILLED_STEPS, Velocity, chunk_noise, sample_distilled, sample_unipc
from lyra_core.generate.lyra2.speed import SKIP_BELOW, FirstBlockCache, speed_names
from lyra_core.generate.lyra2.vae import State
from lyra_core.types import DepthEstimate, Frame, Photo, Trajectory

WEIGHTS_LICENCE = "NVIDIA Internal Scientific Research and Development Model License (weights), Apache-2.0 (code)"

SKY_DEPTH = 200.0
"""Largest depth given to the sky [m]."""


@dataclass(frozen=True)
class _Stream:
    """Where the video stands: latents of its history and the causal states of the codec."""

    latents: Tensor
    """(C, n, h, w) float32: the first latent, then the newest ones; encoded from decoded frames."""
    encoder: State
    decoder: State


class GeneratorLyra2:
    """Lyra 2.0: a video diffusion model with a packed history and a per-frame 3D cache that only routes."""

    name = "lyra2"
    makes_depth = False
    licence = WEIGHTS_LICENCE

    def __init__(self, *, quality: str = "full", cfg: GenerateCfg | None = None, components: Components | None = None) -> None:
        """Take settings in; weights are loaded by ``prepare`` unless ``components`` are given.

        Raises:
            BackendUnavailable: torch or the weights are missing.
        """
        self._cfg = cfg or GenerateCfg(generator="lyra2")
        self._given = components
        self.weights_id = "given"
        """What identifies the weights in a world's recipe."""
        if components is None:
            check_parts(self._cfg.lyra2)
            self.weights_id = weights_id(self._cfg.lyra2)
        self._photo: Photo | None = None
        self._estimate: DepthEstimate | None = None
        self._first: Frame | None = None
        self._stream: _Stream | None = None
        self._state: dict[str, np.ndarray] = {}
        self._prompt = self._said = ""
        self._cache: FirstBlockCache | None = None
        self._captioner: Captioner | None = None
        self.on_wait: Callable[[str], None] | None = None
        """Called between steps with a line for people; may raise to stop."""

    @staticmethod
    def probe() -> str:
        """Say where the weights are, for ``lyra-worlds doctor``.

        Raises:
            BackendUnavailable, InputError: they are missing or damaged.
        """
        check_parts(Lyra2Cfg())
        return f"weights in {models_folder(Lyra2Cfg())}"

    def prepare(self, photo: Photo, estimate: DepthEstimate, *, seed: int, indoor: bool) -> None:
        """Take the photo in. The prompt of chunks without caption names the kind of place."""
        self._photo, self._estimate, self._stream, self._first = photo, estimate, None, None
        self._prompt = template_prompt(indoor=indoor)

    @property
    def settings(self) -> Lyra2Cfg:
        """Settings of this generator."""
        return self._cfg.lyra2

    @property
    def components(self) -> Components:
        """Network, codec and encoders; loaded when first asked for, after the plan has been printed."""
        if self._given is None:
            size = {} if self._first is None else {"height": self._first.camera.height, "width": self._first.camera.width}
            self._given = load_parts(self.settings, **size)
        return self._given

    @property
    def packing(self) -> Packing:
        """How the network packs its history."""
        return self.components.packing

    def first_frame(self, trajectory: Trajectory) -> Frame:
        """Return the photo at the size of trajectory[0], with the depth that was estimated for it."""
        if self._photo is None or self._estimate is None:
            raise InputError("generator 'lyra2': prepare() was not called; expected a photo and its depth first")
        self._first = photo_frame(self._photo, self._estimate, trajectory)
        return self._first

    def generate(self, request: ChunkRequest) -> list[Frame]:
        """Return one frame per camera, without depth. A chunk depends on the frames before it, the request and the state alone."""
        first = self._first or self.first_frame(request.history[:1])
        self._said = request.prompt or self._caption(request.newest)
        self._stream = self._stream or self._begin(first)
        inputs = self._inputs(request, first, self._stream)
        sampled = self._sample(inputs, request)
        if not torch.isfinite(sampled).all():
            where = f"lyra2: chunk {request.index}"
            raise InputError(f"{where}: got latents that are not finite; lyra-worlds models verify checks the weights")
        frames, self._stream = self._extend(self._stream, sampled)
        latents = self._stream.latents[:, -self.packing.new_length :]
        self._state = {"sampled": sampled.cpu().numpy(), "encoded": latents.cpu().numpy()}
        return with_provenance(frames, first, request.trajectory)

    @property
    def said(self) -> str:
        """The prompt of the last chunk: as given, as captioned, or the template."""
        return self._said

    def _caption(self, newest: Frame) -> str:
        """Return words for a chunk that has none: of the captioner, where one is set, else the template."""
        if not self.settings.captioner:
            return self._prompt
        self._captioner = self._captioner or Captioner(self.settings.captioner, device=self.components.device)
        return self._captioner.caption(newest.rgb)

    def chunk_state(self) -> dict[str, np.ndarray]:
        """Return the last chunk's latents (C, t, h, w) float32: 'sampled' as the decoder had them, 'encoded' as history."""
        return self._state

    def resume(self, chunks: int, state: Callable[[int], dict[str, np.ndarray]], frame: Callable[[int], Frame]) -> None:
        """Go on after stored chunks, to the same bytes as without interruption.

        The codec's states are not stored (they take gigabytes): they reach back a bounded number of latents, so running them over
        the stored latents and frames of the last chunks gives them again, exactly.

        Args:
            chunks: number of chunks that exist.
            state: chunk number -> what ``chunk_state`` returned after it.
            frame: frame id -> frame as stored.
        """
        self._first = frame(0)
        packing, codec = self.packing, self.components.codec
        reach = -(-codec.receptive_latents // packing.new_length)
        start = max(0, chunks - reach)
        begun = self._begin(self._first) if start == 0 else None
        encoder, decoder = (begun.encoder, begun.decoder) if begun else (None, None)
        if begun is None:
            _, encoder = codec.encode(self._pixels([frame(start * packing.chunk_frames)])[None])
        for chunk in range(start, chunks):
            _, decoder = codec.decode(torch.from_numpy(state(chunk)["sampled"])[None].to(self.components.device), decoder)
            ids = range(1 + chunk * packing.chunk_frames, 1 + (chunk + 1) * packing.chunk_frames)
            _, encoder = codec.encode(self._pixels([frame(i) for i in ids])[None], encoder)
        assert encoder is not None and decoder is not None
        latents = self._history_latents(chunks, state, begun or self._begin(self._first))
        self._stream = _Stream(latents, encoder, decoder)

    def _history_latents(self, chunks: int, state: Callable[[int], dict[str, np.ndarray]], begun: _Stream) -> Tensor:
        wanted = len(self.packing.temporal_positions) - 1
        parts: list[Tensor] = []
        for chunk in reversed(range(chunks)):
            if sum(part.shape[1] for part in parts) >= wanted:
                break
            parts.insert(0, torch.from_numpy(state(chunk)["encoded"]).to(begun.latents))
        return self._kept(torch.cat([begun.latents, *parts], 1))

    def _kept(self, latents: Tensor) -> Tensor:
        """Return the latents a later chunk can still see: the first and the newest."""
        count = len(self.packing.temporal_positions) - 1
        return torch.cat([latents[:, :1], latents[:, 1:][:, -max(count, self.packing.new_length) :]], 1)

    def _begin(self, first: Frame) -> _Stream:
        """Start a stream: the first frame repeated until the history is full; decoding it once primes the decoder."""
        repeats = 1 + SUBFRAMES * (self.packing.history_length - 1)
        video = self._pixels([first]).expand(-1, repeats, -1, -1)
        latents, encoder = self.components.codec.encode(video[None])
        _, decoder = self.components.codec.decode(latents)
        return _Stream(latents[0].float(), encoder, decoder)

    def _extend(self, stream: _Stream, sampled: Tensor) -> tuple[np.ndarray, _Stream]:
        """Decode new latents into frames (N, H, W, 3) uint8, and encode those again as the history of the next chunk.

        The frames are rounded to 8 bit first, as they are stored, so that a resumed run encodes the same pixels.
        """
        codec = self.components.codec
        video, decoder = codec.decode(sampled[None], stream.decoder)
        rgb = ((video[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        encoded, encoder = codec.encode((rgb.float() / 127.5 - 1)[None], stream.encoder)
        latents = self._kept(torch.cat([stream.latents, encoded[0].to(stream.latents)], 1))
        return rgb.permute(1, 2, 3, 0).cpu().numpy(), _Stream(latents, encoder, decoder)

    def _pixels(self, frames: list[Frame]) -> Tensor:
        """Return frames as (3, N, H, W) float32 in [-1, 1] on the device."""
        rgb = torch.from_numpy(np.stack([frame.rgb for frame in frames])).to(self.components.device)
        return rgb.permute(3, 0, 1, 2).float() / 127.5 - 1

    def _inputs(self, request: ChunkRequest, first: Frame, stream: _Stream) -> ChunkInputs:
        packing, anchor = self.packing, inverse(first.T_world_camera[None])[0]
        newest = len(request.history) - 1
        past = timeline_frames(packing, newest)
        return assemble(
            packing, self.components.codec, first=self._view(first, anchor), newest=self._view(request.newest, anchor),
            retrieved=[self._view(frame, anchor) for frame in request.retrieved[: packing.spatial_slots]], latents=stream.latents,
            time_cameras=self._cameras(request.history.K[past], request.history.T_world_camera[past], anchor),
            targets=self._cameras(request.trajectory.K, request.trajectory.T_world_camera, anchor),
        )

    def _view(self, frame: Frame, anchor: np.ndarray) -> View:
        depth = torch.from_numpy(sky_filled(frame.depth)).to(self.components.device)
        camera = self._cameras(frame.camera.K[None], frame.T_world_camera[None], anchor)
        return View(self._pixels([frame])[:, 0], depth, camera)

    def _cameras(self, K: np.ndarray, T_world_camera: np.ndarray, anchor: np.ndarray) -> Cameras:
        """Return cameras whose world is the first camera's frame, as the model knows it."""
        T = torch.from_numpy(anchor @ T_world_camera).float()
        return Cameras(torch.from_numpy(K).float(), T).to(self.components.device)

    @torch.no_grad()
    def _sample(self, inputs: ChunkInputs, request: ChunkRequest) -> Tensor:
        """Return the chunk's clean latents (C, t, h, w) float32."""
        parts, settings = self.components, self.settings
        newest = self._pixels([request.newest])[:, 0]
        texts = [parts.encode_text(self._said)]
        if not settings.distilled and settings.guidance != 1:
            texts.append(parts.negative_text(settings.negative_prompt))
        image = parts.encode_image(newest)
        velocity = self._velocity(inputs, texts, image)
        shape = (inputs.history.shape[0], self.packing.new_length, *inputs.history.shape[2:])
        noises = 1 + (DISTILLED_STEPS - 1) * settings.distilled
        # One stream of numbers per chunk; its first tensor is what the reference starts from.
        noise = chunk_noise(request.seed, (noises, *shape)).to(parts.device)
        if settings.distilled:
            return sample_distilled(velocity, noise[0], list(noise[1:]), on_step=self._on_step)
        return sample_unipc(velocity, noise[0], steps=settings.steps, shift=settings.shift, on_step=self._on_step)

    def _velocity(self, inputs: ChunkInputs, texts: list[Tensor], image: Tensor) -> Velocity:
        """Return the chunk's velocity, with the approximations that the settings name."""
        parts, names = self.components, speed_names(self.settings.speed)
        if parts.make_velocity is not None:
            return parts.make_velocity(inputs, texts, image, guidance=self.settings.guidance)
        on_pass = None
        if "cache" in names:
            self._cache = self._cache or FirstBlockCache(parts.network)
            self._cache.reset()
            on_pass = self._cache.use
        skip = SKIP_BELOW if "skip_guidance" in names else 0.0
        return guided_velocity(parts.network, inputs, texts, image, guidance=self.settings.guidance, skip=skip, on_pass=on_pass)

    def _on_step(self, step: int, state: Tensor) -> None:
        """Show life, and let a stopped job end here."""
        total = DISTILLED_STEPS if self.settings.distilled else self.settings.steps
        if self.on_wait is not None:
            self.on_wait(f"step {step + 1} of {total}")


def sky_filled(depth: np.ndarray) -> np.ndarray:
    """Return depth (H, W) [m] with what is unknown at min(99 % quantile of the known, 200 m), where Depth Anything 3 puts the sky.

    Otherwise the sky would be a hole in every warp. Without any known depth all of it is 200 m away.
    """
    known = depth[np.isfinite(depth) & (depth > 0)]
    far = min(float(np.quantile(known, 0.99)), SKY_DEPTH) if known.size else SKY_DEPTH
    return np.where(np.isfinite(depth), depth, np.float32(far)).astype(np.float32)
