"""Newton (NVIDIA, Google DeepMind and Disney's engine on Warp), on the CPU: triangle-mesh contacts, XPBD solver.

The first run on a machine compiles kernels for about a minute; they are cached afterwards.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np

from lyra_core.errors import BackendUnavailable, InputError, WorldError
from lyra_core.physics._physx_worker import pushed
from lyra_core.physics.base import DriveResult, DropResult, FollowResult, checked_points, checked_stage
from lyra_core.physics.pursuit import PurePursuit, path_length

FREQUENCY = 120.0
"""Solver steps per second."""
SUBSTEPS_PER_COMMAND = 4
FRICTION = 0.7
GAP = 0.02
"""Distance at which contacts are made, as authored on the colliders [m]."""
BODY_GROUP = -2
"""Newton's rule: a negative group collides with every group but itself."""
WHEEL_GAIN = 0.4
"""Motor torque per error of wheel speed [N m s]."""
WHEEL_TORQUE = 3.0
"""[N m]"""
WHEEL_RADIUS = 0.1
CHASSIS_GAP = 0.06
"""Height of the chassis' underside [m]."""


class PhysicsNewton:
    """Checks in Newton; see PhysicsEngine. Adds :meth:`follow`, which drives wheeled robots along paths."""

    def __init__(self) -> None:
        for module, package in (("newton", "newton"), ("pxr", "usd-core"), ("newton_usd_schemas", "newton-usd-schemas")):
            if importlib.util.find_spec(module) is None:
                raise BackendUnavailable("physics engine 'newton'", reason=f"{package} is not installed",
                                         install="pip install 'lyra-worlds[newton]'")

    def drop(self, stage_path: Path | str, points: np.ndarray, *, radius: float = 0.1, seconds: float = 2.0) -> DropResult:
        """Release spheres of 1 t/m3 with their centres at points (N, 3) [m] and let them come to rest."""
        points = checked_points("points", points)
        builder, wp = _open(stage_path)
        for point in points:
            body = builder.add_body(xform=wp.transform(wp.vec3(*point), wp.quat_identity()))
            builder.add_shape_sphere(body, radius=radius, cfg=_shape())
        scene = _Scene(builder)
        for _ in range(round(seconds * FREQUENCY)):
            scene.step()
        return DropResult(scene.body_q()[:, :3].astype(np.float32), radius)

    def drive(self, stage_path: Path | str, starts: np.ndarray, targets: np.ndarray, *, radius: float = 0.3, height: float = 1.0,
              speed: float = 0.5, seconds: float = 10.0) -> DriveResult:
        """Push upright cylinders from starts (N, 2 or 3) straight at targets (N, 2 or 3); the third number is the floor's z [m]."""
        starts, targets = checked_points("starts", starts), checked_points("targets", targets)
        if len(starts) != len(targets):
            raise InputError(f"targets: got {len(targets)}, expected one per start ({len(starts)})")
        builder, wp = _open(stage_path)
        for x, y, z in starts:
            body = builder.add_body(xform=wp.transform(wp.vec3(x, y, z + height / 2 + 0.01), wp.quat_identity()))
            builder.add_shape_cylinder(body, radius=radius, half_height=height / 2, cfg=_shape(friction=0.0, density=100.0))
        scene = _Scene(builder)
        path = [scene.body_q()[:, :3].copy()]
        for _ in range(round(seconds * FREQUENCY / SUBSTEPS_PER_COMMAND)):
            for _ in range(SUBSTEPS_PER_COMMAND):
                _push(scene, targets, speed)
                scene.step()
            path.append(scene.body_q()[:, :3].copy())
        times = np.arange(len(path)) * SUBSTEPS_PER_COMMAND / FREQUENCY
        return DriveResult(np.asarray(path, np.float32), times.astype(np.float32), radius)

    def follow(self, stage_path: Path | str, paths: list[np.ndarray], *, radius: float = 0.3, speed: float = 0.5,
               goal_tolerance: float = 0.1, seconds: float | None = None) -> list[FollowResult]:
        """Drive one two-wheeled robot per polyline (M, 2 or 3) [m] from its first to its last point; all share one scene.

        A robot is a round chassis of this radius with two driven wheels and two casters; only its wheels move it. ``seconds``
        (simulated) defaults to twice the time of the longest path plus ten; a run in which nobody moves any more ends early.
        """
        paths = [checked_points(f"paths[{i}]", path) for i, path in enumerate(paths)]
        if not paths:
            return []
        builder, wp = _open(stage_path)
        world_friction = min(builder.shape_material_mu)
        chassis = np.array([_add_robot(builder, wp, path, radius, world_friction) for path in paths])
        scene = _Scene(builder)
        pursuit = PurePursuit(paths, speed=speed, goal_tolerance=goal_tolerance)
        limit = seconds if seconds is not None else 10.0 + 2.0 * max(path_length(path) for path in paths) / speed
        track, axle = [scene.body_q()[chassis, :3].copy()], _axle(radius)
        for _ in range(round(limit * FREQUENCY / SUBSTEPS_PER_COMMAND)):
            body = scene.body_q()[chassis]
            forward, turn = pursuit.command(body[:, :2].astype(np.float64), _yaw(body[:, 3:]))
            wheels = np.stack([forward - turn * axle, forward + turn * axle], 1) / WHEEL_RADIUS
            scene.set_wheel_speeds(wheels)
            for _ in range(SUBSTEPS_PER_COMMAND):
                scene.step()
            track.append(scene.body_q()[chassis, :3].copy())
            if pursuit.arrived.all() or _stuck(track, pursuit.arrived):
                break
        tracks = np.asarray(track, np.float32)
        gaps = np.linalg.norm(tracks[:, :, :2] - pursuit.goals, axis=2)
        return [FollowResult(bool(done), float(gaps[:, i].min() if done else gaps[-1, i]), tracks[:, i])
                for i, done in enumerate(pursuit.arrived)]


