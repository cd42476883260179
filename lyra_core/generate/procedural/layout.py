"""The explicit world of one photo: plan, textured surfaces, colliders. Unseen parts depend on the seed and on world position."""

from __future__ import annotations

import numpy as np

from lyra_core.generate.base import ExplicitWorld
from lyra_core.generate.procedural.atlas import MeshBuilder
from lyra_core.generate.procedural.backdrop import backdrop_polyline
from lyra_core.generate.procedural.colliders import plan_colliders
from lyra_core.generate.procedural.furnish import crate, is_furnished, placements
from lyra_core.generate.procedural.photo_source import PhotoSource
from lyra_core.generate.procedural.plan import USUAL_CEILING, Plan, Space, make_plan
from lyra_core.generate.procedural.planes import PlaneTexture, add_plane
from lyra_core.generate.procedural.relief import lift_relief
from lyra_core.generate.procedural.sky import add_sky, sky_image
from lyra_core.generate.procedural.solids import Solid, add_solid, moved
from lyra_core.generate.procedural.strips import WallStrip, bake_segment, plain_segment, plain_tile, skyline
from lyra_core.generate.procedural.visibility import with_first_hit
from lyra_core.generate.procedural.walls import add_walls, passage_corners
from lyra_core.types import CollisionPart, Label, Provenance


def build_layout(source: PhotoSource, *, indoor: bool, seed: int, atlas_size: int) -> ExplicitWorld:
    """Build the world around a photo.

    Args:
        source: photo at working size with depth, labels and camera.
        indoor: close it with a ceiling and rooms, or open it to a street and the sky.
        seed: decides what is unseen.
        atlas_size: side of the texture [px].
    """
    plan_rng, floor_rng, ceiling_rng, wall_rng, object_rng = np.random.default_rng([seed, 71]).spawn(5)
    backdrop = backdrop_polyline(source, default_range=4.0 if indoor else 40.0)
    eye_height, ceiling_height = float(source.position[2]), _ceiling_height(source)
    plan = make_plan(backdrop, indoor=indoor, eye_height=eye_height, ceiling_height=ceiling_height, rng=plan_rng)
    place, grain = plan.spaces[0], 2048 / atlas_size
    seen_edges = [i for i, p in enumerate(place.edge_provenance) if p == Provenance.SEEN]
    skylines = [np.full(2, place.height) if indoor else skyline(source, *place.edge(i)) for i in seen_edges]
    solids = lift_relief(with_first_hit(source, place, skylines, []))
    source = with_first_hit(source, place, skylines, solids)
    builder = MeshBuilder()
    strip = _bake_walls(source, builder, place, skylines, wall_rng, grain)
    wall_colour = np.mean([s.image.reshape(-1, 3).mean(0) for s in strip.segments], 0)
    _add_floors(source, builder, plan, floor_rng, wall_colour, grain)
    if indoor:
        _add_ceilings(source, builder, plan, ceiling_rng, wall_colour, grain)
    else:
        add_sky(builder, sky_image(source), plan.spaces[1].corners.mean(0))
    add_walls(builder, plan, strip, wall_rng)
    parts = plan_colliders(plan, strip) + _add_objects(builder, plan, solids, object_rng)
    return ExplicitWorld(builder.build(atlas_size=atlas_size), parts, plan.places())


def _ceiling_height(source: PhotoSource) -> float | None:
    """Return the ceiling's height [m]: as found, or above all that was measured; None = not known."""
    e = source.estimate
    if e.ceiling_height is not None or e.measured is None or not e.measured.any():
        return e.ceiling_height
    return max(USUAL_CEILING, float(np.percentile(source.world_points()[e.measured][:, 2], 99.5)) + 0.02)


