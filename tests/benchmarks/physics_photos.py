"""Physics from the written stage itself: drop, drive and follow in Newton, drop and drive in PhysX, and shortcuts that must fail.

Run from the repository's root on finished worlds (``python -m tests.benchmarks.photos ... --out DIR`` makes them)::

    LYRA_PHYSX_PYTHON=.venv-physx/bin/python python -m tests.benchmarks.physics_photos DIR/p01_living_room DIR/p08_street_lund
    python -m tests.benchmarks.physics_photos DIR/p01_living_room --quick --engines newton

Per world and engine: bodies dropped on free cells must stay on the floor; a body of 0.3 m driven at obstacles and walls must stay
out of them; in Newton a robot on two wheels must arrive along paths that the oracle took. The first world is judged again without
its floor, its obstacles and its walls, and by a planner that drives straight through everything: these controls must fail.
An engine that is not installed is skipped with the reason. Exit status 1: a world failed, or a control passed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import lyra_tasks
from lyra_core.errors import BackendUnavailable
from lyra_core.io.meshes import merge_parts
from lyra_core.navigation import home_island, load_episodes
from lyra_core.physics.base import make_physics_engine
from lyra_core.rays import make_ray_tracer
from lyra_core.types import CollisionPart, FreeSpace, Label
from lyra_core.usd.colliders import collider_meshes
from lyra_core.world import World
from lyra_tasks.agents import make_agent
from lyra_tasks.evaluate import run_episode
from tests.benchmarks.tables import number, table

RADIUS, BALL = 0.3, 0.1
"""Of the driven body and of the dropped ones [m]."""
HEIGHTS = (0.15, 0.5, 0.95)
"""Where the driven body, one metre tall, is checked against the colliders [m]."""
PENETRATION = 0.05
"""The body's surface may enter a collider by at most this: a cell of the map [m]."""
TOUCH = 0.03
"""A body this near its obstacle reached it [m]."""
CONTROLS = {"no floor": (Label.FLOOR,), "no obstacles": (Label.OBSTACLE,), "no walls": (Label.WALL, Label.DOOR)}
"""Parts taken out of the stage."""


def drop_points(space: FreeSpace, rng: np.random.Generator, count: int) -> np.ndarray:
    """Return centres (count, 3) [m] of balls just above free cells of the reachable region, also close to obstacles."""
    cells = np.argwhere(home_island(space, BALL + 0.05))
    return np.column_stack([_centres(space, cells[rng.integers(len(cells), size=count)]), np.full(count, 3 * BALL)])


