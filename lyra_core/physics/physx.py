"""NVIDIA's PhysX on the CPU through ovphysx, the engine of Isaac Sim, in an environment and a process of its own.

ovphysx pins packages that other extras cannot live with, is 400 MB and carries NVIDIA's licence: it is never a dependency.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from lyra_core.errors import BackendUnavailable, InputError, WorldError
from lyra_core.physics.base import DriveResult, DropResult, checked_points, checked_stage

ENVIRONMENT = "LYRA_PHYSX_PYTHON"
"""Environment variable: the Python of an environment made from requirements/physx.txt."""
FREQUENCY = 120.0
"""Steps per second."""
RECORD_EVERY = 4


def physx_python() -> Path:
    """Return the Python that has ovphysx: $LYRA_PHYSX_PYTHON, else .venv-physx at the repository's root.

    Raises:
        BackendUnavailable: neither exists; names the command that makes it.
    """
    named = os.environ.get(ENVIRONMENT)
    candidate = Path(named) if named else Path(__file__).resolve().parents[2] / ".venv-physx" / "bin" / "python"
    if not candidate.is_file():
        raise BackendUnavailable("physics engine 'physx'", reason=f"{candidate} does not exist",
                                 install=f"make env-physx, or set {ENVIRONMENT} to a Python with requirements/physx.txt")
    return candidate


class PhysicsPhysx:
    """Checks in PhysX; see PhysicsEngine."""

    def __init__(self, *, timeout: float = 600.0) -> None:
        self._python, self._timeout = physx_python(), timeout

    def drop(self, stage_path: Path | str, points: np.ndarray, *, radius: float = 0.1, seconds: float = 2.0) -> DropResult:
        """Release spheres of 1 t/m3 with their centres at points (N, 3) [m] and let them come to rest."""
        points = checked_points("points", points)
        path = self._run(checked_stage(stage_path), points, _shape("Sphere", f"double radius = {radius!r}"),
                         seconds=seconds, density=1000.0)
        return DropResult(path[-1], radius)

    def drive(self, stage_path: Path | str, starts: np.ndarray, targets: np.ndarray, *, radius: float = 0.3, height: float = 1.0,
              speed: float = 0.5, seconds: float = 10.0) -> DriveResult:
        """Push upright cylinders from starts (N, 2 or 3) straight at targets (N, 2 or 3); the third number is the floor's z [m]."""
        starts, targets = checked_points("starts", starts), checked_points("targets", targets)
        if len(starts) != len(targets):
            raise InputError(f"targets: got {len(targets)}, expected one per start ({len(starts)})")
        shape = _shape("Cylinder", f"double radius = {radius!r}", f"double height = {height!r}", 'uniform token axis = "Z"')
        path = self._run(checked_stage(stage_path), starts + [0, 0, height / 2 + 0.01], shape, seconds=seconds, density=100.0,
                         upright=True, targets=targets[:, :2].tolist(), speed=speed)
        times = np.arange(len(path), dtype=np.float32) * np.float32(RECORD_EVERY / FREQUENCY)
        return DriveResult(path, times, radius)

    def _run(self, stage_path: Path, points: np.ndarray, shape: str, *, seconds: float, density: float, upright: bool = False,
             targets: list[list[float]] | None = None, speed: float = 0.0) -> np.ndarray:
        """Return the recorded positions (T, N, 3) float32 [m]."""
        steps = max(1, round(seconds * FREQUENCY / RECORD_EVERY)) * RECORD_EVERY
        with tempfile.TemporaryDirectory() as folder:
            scene, job, output = Path(folder) / "scene.usda", Path(folder) / "job.json", Path(folder) / "out.npz"
            scene.write_text(_scene(stage_path, points, shape, density, upright), encoding="utf-8")
            job.write_text(json.dumps({
                "scene": str(scene), "output": str(output), "steps": steps, "dt": 1.0 / FREQUENCY, "record_every": RECORD_EVERY,
                "bodies": [f"/Bodies/Body_{i}" for i in range(len(points))], "targets": targets, "speed": speed,
            }), encoding="utf-8")
            worker = Path(__file__).with_name("_physx_worker.py")
            done = subprocess.run([str(self._python), str(worker), str(job)], capture_output=True, text=True, timeout=self._timeout,
                                  check=False)
            if done.returncode or not output.is_file():
                raise WorldError(f"{stage_path}: PhysX stopped with code {done.returncode}: {done.stderr.strip()[-500:]}")
            with np.load(output, allow_pickle=False) as data:
                return data["path"]


def _shape(kind: str, *properties: str) -> str:
    lines = [*properties, "float physxCollision:contactOffset = 0.02", "float physxCollision:restOffset = 0",
             "rel material:binding:physics = </Bodies/Material>"]
    schemas = '"PhysicsCollisionAPI", "PhysxCollisionAPI", "MaterialBindingAPI"'
    head = f'def {kind} "Shape" (prepend apiSchemas = [{schemas}])'
    return "\n        ".join([head, "{", *(f"    {line}" for line in lines), "}"])


def _scene(stage_path: Path, points: np.ndarray, shape: str, density: float, upright: bool) -> str:
    """Return a layer that references the world and adds the moving bodies; they collide with the world, not with each other."""
    lock = "int physxRigidBody:lockedRotAxis = 7" if upright else ""
    friction = 0.0 if upright else 0.7
    bodies = "\n".join(
        f'''    def Xform "Body_{i}" (prepend apiSchemas = ["PhysicsRigidBodyAPI", "PhysicsMassAPI", "PhysxRigidBodyAPI"])
    {{
        double3 xformOp:translate = ({x!r}, {y!r}, {z!r})
        uniform token[] xformOpOrder = ["xformOp:translate"]
        float physics:density = {density}
        float physxRigidBody:sleepThreshold = 0
        {lock}
        {shape}
    }}''' for i, (x, y, z) in enumerate(points.tolist()))
    return f'''#usda 1.0
(
    defaultPrim = "World"
    upAxis = "Z"
    metersPerUnit = 1
    kilogramsPerUnit = 1
)
def "World" (references = @{stage_path.as_posix()}@)
{{
}}
def Scope "Bodies"
{{
    def Material "Material" (prepend apiSchemas = ["PhysicsMaterialAPI"])
    {{
        float physics:staticFriction = {friction}
        float physics:dynamicFriction = {friction}
        float physics:restitution = 0
    }}
    def PhysicsCollisionGroup "Apart" (prepend apiSchemas = ["CollectionAPI:colliders"])
    {{
        rel physics:filteredGroups = </Bodies/Apart>
        rel collection:colliders:includes = </Bodies>
        uniform token collection:colliders:expansionRule = "expandPrims"
    }}
{bodies}
}}
'''
