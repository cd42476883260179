"""Examine a mesh before a robot stands on it: holes, windings, thin walls, the floor, the scale; with what helps."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lyra_core.errors import InputError
from lyra_core.rays import make_ray_tracer
from lyra_core.surface.gravity import face_geometry
from lyra_core.surface.health_edges import closed_faces, holes_of, merge_equal, read_edges
from lyra_core.surface.health_rays import crossing_share, find_free_points, seen_from, thickness
from lyra_core.surface.scale import UNKNOWN_SIGMA, plausible_scale

MIN_AREA = 1e-12
"""Faces smaller than this have no area [m2]."""
THIN = 0.02
"""Walls thinner than this let fast bodies through in a physics engine [m]."""
KEPT_HOLES = 50
"""Holes that are listed, longest first."""


@dataclass(frozen=True)
class FloorHealth:
    """The lowest large level surface."""

    area: float
    """[m2]"""
    tilt: float
    """Angle of its plane to the horizontal [deg]."""
    rms: float
    """Deviation of its faces from the plane [mm]."""
    deviation: float
    """Largest one, over all but the outermost 0.5 % of its area [mm]."""
    steps: tuple[float, ...]
    """Heights of other level surfaces 0.03 to 0.35 m above it, of 0.5 m2 or more [m]."""


@dataclass(frozen=True)
class MeshHealth:
    """Counts and measures of a mesh in a frame with z up, in metres. Equal vertices count as one in all that is about edges."""

    vertices: int
    faces: int
    low: tuple[float, float, float]
    """Lower corner of the box of what is used [m]."""
    high: tuple[float, float, float]
    not_finite: int
    """Vertices with NaN or infinite coordinates."""
    bad_faces: int
    """Faces at such vertices, or with indices out of range."""
    degenerate: int
    """Faces without area."""
    duplicate: int
    """Faces over the same vertices as an earlier one."""
    unreferenced: int
    """Vertices that no face uses."""
    open_edges: int
    holes: tuple[dict[str, Any], ...]
    """perimeter [m], center, size [m], edges; the longest ones."""
    hole_count: int
    hole_length: float
    """Sum of all perimeters [m]."""
    non_manifold_edges: int
    non_manifold_vertices: int
    disagreeing_edges: int
    """Edges whose two faces are wound against each other."""
    pieces: int
    piece_areas: tuple[float, ...]
    """Of the largest ten pieces [m2]."""
    area: float
    """[m2]"""
    enclosed: bool
    """It has an inside that one could stand in."""
    enclosure: float
    """Share of rays from inside that hit something."""
    inverted: float
    """Share of the area seen from free space that shows its back; NaN = not to be told."""
    seen: float
    """Share of the area that free space sees."""
    thin: float
    """Share of the area that belongs to walls thinner than THIN."""
    thinnest: float
    """[m]; inf = none thinner than THIN."""
    crossing: float
    """Share of the edges that cut through other faces, from a sample."""
    quality_median: float
    """4 sqrt(3) area / sum of squared sides: 1 = equilateral, 0 = a line."""
    slivers: float
    """Share of faces whose quality is below 0.1."""
    floor: FloorHealth | None
    scale: float
    """Factor that would make heights the usual ones; see plausible_scale."""
    scale_sigma: float
    scale_reasons: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; what is not finite becomes None."""
        return _plain(asdict(self)) | {"findings": self.findings()}

    def findings(self) -> list[str]:
        """Return one sentence per fault with what helps, the worst first; empty if nothing is wrong."""
        return [text for _, text in sorted(_findings(self), key=lambda row: -row[0])]