def drive_lines(
    space: FreeSpace, parts: list[CollisionPart], rng: np.random.Generator, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return starts and targets (N, 2) [m]: straight lines that run one metre into obstacles (up to half of them) and walls."""
    cells = np.argwhere(home_island(space, RADIUS + 0.05))
    starts = _centres(space, cells[rng.integers(len(cells), size=20 * count)])
    angle = rng.uniform(0, 2 * np.pi, len(starts))
    way = np.column_stack([np.cos(angle), np.sin(angle)])
    origins = np.column_stack([starts, rng.uniform(HEIGHTS[0], HEIGHTS[-1], len(starts))]).astype(np.float32)
    hits = make_ray_tracer(*merge_parts(parts)).cast(origins, np.column_stack([way, np.zeros(len(way))]).astype(np.float32))
    label = np.repeat([part.label for part in parts], [len(part.faces) for part in parts])[np.maximum(hits.face, 0)]
    near = (hits.face >= 0) & (hits.t > 0.5) & (hits.t < 3.0)
    at_obstacles = np.flatnonzero(near & (label == Label.OBSTACLE))[: count // 2]
    at_walls = np.flatnonzero(near & (label != Label.OBSTACLE))[: count - len(at_obstacles)]
    chosen = np.concatenate([at_obstacles, at_walls])
    return starts[chosen], (starts + way * (hits.t[:, None] + 1.0))[chosen]


def _centres(space: FreeSpace, cells: np.ndarray) -> np.ndarray:
    return space.origin + (cells[:, ::-1] + 0.5) * space.cell


def intrusion(parts: list[CollisionPart], path: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Judge body centres (T, N, 3) against the colliders, by rays and not by the engine's own contacts.

    Returns:
        deepest (N,): how far the body's surface entered a collider [m]; touched (N,) bool: it came within TOUCH of one;
        crossed (N,) bool: its centre passed through a surface.
    """
    tracer = make_ray_tracer(*merge_parts(parts))
    angle = np.arange(72) * (2 * np.pi / 72)
    around = np.column_stack([np.cos(angle), np.sin(angle), np.zeros(72)]).astype(np.float32)
    steps, bodies = path.shape[:2]
    nearest, crossed = np.full((steps, bodies), np.inf), np.zeros(bodies, bool)
    for height in HEIGHTS:
        centres = np.concatenate([path[..., :2], np.full((steps, bodies, 1), height)], -1).astype(np.float32)
        hits = tracer.cast(np.repeat(centres.reshape(-1, 3), 72, 0), np.tile(around, (steps * bodies, 1)))
        nearest = np.minimum(nearest, hits.t.reshape(steps, bodies, 72).min(-1))
        move = np.diff(centres, axis=0)
        passed = tracer.cast(centres[:-1].reshape(-1, 3), move.reshape(-1, 3)).t.reshape(steps - 1, bodies) <= 1.0
        crossed |= (passed & (np.linalg.norm(move, axis=-1) > 1e-6)).any(0)
    closest = nearest.min(0)
    return np.maximum(0.0, RADIUS - closest), closest < RADIUS + TOUCH, crossed


def oracle_paths(world: World, count: int) -> list[np.ndarray]:
    """Return the polylines (M, 2) that the oracle walked in the continuous environment, one per episode it solved."""
    env = gym.make(lyra_tasks.ENV_IDS[1], world=world, image_size=8)
    agent, paths = make_agent("oracle", env.unwrapped), []
    for name in list(env.unwrapped.episodes)[:count]:
        if run_episode(env, agent, name)["success"]:
            track = np.array(env.unwrapped.track)
            paths.append(track[np.concatenate([[True], np.linalg.norm(np.diff(track, axis=0), axis=1) > 1e-6])])
    env.close()
    return paths


def straight_paths(world: World, count: int) -> list[np.ndarray]:
    """Return start and goal of the episodes whose geodesic is no straight line: what a planner without a map would drive."""
    episodes = load_episodes(world.folder / "episodes.json.gz")
    bent = [e for e in episodes if e.geodesic_distance > 1.1 * np.linalg.norm(e.goal - e.start)]
    return [np.stack([e.start[:2], e.goal[:2]]) for e in bent[:count]]


def stage_without(world: World, labels: tuple[Label, ...], folder: Path) -> Path:
    """Write a layer over the world's stage in which the colliders of these labels are inactive."""
    names = [path.rsplit("/", 1)[1] for path, part, _ in collider_meshes(world.collision_parts) if part.label in labels]
    overs = "\n".join(f'        over "{name}" (active = false)\n        {{\n        }}' for name in names)
    stage = folder / "without.usda"
    stage.write_text(
        f'#usda 1.0\n(\n    defaultPrim = "World"\n    upAxis = "Z"\n    metersPerUnit = 1\n    kilogramsPerUnit = 1\n'
        f'    subLayers = [@{(world.folder.resolve() / "world.usda").as_posix()}@]\n)\n'
        f'over "World"\n{{\n    over "Colliders"\n    {{\n{overs}\n    }}\n}}\n', encoding="utf-8")
    return stage


def judge(world: World, engine_name: str, args: argparse.Namespace, *, stage: Path | None = None, what: str = "",
          paths: list[np.ndarray] | None = None) -> dict[str, Any]:
    """Return one row: a world's stage in one engine. ``paths`` None: no robot follows."""
    engine, rng, start = make_physics_engine(engine_name), np.random.default_rng(0), time.perf_counter()
    stage, space, parts = stage or world.folder / "world.usda", world.free_space, world.collision_parts
    dropped = engine.drop(stage, drop_points(space, rng, args.bodies), radius=BALL)
    fell = dropped.fell_through()
    height = np.abs(dropped.rest_positions[~fell, 2] - BALL)
    starts, targets = drive_lines(space, parts, rng, args.drivers)
    driven = engine.drive(stage, starts, targets, radius=RADIUS, seconds=args.seconds)
    deepest, touched, crossed = intrusion(parts, driven.path[::3])
    out = crossed | (deepest > PENETRATION)
    followed = engine.follow(stage, paths) if paths else []
    arrived = sum(result.arrived for result in followed)
    return {
        "world": world.folder.name, "control": what, "engine": engine_name,
        "dropped": args.bodies, "fell": int(fell.sum()), "off_floor_cm": 100 * float(height.max(initial=0)),
        "driven": len(starts), "touched": int(touched.sum()), "entered": int(out.sum()),
        "deepest_cm": 100 * float(deepest.max(initial=0)),
        "followed": len(followed), "arrived": arrived,
        "lost": [{"path": i, "distance_m": r.final_distance} for i, r in enumerate(followed) if not r.arrived],
        "seconds": time.perf_counter() - start,
        "passed": not fell.any() and not out.any() and bool(touched.mean() > 0.5) and arrived == len(followed),
    }


def judge_world(world: World, engines: list[str], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row per engine for the world as written; Newton also follows the oracle's paths."""
    paths = oracle_paths(world, args.episodes)
    return [judge(world, name, args, paths=paths if name == "newton" else None) for name in engines]


def judge_controls(world: World, engines: list[str], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return rows that must all fail: parts taken away, and a planner that sees no obstacle."""
    rows = []
    for what, labels in CONTROLS.items():
        if any(part.label in labels for part in world.collision_parts):
            with tempfile.TemporaryDirectory() as folder:
                stage = stage_without(world, labels, Path(folder))
                rows += [judge(world, name, args, stage=stage, what=what) for name in engines]
    if "newton" in engines:
        rows.append(judge(world, "newton", args, what="straight planner", paths=straight_paths(world, args.episodes)))
    return rows


def available(names: list[str]) -> list[str]:
    """Return the engines that run here; say why of the others."""
    out = []
    for name in names:
        try:
            make_physics_engine(name)
            out.append(name)
        except BackendUnavailable as error:
            print(f"skipped {name}: {error}", file=sys.stderr, flush=True)
    return out


def physics_table(worlds: list[dict[str, Any]]) -> str:
    """Return the printed table of judge_world's and judge_controls' rows."""
    header = ["stage", "engine", "dropped", "fell", "off floor cm", "driven at", "touched", "entered", "deepest cm", "followed",
              "arrived", "s", "verdict"]
    lines = []
    for row in (row for world in worlds for row in world["rows"]):
        verdict = "PASS" if row["passed"] else "FAIL"
        if row["control"]:
            verdict = "fails, as it must" if not row["passed"] else "PASSES: the check does not bite"
        lines.append([f"{row['world']} {row['control']}".strip(), row["engine"], str(row["dropped"]), str(row["fell"]),
                      number(row["off_floor_cm"], 2), str(row["driven"]), str(row["touched"]), str(row["entered"]),
                      number(row["deepest_cm"], 1), str(row["followed"]), str(row["arrived"]), number(row["seconds"], 0), verdict])
    return table(header, lines)


def main() -> int:
    """Judge worlds; return 0 if all pass and all controls fail."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.physics_photos", description=__doc__.splitlines()[0])
    parser.add_argument("worlds", type=Path, nargs="+")
    parser.add_argument("--engines", default="newton,physx")
    parser.add_argument("--bodies", type=int, default=500)
    parser.add_argument("--drivers", type=int, default=100)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=8.0, help="of driving, simulated")
    parser.add_argument("--quick", action="store_true", help="a tenth of the bodies, three paths")
    parser.add_argument("--no-controls", action="store_true", help="leave the shortcuts that must fail out")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    if args.quick:
        args.bodies, args.drivers, args.episodes = args.bodies // 10, args.drivers // 5, 3
    engines = available(args.engines.split(","))
    results = []
    for number_, folder in enumerate(args.worlds):
        world = World(folder)
        print(f"[{number_ + 1}/{len(args.worlds)}] {folder.name}", file=sys.stderr, flush=True)
        rows = judge_world(world, engines, args)
        if number_ == 0 and not args.no_controls:
            rows += judge_controls(world, engines, args)
        results.append({"world": folder.name, "passed": all(row["passed"] != bool(row["control"]) for row in rows), "rows": rows})
    print(physics_table(results))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return 0 if all(result["passed"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
