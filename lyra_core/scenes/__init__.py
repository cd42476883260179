"""Analytic truth scenes and their ray caster: the demo picture, exact truth for benchmarks, training data.

``sample_scene(seed)`` gives an endless supply of places with a camera: furnished rooms (living, sleeping, dining with kitchens),
offices, corridors, warehouses, streets and courtyards, with clutter, shadows, windows, mirrors, rugs, stairs, ramps and kerbs, in
dark, over-exposed, tinted and noisy pictures. ``benchmark_cases()`` is a fixed choice of them. ``render`` makes the picture and its
truth (depth, labels, normals), ``blocked`` and ``ground_height`` the truth from above. Nothing here knows the generator's code.

Modules: scene (solids, materials, lights), intersect, mesh, topdown (geometry); materials, noise, palette, lighting, render
(appearance); shell, plan (walls, rooms, floor plans); furniture, seating, storage, clutter, outdoors (things); interiors, offices,
corridors, warehouses, townscapes, courtyards (places); placing, sampling (cameras and cases). rooms and streets make the four
simpler scenes of SCENES, whose camera stands at the origin.
"""

from lyra_core.scenes.render import PLAIN, Effects, RenderedScene, render, render_truth
from lyra_core.scenes.rooms import corridor, furnished_room, office
from lyra_core.scenes.sampling import KINDS, SceneCase, benchmark_cases, sample_scene, sample_views
from lyra_core.scenes.scene import Scene
from lyra_core.scenes.streets import street
from lyra_core.scenes.topdown import blocked, ground_height

SCENES = {"furnished_room": furnished_room, "corridor": corridor, "office": office, "street": street}
"""Seeded scene makers by name: each takes a np.random.Generator."""

__all__ = [
    "KINDS",
    "PLAIN",
    "SCENES",
    "Effects",
    "RenderedScene",
    "Scene",
    "SceneCase",
    "benchmark_cases",
    "blocked",
    "corridor",
    "furnished_room",
    "ground_height",
    "office",
    "render",
    "render_truth",
    "sample_scene",
    "sample_views",
    "street",
]
