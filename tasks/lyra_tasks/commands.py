"""The verbs of the command line that tasks own. The functions' arguments are the options; tyro reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional


def play(
    world: Positional[Path], *, output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None,
    agent: Literal["oracle", "forward", "random"] = "oracle", episode: Annotated[str | None, tyro.conf.arg(metavar="ID")] = None,
    seed: int = 0, as_json: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(name="json")] = False,
) -> None:
    """Let an agent walk one episode and film it: its view beside the map.

    Args:
        world: World folder.
        output: Video to write; default play.mp4 in the world.
        agent: Who walks; the oracle follows the shortest path.
        episode: Episode of the world's episodes.json.gz; default the longest.
        seed: Of the agent.
        as_json: Print the metrics as JSON.
    """
    from lyra_tasks.play import play as record

    path = output or world / "play.mp4"
    metrics = record(world, path, agent=agent, episode_id=episode, seed=seed)
    if as_json:
        print(json.dumps({**metrics, "video": str(path)}))
        return
    print(f"{path}: {agent} on episode {metrics['episode_id']}, {metrics['geodesic_distance']:.1f} m away: "
          f"{'arrived' if metrics['success'] else 'did not arrive'} after {metrics['steps']} steps, SPL {metrics['spl']:.2f}, "
          f"{metrics['collisions']} contacts")
