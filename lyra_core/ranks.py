"""The command line on several GPUs: ``torchrun --nproc-per-node 2 -m lyra_core.ranks create PHOTO -o WORLD --generator lyra2``."""

from __future__ import annotations

import os
import sys

from lyra_core.cli import main as command_line

COMMAND = "torchrun --nproc-per-node 2 -m lyra_core.ranks create PHOTO -o WORLD --generator lyra2"


def main() -> int:
    """Run the command line on rank 0; the other ranks compute their share of what the Lyra 2 generator asks for."""
    if "RANK" not in os.environ:
        print(f"lyra_core.ranks: not started by torchrun; expected {COMMAND}", file=sys.stderr)
        return 2
    from lyra_core.generate.lyra2.parallel import run

    return run(lambda: command_line(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
