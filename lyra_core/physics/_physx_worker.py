"""Run one physics job in NVIDIA's PhysX: a script for the environment of requirements/physx.txt, which has no lyra_core.

Usage: python _physx_worker.py JOB.json. The job names a scene (.usda), the number and length of steps, how often positions are
recorded, the moving bodies below /Bodies in their order, optional targets (N, 2) and speed, and the .npz to write.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

import numpy as np


def main(job_file: str) -> None:
    """Open the scene, step it, write the recorded positions (T, N, 3) float32."""
    import ovphysx
    import ovstage

    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    ovphysx.PhysX.set_cpu_mode(True)
    physx = ovphysx.PhysX()
    package, names = metadata.distribution("physx-usd-schemas"), ("PhysxSchema", "OmniUsdPhysicsDeformableSchema")
    schemas = [str(package.locate_file(f"physx_usd_schemas/{name}/resources")) for name in names]
    ovstage.population.register_usd_schemas([*schemas, str(ovphysx.newton_schema_root())])
    stage = ovstage.Stage("lyra")
    try:
        ovstage.population.open_usd(stage, job["scene"], ordinal=1, domains=ovstage.PopulationDomain.ALL)
        stage.advance_write_floor(ordinal=1).wait()
        physx.wait_task(physx.attach_ovstage(stage, read_ordinal=1))
        with ovstage.PathDictionary(stage) as paths:
            np.savez(job["output"], path=_simulate(Bodies(physx, paths, job["bodies"]), physx, job))
    finally:
        physx.wait_task(physx.detach_ovstage())
        physx.destroy()
        stage.destroy()


def _simulate(bodies: Bodies, physx: object, job: dict) -> np.ndarray:
    record = [bodies.read("position")]
    targets = np.asarray(job["targets"], np.float32) if job.get("targets") else None
    for step in range(1, job["steps"] + 1):
        if targets is not None:
            velocity = bodies.read("linearVelocity")
            offset = targets - bodies.read("position")[:, :2]
            velocity[:, :2] = pushed(velocity[:, :2], offset, job["speed"], job["dt"])
            bodies.write("linearVelocity", velocity)
        physx.step_sync(job["dt"])
        if step % job["record_every"] == 0 or step == job["steps"]:
            record.append(bodies.read("position"))
    return np.asarray(record, np.float32)


def pushed(velocity: np.ndarray, offset: np.ndarray, speed: float, dt: float) -> np.ndarray:
    """Return (N, 2) velocities [m/s] after dt [s] of a push towards offset (N, 2) [m].

    The push aims at ``speed``, slower near the target, with at most 10 m/s2: a body held by a wall presses on it with a force
    that a robot has, and not with whatever the solver needs to keep a prescribed speed.
    """
    distance = np.linalg.norm(offset, axis=1, keepdims=True)
    change = offset / np.maximum(distance, 1e-6) * np.minimum(speed, distance * 5) - velocity
    size = np.linalg.norm(change, axis=1, keepdims=True)
    return velocity + change * np.minimum(1.0, 10.0 * dt / np.maximum(size, 1e-9))


class Bodies:
    """Vectors of all moving bodies, in the order of their paths, whatever the engine's grouping."""

    def __init__(self, physx: object, paths: object, names: list[str]) -> None:
        from ovphysx.types import ObjectScope, SimObjectType

        self._physx, self._paths, self._row = physx, paths, {name: i for i, name in enumerate(names)}
        self._kind, self._scope = SimObjectType.RIGID_BODY, ObjectScope.ALL

    def read(self, attribute: str) -> np.ndarray:
        """Return (N, 3) float32; NaN for a body the engine does not know."""
        out = np.full((len(self._row), 3), np.nan, np.float32)
        with self._physx.read_sync(self._kind, [attribute], scope=self._scope) as result:
            for group in result.groups:
                if not group.is_delete and group.tensors:
                    rows, mine = self._rows(group)
                    out[rows] = np.asarray(group.tensors[0].numpy(), np.float32)[mine]
        return out

    def write(self, attribute: str, values: np.ndarray) -> None:
        """Set (N, 3) values."""
        with self._physx.write_sync(self._kind, attribute) as session:
            for group in session.groups:
                if group.tensors:
                    rows, mine = self._rows(group)
                    data = np.zeros((group.prim_count, 3), np.float32)
                    data[mine] = values[rows]
                    group.tensors[0].assign(data)
                    session.commit_sync(group)

    def _rows(self, group: object) -> tuple[list[int], list[int]]:
        names = self._paths.get_path_strings(group.prim_list)
        pairs = [(self._row[name], i) for i, name in enumerate(names) if name in self._row]
        return [row for row, _ in pairs], [i for _, i in pairs]


if __name__ == "__main__":
    main(sys.argv[1])
