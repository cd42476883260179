"""Worlds as Gymnasium environments. Importing this package registers its ids; nothing heavy is loaded."""

from gymnasium.envs.registration import register

MAX_STEPS = 500
"""Habitat's limit of a point-goal episode."""

register("LyraWorlds/PointNav-v0", entry_point="lyra_tasks.envs.pointnav:PointNavEnv", max_episode_steps=MAX_STEPS,
         kwargs={"control": "discrete"})
register("LyraWorlds/PointNavContinuous-v0", entry_point="lyra_tasks.envs.pointnav:PointNavEnv", max_episode_steps=MAX_STEPS,
         kwargs={"control": "velocity"})

ENV_IDS = ("LyraWorlds/PointNav-v0", "LyraWorlds/PointNavContinuous-v0")
"""Every registered id."""