def _bake_walls(
    source: PhotoSource, builder: MeshBuilder, place: Space, skylines: list[np.ndarray], rng: np.random.Generator, grain: float
) -> WallStrip:
    """Bake one segment per seen edge, in the edges' order, and indoors a piece of bare wall after them."""
    wall = source.estimate.labels == Label.WALL
    fallback = np.median(source.rgb[wall], 0) if wall.any() else np.median(source.rgb.reshape(-1, 3), 0)
    segments = [
        bake_segment(
            source,
            *place.edge(i),
            height=place.height if place.ceiling else None,
            skyline=top,
            finest=0.006 * grain,
            fallback=fallback,
        )
        for i, top in enumerate(skylines)
    ]
    tile = plain_tile(segments, texel=0.0125 * grain, size=round(256 / grain), rng=rng) if place.ceiling else None
    if tile is not None:
        segments.append(plain_segment(tile, texel=0.0125 * grain, height=place.height))
    return WallStrip(segments, [builder.add_chart(s.image) for s in segments], has_plain=tile is not None)


def _flat_polygons(plan: Plan) -> list[tuple[str, np.ndarray, Provenance]]:
    """Floor plan of every space. The photo's place is cut at the camera: the triangles of what it sees must not depend on
    the seed, and the rest does."""
    place = plan.spaces[0]
    n = 1 + sum(p == Provenance.SEEN for p in place.edge_provenance)
    eye = np.zeros((1, 2))
    ahead, behind = np.concatenate([eye, place.corners[:n]]), np.concatenate([eye, place.corners[n - 1 :], place.corners[:1]])
    out = [("place", ahead, Provenance.CONTINUED), ("place_behind", behind, Provenance.CONTINUED)]
    return out + [(space.name, space.corners, Provenance.INVENTED) for space in plan.spaces[1:]]


def _passages(plan: Plan) -> list[tuple[str, np.ndarray, Provenance]]:
    return [(o.name, passage_corners(plan, o), Provenance.INVENTED) for o in plan.openings]


def _add_floors(
    source: PhotoSource, builder: MeshBuilder, plan: Plan, rng: np.random.Generator, fallback: np.ndarray, grain: float
) -> None:
    texture = PlaneTexture(
        source,
        height=0.0,
        label=Label.FLOOR,
        reach=9.6 if plan.spaces[0].ceiling else 19.2,
        texel=0.0125 * grain,
        rng=rng,
        fallback=fallback,
    )
    polygons = [(f"{name}_floor", corners, provenance) for name, corners, provenance in _flat_polygons(plan) + _passages(plan)]
    add_plane(builder, texture, polygons, label=Label.FLOOR, height=0.0, texels=(0.006 * grain, 0.04 * grain), up=True)


def _add_ceilings(
    source: PhotoSource, builder: MeshBuilder, plan: Plan, rng: np.random.Generator, wall: np.ndarray, grain: float
) -> None:
    height = plan.spaces[0].height
    light = wall + (245 - wall) * 0.6
    texture = PlaneTexture(source, height=height, label=Label.CEILING, reach=6.4, texel=0.025 * grain, rng=rng, fallback=light)
    polygons = [(f"{name}_ceiling", corners, provenance) for name, corners, provenance in _flat_polygons(plan)]
    add_plane(builder, texture, polygons, label=Label.CEILING, height=height, texels=(0.01 * grain, 0.05 * grain), up=False)


def _add_objects(builder: MeshBuilder, plan: Plan, seen: list[Solid], rng: np.random.Generator) -> list[CollisionPart]:
    """Add the photo's objects and their copies in the further spaces; return their colliders."""
    pool = [*seen, *(crate(rng) for _ in range(2))] if not is_furnished(seen) else seen
    charts = [builder.add_chart(solid.image) for solid in pool]
    parts = []
    for i, solid in enumerate(seen):
        add_solid(builder, solid, charts[i], f"object_{i}")
        parts.append(_solid_part(f"object_{i}", solid, None, Provenance.SEEN))
    for number, (which, transform) in enumerate(placements(plan, pool, rng)):
        name = f"copy_{number}"
        add_solid(builder, pool[which], charts[which], name, provenance=Provenance.INVENTED, transform=transform)
        parts.append(_solid_part(name, pool[which], transform, Provenance.INVENTED))
    return parts


def _solid_part(name: str, solid: Solid, transform: tuple[np.ndarray, np.ndarray] | None, provenance: Provenance) -> CollisionPart:
    vertices, faces = moved(solid.collider[0], transform).astype(np.float32), solid.collider[1].astype(np.int32)
    return CollisionPart(name, solid.label, "solid", vertices, faces, provenance)