def _open(stage_path: Path | str) -> tuple[Any, Any]:
    """Read the colliders of a stage with Newton's own importer into a builder."""
    import warp as wp

    wp.config.quiet = True
    wp.config.log_level = wp.LOG_WARNING
    import newton

    path = checked_stage(stage_path)
    builder = newton.ModelBuilder()
    builder.add_usd(str(path), load_visual_shapes=False, skip_mesh_approximation=False)
    if not any(flags & newton.ShapeFlags.COLLIDE_SHAPES for flags in builder.shape_flags):
        raise WorldError(f"{path}: got no collider, expected at least a floor")
    return builder, wp


def _shape(*, friction: float = FRICTION, density: float = 1000.0) -> Any:
    import newton

    return newton.ModelBuilder.ShapeConfig(density=density, mu=friction, gap=GAP, collision_group=BODY_GROUP, mu_rolling=0.0)


def _axle(radius: float) -> float:
    """Return half the distance between the wheels [m]."""
    return 0.6 * radius


def _add_robot(builder: Any, wp: Any, path: np.ndarray, radius: float, world_friction: float) -> int:
    """Add a differential-drive robot at the start of a path, looking along it; return its chassis body."""
    ahead = next((p for p in path[1:] if np.linalg.norm(p[:2] - path[0, :2]) > 0.05), path[-1])
    yaw = math.atan2(*(ahead - path[0])[1::-1])
    rotation = wp.quat_from_axis_angle(wp.vec3(0.0, 0.0, 1.0), yaw)
    base = wp.transform(wp.vec3(*path[0][:2], path[0][2] + 0.005), rotation)
    chassis = builder.add_link(xform=base)
    # Newton averages the friction of two surfaces: minus the world's makes a bumper that slides and a caster that rolls.
    half, low = 0.1, CHASSIS_GAP
    middle = wp.transform(wp.vec3(0.0, 0.0, low + half), wp.quat_identity())
    builder.add_shape_cylinder(chassis, xform=middle, radius=radius, half_height=half,
                               cfg=_shape(friction=-world_friction, density=200.0))
    for x in (-0.7 * radius, 0.7 * radius):
        caster = wp.transform(wp.vec3(x, 0.0, 0.04), wp.quat_identity())
        builder.add_shape_sphere(chassis, xform=caster, radius=0.04, cfg=_shape(friction=-world_friction, density=100.0))
    joints = [builder.add_joint_free(chassis)]
    for y in (_axle(radius), -_axle(radius)):
        place = wp.transform(wp.vec3(0.0, y, WHEEL_RADIUS), wp.quat_identity())
        wheel = builder.add_link(xform=wp.transform_multiply(base, place))
        builder.add_shape_sphere(wheel, radius=WHEEL_RADIUS, cfg=_shape(density=500.0))
        joints.append(builder.add_joint_revolute(chassis, wheel, parent_xform=place, axis=(0.0, 1.0, 0.0),
                                                 collision_filter_parent=True))
    builder.add_articulation(joints)
    # The free joint's coordinates place the robot; add_link's transform alone is overwritten by forward kinematics.
    start = builder.joint_q_start[joints[0]]
    builder.joint_q[start:start + 7] = [*base.p, *base.q]
    return chassis