def check_mesh(vertices: np.ndarray, faces: np.ndarray, *, viewpoints: np.ndarray | None = None) -> MeshHealth:
    """Examine a mesh in a frame with z up [m].

    Args:
        vertices, faces: (V, 3), may hold NaN; (F, 3) integers, may be out of range.
        viewpoints: (M, 3) points in free space, such as cameras; found in the mesh if None.

    Raises:
        InputError: the arrays have other shapes, or no face can be measured.
    """
    vertices, faces = np.asarray(vertices, np.float64), np.asarray(faces)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype.kind not in "iu":
        got = f"vertices {vertices.shape} and faces {faces.shape} {faces.dtype}"
        raise InputError(f"mesh: got {got}, expected (V, 3) and (F, 3) integers")
    faces = faces.astype(np.int64)
    finite = np.asarray((np.abs(vertices) < 1e15).all(1))
    inside = np.asarray(((faces >= 0) & (faces < len(vertices))).all(1))
    usable = inside.copy()
    usable[inside] = finite[faces[inside]].all(1)
    merged = merge_equal(np.where(finite[:, None], vertices, 0.0), faces[usable]) if usable.any() else faces[:0]
    area = face_geometry(vertices, merged)[1] if len(merged) else np.zeros(0)
    solid = area > MIN_AREA
    _, first = np.unique(np.sort(merged[solid], axis=1), axis=0, return_index=True)
    good = merged[solid][np.sort(first)]
    if not len(good):
        raise InputError(f"mesh: got {len(faces)} faces of which none has finite corners and an area, expected some")
    used = np.zeros(len(vertices), bool)
    used[faces[inside]] = True
    counts = {"vertices": len(vertices), "faces": len(faces), "not_finite": int((~finite).sum()), "bad_faces": int((~usable).sum()),
              "degenerate": int((~solid).sum()), "duplicate": int(solid.sum() - len(good)),
              "unreferenced": int((finite & ~used).sum())}
    factor, sigma, reasons = plausible_scale(vertices, good)
    # Faces without area but with three vertices still join their neighbours: without them a closed mesh would show cracks.
    joined = merged[(merged != np.roll(merged, 1, 1)).all(1)]
    joined = joined[np.sort(np.unique(np.sort(joined, axis=1), axis=0, return_index=True)[1])]
    return MeshHealth(**counts, **_shape(vertices, good, joined), **_rays(vertices, good, viewpoints), floor=_floor(vertices, good),
                      scale=factor, scale_sigma=sigma, scale_reasons=tuple(reasons))


def _shape(vertices: np.ndarray, faces: np.ndarray, joined: np.ndarray) -> dict[str, Any]:
    edges = read_edges(joined)
    holes = holes_of(vertices, edges.open)
    areas = face_geometry(vertices, faces)[1]
    piece_areas = np.sort(np.bincount(edges.piece, face_geometry(vertices, joined)[1]))[::-1]
    corners = vertices[faces]
    sides = ((corners - np.roll(corners, 1, 1)) ** 2).sum((1, 2))
    quality = 4 * np.sqrt(3) * areas / np.maximum(sides, 1e-30)
    points = corners.reshape(-1, 3)
    return {"low": tuple(points.min(0).tolist()), "high": tuple(points.max(0).tolist()), "open_edges": len(edges.open),
            "holes": tuple(_hole(hole) for hole in holes[:KEPT_HOLES]), "hole_count": len(holes),
            "hole_length": float(sum(hole.perimeter for hole in holes)), "non_manifold_edges": edges.non_manifold,
            "non_manifold_vertices": edges.fans, "disagreeing_edges": edges.disagreeing, "pieces": len(piece_areas),
            "piece_areas": tuple(piece_areas[:10].tolist()), "area": float(areas.sum()),
            "quality_median": float(np.median(quality)), "slivers": float((quality < 0.1).mean())}


def _hole(hole: Any) -> dict[str, Any]:
    return {"perimeter": hole.perimeter, "center": hole.center.tolist(), "size": hole.size.tolist(), "edges": hole.edges}


