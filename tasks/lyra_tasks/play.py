"""Record an agent in a world: its view beside the map."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import cv2
import gymnasium as gym
import numpy as np

import lyra_tasks
from lyra_core.io.video import write_video
from lyra_core.world import World
from lyra_tasks.agents import make_agent
from lyra_tasks.envs.pointnav import PointNavEnv, open_world
from lyra_tasks.evaluate import run_episode


def play(
    world: World | Path | str, out: Path, *, agent: str = "oracle", episode_id: str | None = None,
    env_id: str = lyra_tasks.ENV_IDS[0], fps: float = 10.0, size: int = 360, seed: int = 0,
) -> dict[str, Any]:
    """Write a video of one episode and return its metrics.

    Args:
        world: folder or World.
        out: .mp4 to write.
        agent: 'oracle', 'forward' or 'random'.
        episode_id: None takes the longest.
        env_id: a registered id.
        fps: frames per second; one frame per step.
        size: height of the picture [px].
        seed: of the agent.
    """
    env = gym.make(env_id, world=open_world(world), render_mode="rgb_array", render_size=size)
    inner = cast(PointNavEnv, env.unwrapped)
    frames: list[np.ndarray] = []

    def record() -> None:
        frames.append(_captioned(np.asarray(env.render()), inner))

    try:
        name = episode_id or max(inner.episodes.values(), key=lambda e: e.geodesic_distance).episode_id
        metrics = run_episode(env, make_agent(agent, inner, seed=seed), name, on_step=record)
    finally:
        env.close()
    write_video(Path(out), frames, fps=fps)
    return {**metrics, "agent": agent, "frames": len(frames)}


def _captioned(picture: np.ndarray, env: Any) -> np.ndarray:
    """Return a copy with the distance to the goal and the collisions written below the robot's view."""
    picture = picture.copy()
    text = f"goal {env.distance:5.2f} m   path {env.path_length:5.2f} m   contacts {env.collisions}"
    picture[-24:, : picture.shape[1] // 2] //= 3
    cv2.putText(picture, text, (8, picture.shape[0] - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return picture