def _stuck(track: list[np.ndarray], arrived: np.ndarray) -> bool:
    """Tell whether every robot still under way has kept to within 5 cm for the last ten seconds."""
    window = round(10.0 * FREQUENCY / SUBSTEPS_PER_COMMAND)
    if len(track) <= window or len(track) % 30:
        return False
    recent = np.asarray(track[-window::10])[:, ~arrived, :2]
    return bool((np.ptp(recent, axis=0).max(1) < 0.05).all())


def _push(scene: _Scene, targets: np.ndarray, speed: float) -> None:
    """Give every body its horizontal velocity towards its target, and keep it upright."""
    body, velocity = scene.body_q(), scene.body_qd()
    offset = targets[:, :2] - body[:, :2]
    velocity[:, :2] = pushed(velocity[:, :2], offset, speed, 1.0 / FREQUENCY)
    velocity[:, 3:] = 0.0
    body[:, 3:] = (0.0, 0.0, 0.0, 1.0)


def _yaw(quats_xyzw: np.ndarray) -> np.ndarray:
    x, y, z, w = quats_xyzw.T.astype(np.float64)
    return np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


class _Scene:
    """A finalized model and its two states on the CPU, where Warp's arrays are numpy views."""

    def __init__(self, builder: Any, *, iterations: int = 4) -> None:
        import newton

        self._model = builder.finalize(device="cpu")
        self._solver = newton.solvers.SolverXPBD(self._model, iterations=iterations)
        self._now, self._next, self._control = self._model.state(), self._model.state(), self._model.control()
        self._pipeline = newton.CollisionPipeline(self._model, broad_phase="explicit")
        self._contacts = self._pipeline.contacts()
        newton.eval_fk(self._model, self._model.joint_q, self._model.joint_qd, self._now)
        hinges = self._model.joint_type.numpy() == newton.JointType.REVOLUTE
        self._wheel, self._chassis = self._model.joint_child.numpy()[hinges], self._model.joint_parent.numpy()[hinges]
        self._targets = np.zeros(len(self._wheel))

    def body_q(self) -> np.ndarray:
        """Return (B, 7) poses, position and quaternion xyzw, as a view."""
        return self._now.body_q.numpy()

    def body_qd(self) -> np.ndarray:
        """Return (B, 6) velocities, linear and angular, as a view."""
        return self._now.body_qd.numpy()

    def set_wheel_speeds(self, speeds: np.ndarray) -> None:
        """Set (N, 2) left and right wheel speed targets [rad/s], in the order the robots were added."""
        self._targets = speeds.reshape(-1)

    def step(self) -> None:
        """Advance by one solver step."""
        self._now.clear_forces()
        if len(self._wheel):
            self._drive_wheels()
        self._pipeline.collide(self._now, self._contacts)
        self._solver.step(self._now, self._next, self._control, self._contacts, 1.0 / FREQUENCY)
        self._now, self._next = self._next, self._now

    def _drive_wheels(self) -> None:
        """Apply motor torques about the axles, equal and opposite on wheel and chassis.

        The solver's own velocity drive stalls when a hinge has turned by half a revolution, where its twist angle wraps.
        """
        x, y, z, w = self.body_q()[self._chassis, 3:].T.astype(np.float64)
        axis = np.stack([2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)], 1)
        spin = self.body_qd()[:, 3:].astype(np.float64)
        rate = ((spin[self._wheel] - spin[self._chassis]) * axis).sum(1)
        torque = np.clip(WHEEL_GAIN * (self._targets - rate), -WHEEL_TORQUE, WHEEL_TORQUE)[:, None] * axis
        force = self._now.body_f.numpy()
        np.add.at(force, (self._wheel[:, None], [3, 4, 5]), torque)
        np.add.at(force, (self._chassis[:, None], [3, 4, 5]), -torque)