def _rays(vertices: np.ndarray, faces: np.ndarray, viewpoints: np.ndarray | None) -> dict[str, Any]:
    # Rays are float32: far from the origin they would lose the thickness of walls.
    middle = vertices[faces].reshape(-1, 3).mean(0)
    local = np.zeros_like(vertices)
    names = np.unique(faces)
    local[names] = vertices[names] - middle
    normals, areas, centers = face_geometry(local, faces)
    tracer = make_ray_tracer(local.astype(np.float32), faces.astype(np.int32))
    low, high = local[names].min(0), local[names].max(0)
    free = find_free_points(tracer, low, high)
    if viewpoints is not None and len(viewpoints):
        points = np.asarray(viewpoints, np.float64).reshape(-1, 3) - middle
        free = type(free)(points[np.linspace(0, len(points) - 1, min(64, len(points))).astype(int)], free.enclosure, True)
    behind, hits = seen_from(tracer, free, normals, np.zeros(3), float(np.linalg.norm(high - low)) / 2)
    seen = hits > 0
    # A sheet that is seen from both sides has no wrong side, nor has an open piece that is seen from around.
    told = seen & ((behind < 0.2) | (behind > 0.8)) & (find_inside(free, viewpoints) | closed_faces(faces))
    enough = areas[told].sum() > 0.3 * max(areas[seen].sum(), 1e-30) and told.any()
    inverted = float(areas[told & (behind > 0.5)].sum() / areas[told].sum()) if enough else float("nan")
    thin, thinnest = thickness(tracer, centers, normals, areas, limit=THIN)
    enclosed = bool(find_inside(free, viewpoints) and free.enclosure >= 0.9)
    return {"enclosed": enclosed, "enclosure": free.enclosure, "inverted": inverted,
            "seen": float(areas[seen].sum() / areas.sum()), "thin": thin, "thinnest": thinnest,
            "crossing": crossing_share(tracer, local, faces)}


def find_inside(free: Any, viewpoints: np.ndarray | None) -> bool:
    """Return whether free points lie in an inside; viewpoints that were given always do."""
    return bool(free.inside or (viewpoints is not None and len(viewpoints)))


def _floor(vertices: np.ndarray, faces: np.ndarray) -> FloorHealth | None:
    """Measure the lowest level surface that is not small beside the largest one, whichever way it is wound."""
    normals, areas, centers = face_geometry(vertices, faces)
    rows = np.flatnonzero(np.abs(normals[:, 2]) > np.cos(np.deg2rad(20)))
    if not len(rows):
        return None
    z = centers[rows, 2]
    span = float(z.max() - z.min())
    step = max(0.02, span / 100_000)
    bins = np.round((z - z.min()) / step).astype(np.int64)
    histogram = np.convolve(np.bincount(bins, areas[rows]), np.ones(5), "same")
    large = np.flatnonzero(histogram >= max(0.3, 0.15 * histogram.max()))
    if not len(large):
        return None
    top = int(large[0])
    while top + 1 < len(histogram) and histogram[top + 1] > histogram[top]:
        top += 1
    middle = z.min() + top * step
    floor = rows[np.abs(z - middle) < 0.1]
    weight, points = areas[floor], centers[floor]
    base = np.stack([points[:, 0] - points[:, 0].mean(), points[:, 1] - points[:, 1].mean(), np.ones(len(points))], 1)
    for _ in range(3):  # weights fall with the distance, so that low clutter does not tilt the plane
        root = np.sqrt(weight)[:, None]
        plane = np.linalg.lstsq(base * root, points[:, 2] * root[:, 0], rcond=None)[0]
        off = points[:, 2] - base @ plane
        weight = areas[floor] / (1 + (off / max(1.4826 * float(np.median(np.abs(off))), 1e-4)) ** 2)
    near = np.abs(off) < 0.06
    order = np.argsort(np.abs(off[near]))
    total = np.cumsum(areas[floor][near][order])
    if not len(total):
        return None
    outer = np.abs(off[near])[order][min(int(np.searchsorted(total, 0.995 * total[-1])), len(order) - 1)]
    rms = np.sqrt((areas[floor][near] * off[near] ** 2).sum() / total[-1])
    return FloorHealth(float(total[-1]), float(np.rad2deg(np.arctan(np.hypot(plane[0], plane[1])))), float(1e3 * rms),
                       float(1e3 * outer), _steps(z - middle, areas[rows]))


def _steps(height: np.ndarray, areas: np.ndarray) -> tuple[float, ...]:
    """Return the heights of peaks of level area between 0.03 and 0.35 m."""
    near = (height > 0.03) & (height < 0.35)
    if areas[near].sum() < 0.5:
        return ()
    histogram = np.convolve(np.bincount(np.round(height[near] / 0.01).astype(np.int64), areas[near], 37), np.ones(3), "same")
    out = []
    while histogram.max() >= 0.5:
        top = int(np.argmax(histogram))
        if 0.04 <= 0.01 * top <= 0.34:
            out.append(round(0.01 * top, 2))
        histogram[max(0, top - 3):top + 4] = 0
    return tuple(sorted(out))


