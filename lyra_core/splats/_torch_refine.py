"""Gradient descent on all numbers of a cloud (see ``splats.refine``); importing this file needs torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lyra_core.splats._torch_render import render
from lyra_core.types import Frame, GaussianCloud

SH_C0 = 0.28209479177387814
SSIM_SHARE = 0.2
"""Of the loss, beside L1 (Kerbl et al. 2023)."""
RATES = {"means": 1.6e-4, "log_scales": 5e-3, "quats": 1e-3, "logits": 2e-2, "rgb": 5e-3}
"""Adam's steps; that of the means is in units of the scene's size."""


class Descent:
    """A cloud as parameters and frames as targets on one device."""

    def __init__(self, cloud: GaussianCloud, frames: Sequence[Frame], *, device: torch.device, renderer: str) -> None:
        self.device, self.renderer = device, renderer
        opacity = np.clip(cloud.opacities, 1e-4, 1 - 1e-4)
        start = {"means": cloud.means, "log_scales": np.log(cloud.scales), "quats": cloud.quats_wxyz,
                 "logits": np.log(opacity / (1 - opacity)), "rgb": 0.5 + SH_C0 * cloud.sh[:, 0]}
        self.values = {name: torch.tensor(value, dtype=torch.float32, device=device).requires_grad_()
                       for name, value in start.items()}
        self.targets = [torch.tensor(frame.rgb / 255, dtype=torch.float32, device=device) for frame in frames]
        self.masks = [torch.tensor(np.isfinite(frame.depth), device=device)[..., None] for frame in frames]
        self.cameras = [(torch.tensor(frame.camera.K, dtype=torch.float32, device=device),
                         torch.tensor(frame.T_world_camera, dtype=torch.float32, device=device),
                         frame.camera.width, frame.camera.height) for frame in frames]

    def run(self, order: Sequence[int], *, size: float) -> list[float]:
        """Take one step per frame of the order; size: of the scene [m]. Return the losses."""
        groups = [{"params": [value], "lr": RATES[name] * (size if name == "means" else 1)} for name, value in self.values.items()]
        adam = torch.optim.Adam(groups, eps=1e-15)
        losses = []
        for i in order:
            adam.zero_grad(set_to_none=True)
            loss = self.loss(i)
            loss.backward()
            adam.step()
            losses.append(float(loss.detach()))
        return losses

    def loss(self, i: int) -> Tensor:
        """Return L1 and SSIM between the rendering and frame i, over pixels of known depth."""
        mask = self.masks[i]
        drawn, target = self._draw(i) * mask, self.targets[i] * mask
        l1 = (drawn - target).abs().sum() / (3 * mask.sum().clamp(min=1))
        return (1 - SSIM_SHARE) * l1 + SSIM_SHARE * (1 - ssim(drawn, target))

    @torch.no_grad()
    def psnr(self, rows: Sequence[int]) -> float:
        """Return PSNR over all pixels of known depth of some frames [dB]."""
        total, count = 0.0, 0
        for i in rows:
            gap = (self._draw(i).clamp(0, 1) - self.targets[i]) * self.masks[i]
            total, count = total + float((gap.double() ** 2).sum()), count + 3 * int(self.masks[i].sum())
        return float(-10 * np.log10(max(total / max(count, 1), 1e-10)))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return means, unit quats_wxyz, scales, opacities and rgb."""
        v = {name: value.detach() for name, value in self.values.items()}
        out = {"means": v["means"], "quats_wxyz": torch.nn.functional.normalize(v["quats"], dim=1), "scales": v["log_scales"].exp(),
               "opacities": v["logits"].sigmoid(), "rgb": v["rgb"]}
        return {name: value.cpu().numpy().astype(np.float32) for name, value in out.items()}

    def _draw(self, i: int) -> Tensor:
        K, T, width, height = self.cameras[i]
        v = self.values
        return render(v["means"], torch.nn.functional.normalize(v["quats"], dim=1), v["log_scales"].exp(), v["logits"].sigmoid(),
                      v["rgb"], K=K, T_world_camera=T, width=width, height=height, renderer=self.renderer).rgb


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean structural similarity of pictures (H, W, 3) in [0, 1], where its window of 11 fits (Wang et al. 2004)."""
    x = torch.arange(11, dtype=a.dtype, device=a.device) - 5
    line = torch.exp(-(x**2) / (2 * 1.5**2))
    window = (line[:, None] * line / line.sum() ** 2).expand(3, 1, 11, 11)

    def mean(value: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(value.permute(2, 0, 1)[None], window, groups=3)

    ma, mb = mean(a), mean(b)
    aa, bb, ab = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    return (((2 * ma * mb + 1e-4) * (2 * ab + 9e-4)) / ((ma**2 + mb**2 + 1e-4) * (aa + bb + 9e-4))).mean()
