"""Score an agent over episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np

import lyra_tasks
from lyra_core.errors import InputError
from lyra_core.world import World
from lyra_tasks.agents import make_agent
from lyra_tasks.envs.pointnav import PointNavEnv, open_world


def evaluate_agent(
    world: World | Path | str, agent_name: str, episodes: int | list[str] | None = None, *,
    env_id: str = lyra_tasks.ENV_IDS[0], seed: int = 0, max_steps: int = lyra_tasks.MAX_STEPS, **env_kwargs: Any,
) -> dict[str, Any]:
    """Run a baseline over a world's episodes, each once and in their order.

    Args:
        world: folder or World.
        agent_name: 'random', 'forward' or 'oracle'.
        episodes: the first n, a list of ids, or None for all.
        env_id: a registered id.
        seed: of the agent.
        max_steps: truncation.
        env_kwargs: further arguments of the environment.

    Returns:
        success_rate, spl, soft_spl, distance_to_goal [m], path_length [m], steps, collisions (means); episodes (count);
        failures (ids); per_episode (list of dicts).
    """
    rows = []
    env = gym.make(env_id, world=open_world(world), max_episode_steps=max_steps, **env_kwargs)
    try:
        agent = make_agent(agent_name, cast(PointNavEnv, env.unwrapped), seed=seed)
        for name in _names(list(env.unwrapped.episodes), episodes):
            rows.append(run_episode(env, agent, name))
    finally:
        env.close()
    keys = ("success", "spl", "soft_spl", "distance_to_goal", "path_length", "steps", "collisions")
    means = {key: float(np.mean([row[key] for row in rows])) for key in keys}
    means["success_rate"] = means.pop("success")
    return {**means, "agent": agent_name, "env_id": env_id, "episodes": len(rows),
            "failures": [row["episode_id"] for row in rows if not row["success"]], "per_episode": rows}


def run_episode(env: gym.Env[Any, Any], agent: Any, episode_id: str, *, on_step: Any = None) -> dict[str, Any]:
    """Run one episode to its end and return its metrics; ``on_step()`` is called after reset and after every step."""
    observation, info = env.reset(options={"episode_id": episode_id})
    agent.reset()
    total, steps, done = 0.0, 0, False
    if on_step:
        on_step()
    while not done:
        observation, reward, terminated, truncated, info = env.step(agent.act(observation))
        total, steps, done = total + float(reward), steps + 1, terminated or truncated
        if on_step:
            on_step()
    keep = ("episode_id", "success", "spl", "soft_spl", "distance_to_goal", "geodesic_distance", "path_length")
    return {**{key: info[key] for key in keep}, "collisions": info["collisions"]["count"], "steps": steps, "reward": total}


def _names(known: list[str], wanted: int | list[str] | None) -> list[str]:
    if wanted is None:
        return known
    if isinstance(wanted, int):
        if not 0 < wanted <= len(known):
            raise InputError(f"episodes: got {wanted}, expected 1..{len(known)} (the world's file)")
        return known[:wanted]
    if not wanted:
        raise InputError("episodes: got an empty list, expected at least one id")
    return wanted
