"""Analytic truth scenes and their ray caster: the demo picture, exact truth for benchmarks, training data."""

from lyra_core.scenes.render import PLAIN, Effects, RenderedScene, render, render_truth
from lyra_core.scenes.rooms import corridor, furnished_room, office
from lyra_core.scenes.scene import Scene
from lyra_core.scenes.streets import street

SCENES = {"furnished_room": furnished_room, "corridor": corridor, "office": office, "street": street}
"""Seeded scene makers by name: each takes a np.random.Generator."""

__all__ = [
    "PLAIN",
    "SCENES",
    "Effects",
    "RenderedScene",
    "Scene",
    "corridor",
    "furnished_room",
    "office",
    "render",
    "render_truth",
    "street",
]