def _findings(h: MeshHealth) -> list[tuple[float, str]]:
    """Return (severity, sentence): above 80 a robot falls through, above 50 physics or paths suffer, below it is clutter."""
    out: list[tuple[float, str]] = []

    def say(when: bool, severity: float, text: str) -> None:
        if when:
            out.append((severity, text))

    repair = "repair() does it"
    known = h.scale_sigma < UNKNOWN_SIGMA
    say(known and abs(np.log(h.scale)) > 0.25, 100, f"The scale looks wrong by {h.scale:.4g}: multiply all coordinates by it, or "
        f"state the unit. {' '.join(h.scale_reasons[-2:])}")
    say(not known, 30, "The scale could not be checked: no ceiling, door or furniture was recognised. State the unit.")
    say(h.bad_faces > 0, 95, f"{h.bad_faces} faces have corners that are not finite or do not exist "
        f"({h.not_finite} vertices are not finite): drop them; {repair}.")
    say(np.isfinite(h.inverted) and h.inverted > 0.02, 60 + 35 * min(1.0, np.nan_to_num(h.inverted)),
        f"{h.inverted:.0%} of the surface shows its back to free space, so robots fall through it: wind it towards free space; "
        f"{repair}.")
    say(h.disagreeing_edges > 0, 70,
        f"{h.disagreeing_edges} edges join faces that are wound against each other: wind them alike; {repair}.")
    if h.floor is None:
        say(True, 75, "There is no level floor of 0.3 m2: check which way is up.")
    else:
        say(h.floor.tilt > 1.0, 65, f"The floor is tilted by {h.floor.tilt:.1f} degrees: turn the scan upright.")
        say(h.floor.rms > 10, 45, f"The floor is uneven: {h.floor.rms:.0f} mm rms, {h.floor.deviation:.0f} mm at most. A plane "
            "in its place helps wheeled robots.")
        steps = ", ".join(f"{step:.2f}" for step in h.floor.steps)
        say(bool(steps), 25, f"Steps of {steps} m rise from the floor; wheels may not climb them.")
    small = sum(hole["perimeter"] < 0.3 for hole in h.holes)
    say(h.hole_count > 0, 40 + 20 * min(1.0, h.hole_length / max(np.sqrt(h.area), 1e-9) / 10),
        f"{h.hole_count} holes with {h.open_edges} open edges ({h.hole_length:.2f} m in all, the longest "
        f"{h.holes[0]['perimeter']:.2f} m): repair() fills flat ones below 0.3 m ({small} of those listed); larger ones need "
        "another scan or a plane." if h.holes else "")
    say(h.thin > 0.01, 55, f"{h.thin:.0%} of the surface is walls thinner than {100 * THIN:.0f} cm (least "
        f"{1e3 * h.thinnest:.1f} mm): fast bodies pass through; thicken them or use smaller time steps.")
    say(h.crossing > 0.002, 50,
        f"About {h.crossing:.1%} of the edges cut through other faces: solid colliders need a remesh.")
    say(h.non_manifold_edges > 0, 42,
        f"{h.non_manifold_edges} edges have three or more faces; ray casting copes, solid operations do not.")
    say(h.non_manifold_vertices > 0, 12,
        f"{h.non_manifold_vertices} vertices join surfaces in a point only; most tools cope.")
    say(h.degenerate + h.duplicate > 0, 20,
        f"{h.degenerate} faces have no area and {h.duplicate} are there twice: drop them; {repair}.")
    say(h.unreferenced > 0, 5, f"{h.unreferenced} vertices are not used by any face: drop them; {repair}.")
    say(h.pieces > 20, 18, f"The mesh is in {h.pieces} pieces; the largest ten hold "
        f"{sum(h.piece_areas) / h.area:.0%} of the area. Floating crumbs can be dropped by area.")
    say(h.slivers > 0.05, 8, f"{h.slivers:.0%} of the faces are slivers; simplification makes better ones.")
    return out


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
