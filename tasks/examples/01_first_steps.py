"""Open a world, let the oracle drive one episode, print the score.

    python tasks/examples/01_first_steps.py path/to/world [video.mp4]
"""

from __future__ import annotations

import sys
from pathlib import Path

import gymnasium as gym

import lyra_tasks  # noqa: F401 (registers the ids)
from lyra_tasks.agents import make_agent
from lyra_tasks.play import play


def main(world: str, video: str | None = None) -> None:
    """Drive one episode with the oracle; with a second argument also record it."""
    env = gym.make("LyraWorlds/PointNav-v0", world=world)
    observation, info = env.reset(seed=0)
    distance, bearing = observation["pointgoal"]
    print(f"episode {info['episode_id']}: goal {distance:.1f} m away, bearing {bearing:+.2f} rad")

    agent = make_agent("oracle", env.unwrapped)
    agent.reset()
    total, done = 0.0, False
    while not done:
        observation, reward, terminated, truncated, info = env.step(agent.act(observation))
        total, done = total + float(reward), terminated or truncated
    print(f"success {info['success']}, SPL {info['spl']:.3f}, reward {total:.2f}, contacts {info['collisions']['count']}")
    env.close()

    if video is not None:
        metrics = play(world, Path(video), episode_id=info["episode_id"])
        print(f"{video}: {metrics['frames']} frames")


if __name__ == "__main__":
    main(*sys.argv[1:])
