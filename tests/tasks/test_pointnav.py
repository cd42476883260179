"""The environments: Gymnasium's contract, determinism, rewards by hand, oracle and baselines, the video."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import lyra_tasks
from lyra_core.errors import ConfigError, InputError, WorldError
from lyra_core.navigation import load_episodes, save_episodes
from lyra_core.types import Episode, Label
from lyra_tasks.agents import make_agent
from lyra_tasks.evaluate import evaluate_agent
from lyra_tasks.play import play
from tests.tasks.worlds import box, build_world, floor, room_walls, two_rooms

DISCRETE, CONTINUOUS = lyra_tasks.ENV_IDS


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_world(tmp_path_factory.mktemp("worlds") / "two_rooms")


@pytest.mark.parametrize("env_id", lyra_tasks.ENV_IDS)
def test_check_env_is_silent(world, env_id):
    env = gym.make(env_id, world=str(world))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
    env.close()


def test_world_comes_from_the_argument_or_the_environment_variable(world, monkeypatch):
    monkeypatch.delenv("LYRA_WORLD", raising=False)
    with pytest.raises(ConfigError, match="LYRA_WORLD"):
        gym.make(DISCRETE)
    monkeypatch.setenv("LYRA_WORLD", str(world))
    assert gym.make(DISCRETE).reset(seed=0)[1]["world_id"] == "two_rooms"
    with pytest.raises(WorldError, match=r"world\.json"):
        gym.make(DISCRETE, world=world.parent)


def test_an_unfinished_world_and_an_impossible_camera_are_refused_by_name(world, tmp_path):
    (tmp_path / "world.json").write_text('{"status": "building"}')
    with pytest.raises(WorldError, match="not finished"):
        gym.make("LyraWorlds/PointNav-v0", world=tmp_path)
    for wrong in ({"image_size": 0}, {"hfov_degrees": 180}, {"max_depth": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            gym.make("LyraWorlds/PointNav-v0", world=world, **wrong)


def test_the_id_can_name_the_package(world):
    code = f"import gymnasium; gymnasium.make('lyra_tasks:LyraWorlds/PointNav-v0', world={str(world)!r}).reset(seed=0)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=environment)


def test_import_is_light():
    code = "import sys, lyra_tasks; print([m for m in ('torch', 'pxr', 'cv2', 'embreex', 'warp', 'imageio') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                         env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("env_id", lyra_tasks.ENV_IDS)
def test_same_seed_same_rollout(world, env_id):
    def rollout(seed):
        env = gym.make(env_id, world=world)
        env.action_space.seed(seed)
        out = []
        for reset_seed in (seed, None, None):
            observation, info = env.reset(seed=reset_seed)
            out += [info["episode_id"], observation["rgb"].tobytes(), observation["depth"].tobytes()]
            for _ in range(15):
                observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
                out += [reward, observation["depth"].tobytes(), observation["pointgoal"].tobytes()]
                if terminated or truncated:
                    break
        return out

    assert rollout(3) == rollout(3) != rollout(4)


def test_steps_do_not_change_which_episodes_are_drawn(world):
    def drawn(steps):
        env = gym.make(DISCRETE, world=world)
        names = []
        for i in range(6):
            names.append(env.reset(seed=5 if i == 0 else None)[1]["episode_id"])
            for _ in range(steps):
                env.step(2)
        return names

    assert drawn(0) == drawn(7)
    assert len(set(drawn(0))) > 1


def straight_world(folder, *, start=(0.0, 0.0), yaw=0.0, goal=(2.0, 0.0), geodesic=2.0):
    """A room 8 m x 4 m with one episode."""
    build_world(folder, [floor(-2, 6, -2, 2), *room_walls(-2, 6, -2, 2, 2.5)], episodes=1)
    save_episodes(folder / "episodes.json.gz", [Episode("e", np.array([*start, 0.0]), yaw, np.array([*goal, 0.0]), geodesic, 0.3)])
    return folder


def test_rewards_metrics_and_goal_by_hand(tmp_path):
    env = gym.make(DISCRETE, world=straight_world(tmp_path / "w"))
    observation, info = env.reset()
    np.testing.assert_allclose(observation["pointgoal"], [2.0, 0.0], atol=1e-6)
    total = 0.0
    for _ in range(8):
        observation, reward, terminated, _, info = env.step(1)
        total += reward
        assert not terminated
    np.testing.assert_allclose(observation["pointgoal"][0], 0.0, atol=1e-5)
    observation, reward, terminated, truncated, info = env.step(0)
    total += reward
    assert terminated and not truncated and info["success"]
    assert info["spl"] == pytest.approx(1.0) and info["soft_spl"] == pytest.approx(1.0)
    # 2 m closer, nine steps of slack, one success.
    assert total == pytest.approx(2.0 - 0.09 + 2.5, abs=0.06)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(1)
    env.reset()
    _, _, terminated, _, info = env.step(0)
    assert terminated and not info["success"] and info["spl"] == 0.0
    env.reset()
    observation, *_ = env.step(2)
    np.testing.assert_allclose(observation["pointgoal"], [2.0, -np.radians(10)], atol=1e-6)


def test_depth_is_the_distance_of_the_wall_and_the_goal_is_left_when_positive(tmp_path):
    env = gym.make(DISCRETE, world=straight_world(tmp_path / "w", yaw=np.pi / 2, goal=(-1.0, 0.5)))
    observation, _ = env.reset()
    # Looking along +y from the origin: the wall at y = 2 is 2 m away in z-depth wherever it fills the picture.
    np.testing.assert_allclose(observation["depth"][28:36, 8:56, 0], 0.2, atol=1e-4)
    assert observation["pointgoal"][1] == pytest.approx(np.arctan2(0.5, -1.0) - np.pi / 2, abs=1e-6)
    assert observation["pointgoal"][1] > 0


def test_collisions_are_counted_and_sliding_is_an_option(tmp_path):
    folder = straight_world(tmp_path / "w", start=(-1.0, -1.5), yaw=-np.pi / 4)
    places = {}
    for sliding in (False, True):
        env = gym.make(DISCRETE, world=folder, sliding=sliding)
        env.reset()
        for _ in range(6):
            info = env.step(1)[4]
        places[sliding] = info["position"]
        assert info["collisions"]["count"] >= 4 and info["collisions"]["is_collision"]
    assert places[False][0] < -0.7 < 0.0 < places[True][0] + 0.1


def test_episode_option_and_truncation(world):
    env = gym.make(DISCRETE, world=world, max_episode_steps=3)
    assert env.reset(options={"episode_id": "4"})[1]["episode_id"] == "4"
    assert [env.step(2)[3] for _ in range(3)] == [False, False, True]
    for options, match in (({"episode_id": "zz"}, "zz"), ({"colour": 1}, "colour")):
        with pytest.raises(InputError, match=match):
            env.reset(options=options)
    assert gym.make(DISCRETE, world=world).spec.max_episode_steps == 500


def test_an_episode_inside_the_crate_is_refused(world, tmp_path):
    bad = tmp_path / "bad.json.gz"
    save_episodes(bad, [Episode("x", np.array([2.0, 0.8, 0.0]), 0.0, np.zeros(3), 1.0, 0.3)])
    env = gym.make(DISCRETE, world=world, episodes=bad)
    with pytest.raises(InputError, match=r"episode x.*fits"):
        env.reset()


@pytest.mark.parametrize("env_id", lyra_tasks.ENV_IDS)
def test_oracle_always_arrives(world, env_id):
    result = evaluate_agent(world, "oracle", env_id=env_id)
    assert result["failures"] == [] and result["success_rate"] == 1.0
    assert result["spl"] > 0.95 and result["episodes"] == 20


def test_oracle_arrives_through_a_slalom_with_narrow_doors(tmp_path):
    parts = [floor(-2, 10, -3, 3), *room_walls(-2, 10, -3, 3, 2.5)]
    for i, (x, gap) in enumerate([(1, -2.0), (3, 2.0), (5, -1.3), (7, 1.1)]):
        parts += [box(f"a{i}", Label.WALL, (x, -3, 0), (x + 0.1, gap - 0.365, 2.5)),
                  box(f"b{i}", Label.WALL, (x, gap + 0.365, 0), (x + 0.1, 3, 2.5))]
    folder = build_world(tmp_path / "slalom", parts, episodes=5, min_distance=10.0)
    assert min(e.geodesic_distance for e in load_episodes(folder / "episodes.json.gz")) >= 10
    for env_id in lyra_tasks.ENV_IDS:
        result = evaluate_agent(folder, "oracle", env_id=env_id, image_size=8)
        assert result["failures"] == [] and result["spl"] > 0.9


def test_blind_baselines_rarely_arrive(world):
    for env_id, name in ((DISCRETE, "random"), (DISCRETE, "forward"), (CONTINUOUS, "random")):
        result = evaluate_agent(world, name, 8, env_id=env_id, max_steps=150, image_size=8)
        assert result["success_rate"] <= 0.25 and result["collisions"] > 1


def test_without_the_wall_the_straight_agent_arrives_so_the_wall_is_what_stops_it(tmp_path):
    parts = [p for p in two_rooms() if p.name not in ("divider_left", "divider_right")]
    for name, kept in (("open", parts), ("closed", two_rooms())):
        folder = build_world(tmp_path / name, kept, episodes=1)
        save_episodes(folder / "episodes.json.gz", [Episode("e", np.array([3.0, -2, 0]), 0.0, np.array([6.0, -2, 0]), 3.0, 0.3)])
        assert evaluate_agent(folder, "forward", max_steps=20)["success_rate"] == (1.0 if name == "open" else 0.0)


def test_unknown_names_list_the_known(world):
    env = gym.make(DISCRETE, world=world)
    with pytest.raises(ConfigError, match="oracle"):
        make_agent("psychic", env.unwrapped)
    with pytest.raises(ConfigError, match="discrete"):
        gym.make(DISCRETE, world=world, control="legs")
    with pytest.raises(InputError, match=r"1\.\.20"):
        evaluate_agent(world, "oracle", 21)


def test_render_shows_view_and_map(world):
    env = gym.make(DISCRETE, world=world, render_mode="rgb_array", render_size=120)
    env.reset(seed=0)
    before = env.render()
    assert before.shape == (120, 240, 3) and before.dtype == np.uint8
    env.step(1)
    env.step(2)
    after = env.render()
    assert (before[:, :120] != after[:, :120]).mean() > 0.1 and (before[:, 120:] != after[:, 120:]).any()


def test_play_writes_a_video(world, tmp_path):
    import imageio.v3 as iio

    result = play(world, tmp_path / "oracle.mp4", size=120, episode_id="3")
    assert result["success"] and result["frames"] == result["steps"] + 1
    assert iio.imread(tmp_path / "oracle.mp4").shape == (result["frames"], 120, 240, 3)


def test_example_runs(world):
    script = Path(__file__).resolve().parents[2] / "tasks" / "examples" / "01_first_steps.py"
    out = subprocess.run([sys.executable, script, world], capture_output=True, text=True, check=True,
                         env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert "success True" in out.stdout
