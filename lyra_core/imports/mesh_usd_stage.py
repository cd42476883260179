"""The meshes of an OpenUSD stage: transforms, instances, purposes and visibility as the stage states them (OpenUSD, UsdGeom)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from lyra_core.imports.mesh_parts import Part, Reading, placed, polygon_part, shown, turned
from lyra_core.imports.mesh_usd_guard import check_layers, first_line
from lyra_core.imports.mesh_usd_look import Looks
from lyra_core.imports.mesh_usd_solids import solid_polygons

MAX_PRIMS = 2_000_000
"""Prims of the stage with the insides of its instances."""
_PURPOSES = ("render", "proxy", "guide")


def read_stage(reading: Reading) -> tuple[list[Part], dict[str, Any]]:
    """Return parts in the stage's frame, and 'metres_per_unit' and 'up' (None = not stated) and 'prims'.

    Static values, and the first sample of animated ones, are taken. Guides and proxies count only where there is nothing else.

    Raises:
        InputError: see check_layers; no meshes.
    """
    from pxr import Tf, Usd, UsdGeom

    check_layers(reading)
    try:
        stage = Usd.Stage.Open(str(reading.path), Usd.Stage.LoadAll)
    except Tf.ErrorException as error:
        raise reading.fail(f"OpenUSD cannot compose it: {first_line(error)}") from error
    _note_errors(reading, stage)
    walk = _Walk(reading, stage)
    try:
        found = walk.parts(stage.GetPseudoRoot(), None)
    except (Tf.ErrorException, RuntimeError) as error:
        raise reading.fail(f"OpenUSD cannot read a prim of it: {first_line(error)}") from error
    parts = found["render"]
    for purpose in _PURPOSES[1:]:
        if found[purpose] and parts:
            reading.note(f"{len(found[purpose])} meshes of purpose {purpose} were skipped.")
        elif found[purpose]:
            parts = found[purpose]
            reading.note(f"There are no meshes to render; those of purpose {purpose} were taken.")
    if not parts:
        raise reading.fail("got a stage without meshes, expected at least one that is visible")
    unit = float(UsdGeom.GetStageMetersPerUnit(stage)) if stage.HasAuthoredMetadata("metersPerUnit") else None
    if unit is not None and not (np.isfinite(unit) and 1e-9 < unit < 1e9):
        reading.note(f"metersPerUnit of the stage is {unit}, which cannot be: the unit is unknown.")
        unit = None
    elif unit is None:
        reading.note("The stage does not state metersPerUnit; OpenUSD would take 0.01, but the unit is treated as unknown.")
    up = str(UsdGeom.GetStageUpAxis(stage)) if stage.HasAuthoredMetadata("upAxis") else None
    if up is None:
        reading.note("The stage does not state upAxis; OpenUSD would take Y, but up is treated as unknown.")
    return parts, {"metres_per_unit": unit, "up": up, "prims": walk.prims}


def _note_errors(reading: Reading, stage: Any) -> None:
    errors = stage.GetCompositionErrors() if hasattr(stage, "GetCompositionErrors") else []
    for error in errors[:5]:
        text = " ".join(str(getattr(error, "errorType", error)).replace("Pcp.ErrorType_", "").split())
        reading.note(f"OpenUSD could not follow an arc at {shown(str(getattr(error, 'rootSite', '?'))[:60])}: {text[:80]}.")
    if len(errors) > 5:
        reading.note(f"{len(errors) - 5} more composition errors of the stage are not listed.")


class _Walk:
    """Walks prims in order and makes parts."""

    def __init__(self, reading: Reading, stage: Any) -> None:
        from pxr import Usd, UsdGeom

        self.reading, self.prims = reading, 0
        self.time = Usd.TimeCode.EarliestTime()
        self.xforms = UsdGeom.XformCache(self.time)
        self.looks = Looks(reading, self.time)
        if stage.HasAuthoredTimeCodeRange():
            reading.note("Animated values are taken at their first sample.")

    def parts(self, top: Any, origin: Any) -> dict[str, list[Part]]:
        """Return the parts below a prim by purpose, in the frame of the prim ``origin`` (None = world)."""
        from pxr import UsdGeom

        out: dict[str, list[Part]] = {purpose: [] for purpose in _PURPOSES}
        for prim in self._visible(top):
            if prim.IsA(UsdGeom.PointInstancer):
                purpose = _purpose(prim)
                out[purpose] += self._instanced(prim, origin)
            elif prim.IsA(UsdGeom.Gprim):
                T = np.array(self.xforms.ComputeRelativeTransform(prim, origin)[0] if origin is not None else
                             self.xforms.GetLocalToWorldTransform(prim), np.float64).T
                out[_purpose(prim)] += [placed(part, T) for part in self._gprim(prim)]
        return out

    def _visible(self, top: Any) -> Iterator[Any]:
        from pxr import Usd, UsdGeom

        predicate = Usd.PrimDefaultPredicate if top.IsPseudoRoot() else Usd.PrimIsActive & Usd.PrimIsLoaded
        walk = iter(Usd.PrimRange(top, Usd.TraverseInstanceProxies(predicate)))
        for prim in walk:
            self.prims += 1
            if self.prims > MAX_PRIMS:
                raise self.reading.fail(f"got more than {MAX_PRIMS} prims with all instances expanded, expected fewer")
            imageable = UsdGeom.Imageable(prim)
            if imageable and imageable.GetVisibilityAttr().Get(self.time) == UsdGeom.Tokens.invisible:
                self.reading.note("Prims that are not visible were skipped.")
                walk.PruneChildren()
                continue
            if prim.IsA(UsdGeom.PointInstancer) and prim != top:
                walk.PruneChildren()
            yield prim

    def _gprim(self, prim: Any) -> list[Part]:
        from pxr import UsdGeom

        if prim.IsA(UsdGeom.Mesh):
            part = self._mesh(prim)
        else:
            polygons = solid_polygons(prim, self.time)
            if polygons is None:
                self.reading.note(f"Prims of type {prim.GetTypeName()} were skipped: they are no mesh.")
                return []
            self.reading.note(f"Prims of type {prim.GetTypeName()} were cut into triangles.")
            vertices, counts, indices = polygons
            colour, _ = self.looks.colours(prim, len(vertices), counts, indices)
            look = self.looks.of_faces(prim, counts, None)
            part = polygon_part(self.reading, str(prim.GetPath()), vertices, counts, indices,
                                polygon_rgb=look.rgb if look.rgb is not None else colour)
        if part is None:
            return []
        left = UsdGeom.Gprim(prim).GetOrientationAttr().Get(self.time) == UsdGeom.Tokens.leftHanded
        return [turned(part) if left else part]

    def _mesh(self, prim: Any) -> Part | None:
        from pxr import UsdGeom

        mesh, where = UsdGeom.Mesh(prim), str(prim.GetPath())
        points, counts, indices = (_array(attribute.Get(self.time), kind) for attribute, kind in (
            (mesh.GetPointsAttr(), np.float64), (mesh.GetFaceVertexCountsAttr(), np.int64),
            (mesh.GetFaceVertexIndicesAttr(), np.int64)))
        if not len(counts):
            self.reading.note("Meshes without faces were skipped.")
            return None
        vertices = points.reshape(-1, 3)
        if (counts < 0).any() or counts.sum() != len(indices):
            raise self.reading.fail(f"{where}: got {len(indices)} faceVertexIndices, expected {counts.sum()} from faceVertexCounts")
        if mesh.GetSubdivisionSchemeAttr().Get(self.time) != UsdGeom.Tokens.none:
            self.reading.note("Subdivision meshes are taken as their control cages.")
        holes = _array(mesh.GetHoleIndicesAttr().Get(self.time), np.int64)
        skip = np.zeros(len(counts), bool)
        skip[holes[(holes >= 0) & (holes < len(counts))]] = True
        look = self.looks.of_faces(prim, counts, skip)
        uv = self.looks.corner_uv(prim, look, counts, indices, len(vertices))
        face_colour, vertex_colour = self.looks.colours(prim, len(vertices), counts, indices)
        rgb = look.rgb if look.rgb is not None else face_colour
        return polygon_part(self.reading, where, vertices, counts, indices, corner_uv=uv, polygon_texture=look.texture,
                            polygon_rgb=rgb, vertex_rgb=vertex_colour if look.rgb is None else None, skip=skip)

    def _instanced(self, prim: Any, origin: Any) -> list[Part]:
        """Return the copies of a point instancer's prototypes."""
        from pxr import UsdGeom

        instancer = UsdGeom.PointInstancer(prim)
        which = _array(instancer.GetProtoIndicesAttr().Get(self.time), np.int64)
        self.reading.add(instances=len(which))
        targets = instancer.GetPrototypesRel().GetForwardedTargets()
        mask = instancer.ComputeMaskAtTime(self.time)
        matrices = instancer.ComputeInstanceTransformsAtTime(self.time, self.time, UsdGeom.PointInstancer.IncludeProtoXform,
                                                             UsdGeom.PointInstancer.IgnoreMask)
        if len(matrices or ()) != len(which):
            self.reading.note(f"The point instancer {shown(str(prim.GetPath()))} is not whole and was skipped.")
            return []
        T_base = np.array(self.xforms.ComputeRelativeTransform(prim, origin)[0] if origin is not None else
                          self.xforms.GetLocalToWorldTransform(prim), np.float64).T
        prototypes: dict[int, list[Part]] = {}
        out = []
        for i, proto in enumerate(which.tolist()):
            if not 0 <= proto < len(targets) or (len(mask) and not mask[i]):
                continue
            if proto not in prototypes:
                top = prim.GetStage().GetPrimAtPath(targets[proto])
                nested = not top or top.IsA(UsdGeom.PointInstancer) or top.GetPath().HasPrefix(prim.GetPath()) is None
                prototypes[proto] = [] if nested else self.parts(top, top)["render"]
            self.reading.add_copy(prototypes[proto])
            T = T_base @ np.array(matrices[i], np.float64).T
            out += [replace(placed(part, T)) for part in prototypes[proto]]
        return out


def _purpose(prim: Any) -> str:
    from pxr import UsdGeom

    purpose = UsdGeom.Imageable(prim).ComputePurpose()
    return str(purpose) if purpose in ("proxy", "guide") else "render"


def _array(value: Any, dtype: Any) -> np.ndarray:
    """Return a numpy array of an attribute's value; nothing authored is empty."""
    return np.zeros(0, dtype) if value is None else np.asarray(value).astype(dtype)


