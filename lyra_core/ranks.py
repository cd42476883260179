"""The command line on several GPUs: ``torchrun --nproc-per-node 2 -m lyra_core.ranks create PHOTO -o WORLD --generator lyra2``."""

from __future__ import annotations

import sys

from lyra_core.cli import main as command_line


def main() -> int:
    """Run the command line on rank 0; the other ranks compute their share of what the Lyra 2 generator asks for."""
    from lyra_core.generate.lyra2.parallel import run

    return run(lambda: command_line(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
