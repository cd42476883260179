"""Train the video model: ``python -m lyra_core.training CONFIG.yaml [--output DIR] [--resume]``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from tyro.conf import Positional

from lyra_core.errors import LyraError


def main(config: Positional[Path], *, output: str | None = None, resume: bool = False) -> None:
    """Train the video model. On several GPUs: accelerate launch (or torchrun) -m lyra_core.training ...

    Args:
        config: YAML file with what differs from the defaults; see configs/train.
        output: Folder of the run, in place of the file's.
        resume: Go on from the folder's last checkpoint, if it has one.
    """
    from lyra_core.training.settings import load_train_config
    from lyra_core.training.trainer import Trainer

    cfg = load_train_config(config)
    trainer = Trainer(replace(cfg, output=output) if output else cfg)
    summary = trainer.run(resume=resume)
    if trainer.accelerator.is_main_process:
        end = "finished" if summary["done"] else "stopped; --resume goes on"
        print(f"{trainer.folder}: step {summary['step']}, {end}")


if __name__ == "__main__":
    import tyro

    try:
        tyro.cli(main, prog="python -m lyra_core.training")
    except LyraError as error:
        print(f"training: {error}", file=sys.stderr)
        sys.exit(2)
