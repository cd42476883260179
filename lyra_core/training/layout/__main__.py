"""Train the layout prior: ``python -m lyra_core.training.layout --output DIR [--steps N] [--views N] [--resume]``."""

from __future__ import annotations

import sys
from pathlib import Path

from lyra_core.errors import LyraError
from lyra_core.jobs.progress import ProgressRich


def main(output: Path, *, steps: int = 8000, views: int = 6000, batch: int = 12, seed: int = 0, device: str = "cpu",
         start: Path | None = None, resume: bool = False) -> None:
    """Render the views that are missing, then train.

    Args:
        output: Folder of the run: its views, its state and in the end layout.safetensors.
        steps: Steps of the whole run.
        views: Views of the seeded scenes to learn from.
        batch: Examples per step.
        seed: Of views and steps.
        device: That renders the views: cpu or cuda.
        start: Weights to begin with, such as lyra_core/photo/data/layout.safetensors; none: random ones.
        resume: Go on with the run in the folder.
    """
    from lyra_core.training.layout.train import WEIGHTS, LayoutCfg, LayoutTrainer
    from lyra_core.training.layout.views import load_views

    progress = ProgressRich()
    found = load_views(output / "views", views, seed=seed, device=device, progress=progress)
    trainer = LayoutTrainer(LayoutCfg(steps=steps, batch=batch, views=views, seed=seed), found, output, resume=resume,
                            start=start)
    losses = trainer.run(progress)
    print(f"{output / WEIGHTS}: " + ", ".join(f"{name} {value:.3f}" for name, value in losses.items()))


if __name__ == "__main__":
    import tyro

    try:
        tyro.cli(main, prog="python -m lyra_core.training.layout")
    except LyraError as error:
        print(f"layout training: {error}", file=sys.stderr)
        sys.exit(2)
