"""Run by a Python that has pyopenvdb (see ``surface.openvdb``): one JSON command per line in, one JSON answer per line out.

Arrays travel as .npz files without pickles. Nothing of lyra_core is imported, so that Debian's Python with its own numpy will do.
Usage: python _openvdb_worker.py MEMORY, the most address space in bytes (0 = no limit).
"""

import json
import sys

import numpy as np

vdb = None
"""The package, from when this runs as a script."""

SIDE = 8
"""Voxels along the edge of a block: a leaf of the grids."""
REGION = 32
"""Voxels along the edge of the dense windows through which grids are read and written."""
TINY = 1e-4
"""Distances nearer to zero (in truncations) are moved off it, so that no vertex falls on a sample."""
LEAST_INSIDE = 0.05
"""Part of a level set's band that lies inside a mesh with open edges, at least."""
MARK = "lyra-worlds"


def cube(side):
    """Return the coordinates (side^3, 3) of a cube's voxels."""
    return np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)


def grouped(keys):
    """Yield (key, rows) for each different key of (N, 3) int64."""
    if not len(keys):
        return
    order = np.lexsort(keys.T[::-1])
    cuts = np.flatnonzero((np.diff(keys[order], axis=0) != 0).any(1)) + 1
    for rows in np.split(order, cuts):
        yield tuple(int(k) for k in keys[rows[0]]), rows


class Fusion:
    """A truncated signed distance field in OpenVDB grids, by the formula of ``surface.blocks``."""

    def __init__(self, voxel, truncation, behind, free_share):
        self.voxel, self.truncation, self.behind, self.free_share = voxel, truncation, behind, free_share
        self.distance = level_grid(voxel, voxel / 2, truncation)
        self.weight, self.color = vdb.FloatGrid(0.0), vdb.Vec3SGrid((0.0, 0.0, 0.0))
        self.weight.name, self.color.name = "weight", "color"
        self.weight.transform = self.color.transform = self.distance.transform
        self.grids = ((self.distance, (), truncation * 1e-6), (self.weight, (), 0.0), (self.color, (3,), (0.0, 0.0, 0.0)))
        self.windows = {}
        """Blocks (n, 3) that exist in each window: only they are written."""

    def make(self, blocks):
        """Add blocks (B, 3), each of 8^3 voxels."""
        for window, rows in grouped(blocks // (REGION // SIDE)):
            have = self.windows.get(window)
            both = blocks[rows] if have is None else np.concatenate([have, blocks[rows]])
            self.windows[window] = np.unique(both, axis=0)

    def integrate(self, data):
        """Average one picture into the blocks that it looks at."""
        view = {name: data[name] for name in ("depth", "weight", "normals", "rgb", "K", "T")}
        windows = np.array(list(self.windows), np.int64).reshape(-1, 3)
        for window in windows[self.in_view(windows, **view)]:
            self.update(window, **view)

    def in_view(self, windows, depth, weight, K, T, **_):
        """Return which windows (N, 3) may hold a voxel that the picture says something about."""
        size = REGION * self.voxel
        radius = size * 3**0.5 / 2
        x, y, z = (((windows + 0.5) * size) @ T[:3, :3].T + T[:3, 3]).T
        far = depth.max(initial=0, where=weight > 0) + self.behind * self.truncation
        keep = (z > -radius) & (z - radius < far)
        for across, focal, centre, end in ((x, K[0, 0], K[0, 2], depth.shape[1]), (y, K[1, 1], K[1, 2], depth.shape[0])):
            low, high = (0 - centre) / focal, (end - centre) / focal
            keep &= (across - low * z > -radius * np.hypot(1, low)) & (high * z - across > -radius * np.hypot(1, high))
        return keep

    def update(self, window, depth, weight, normals, rgb, K, T):
        """Average one picture into the blocks of one window."""
        low = window * REGION
        voxels = (self.windows[tuple(int(k) for k in window)][:, None] * SIDE + CUBE).reshape(-1, 3)
        local = ((voxels + 0.5) * self.voxel) @ T[:3, :3].T + T[:3, 3]
        z = np.maximum(local[:, 2], 0.01)
        u, v = local[:, 0] / z * K[0, 0] + K[0, 2], local[:, 1] / z * K[1, 1] + K[1, 2]
        h, w = depth.shape
        at = np.flatnonzero((local[:, 2] > 0.01) & (u >= 0) & (v >= 0) & (u < w) & (v < h))
        line, column = v[at].astype(int), u[at].astype(int)
        new, d = weight[line, column], depth[line, column]
        good = (new > 0) & (z[at] - d < self.behind * self.truncation)
        at, line, column, new, d = at[good], line[good], column[good], new[good], d[good]
        seen = np.stack([(column + 0.5 - K[0, 2]) / K[0, 0] * d, (line + 0.5 - K[1, 2]) / K[1, 1] * d, d], 1)
        s = ((local[at] - seen) * normals[line, column]).sum(1) / self.truncation
        good = s > -1
        if not good.any():
            return
        at, s, new, now = at[good], s[good], new[good], rgb[line[good], column[good]]
        corner, free = tuple(int(c) for c in low), s >= 1
        dense = [np.zeros((REGION,) * 3 + tail, np.float32) for _, tail, _ in self.grids]
        for (grid, _, _), array in zip(self.grids, dense, strict=True):
            grid.copyToArray(array, ijk=corner)
        distance, mass, color = (a.reshape(REGION**3, -1) for a in dense)
        inner = (voxels[at] - low) @ np.array([REGION * REGION, REGION, 1])
        new = np.where(free, new * self.free_share, new)
        share = new / (mass[inner, 0] + new)
        moved = distance[inner, 0] + share * (np.minimum(s, 1) * self.truncation - distance[inner, 0])
        least = TINY * self.truncation
        distance[inner, 0] = np.where(np.abs(moved) < least, np.where(moved < 0, -least, least), moved)
        color[inner] += np.where(free, 0, share)[:, None] * (now - color[inner])
        mass[inner, 0] = np.minimum(mass[inner, 0] + new, 500)
        for (grid, _, tolerance), array in zip(self.grids, dense, strict=True):
            grid.copyFromArray(array, ijk=corner, tolerance=tolerance)

    def extract(self, adaptivity):
        """Return points, triangles and colours of what is known."""
        windows = np.array(list(self.windows), np.int64).reshape(-1, 3)
        points, triangles = known_polygons(self.distance, self.weight, windows, 0.0, adaptivity)
        return points, triangles, colors_at(points, self.weight, self.color)

    def save(self, path):
        """Write distances, weights and colours."""
        write(path, self.distance, self.weight, self.color)


CUBE = cube(SIDE)


def level_grid(voxel, origin, background):
    """Return an empty level set; the voxel (0, 0, 0) lies at (origin, origin, origin), or at three numbers."""
    grid = vdb.FloatGrid(background)
    grid.name, grid.gridClass = "surface", vdb.GridClass.LEVEL_SET
    matrix = np.diag([voxel, voxel, voxel, 1.0])
    matrix[3, :3] = origin
    grid.transform = vdb.createLinearTransform(matrix.tolist())
    return grid


def polygons(grid, isovalue, adaptivity):
    """Return points (V, 3), triangles (F, 3) and quads (Q, 4), counter-clockwise seen from the side of larger values."""
    points, triangles, quads = grid.convertToPolygons(isovalue, adaptivity)
    points = np.asarray(points, np.float64).reshape(-1, 3)
    if not np.isfinite(points).all():
        raise ValueError("its polygons are not finite numbers")
    # OpenVDB winds clockwise seen from outside.
    return points, np.asarray(triangles, np.int64).reshape(-1, 3)[:, ::-1], np.asarray(quads, np.int64).reshape(-1, 4)[:, ::-1]


def split(triangles, quads):
    """Return all polygons as triangles (F, 3) without those of repeated corners."""
    faces = np.concatenate([triangles, quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return faces[(faces != np.roll(faces, 1, axis=1)).all(1)]


def known_polygons(distance, weight, windows, isovalue, adaptivity):
    """Return points and triangles of a surface where all voxels are known (weight > 0); the windows (W, 3) hold all of those.

    OpenVDB puts one vertex into each cell between eight voxels and joins those around each crossed edge. Polygons stay that have a
    corner in a cell of known voxels; their other corners are drawn back to about the border of these cells.
    """
    points, triangles, quads = polygons(continued(distance, weight, windows), isovalue, adaptivity)
    known = np.ones(len(points), bool)
    for rows, _, around in corners(points, [(weight, ())]):
        known[rows] = np.logical_and.reduce([mass > 0 for _, (mass,) in around])
    triangles, quads = triangles[known[triangles].any(1)], quads[known[quads].any(1)]
    total, count = np.zeros_like(points), np.zeros(len(points))
    for polygon in (triangles, quads):
        for i, j in np.ndindex(polygon.shape[1], polygon.shape[1]):
            rows = polygon[~known[polygon[:, i]] & known[polygon[:, j]]]
            np.add.at(total, rows[:, i], points[rows[:, j]])
            np.add.at(count, rows[:, i], 1)
    border = count > 0
    points[border] = (points[border] + total[border] / count[border, None]) / 2
    used, index = np.unique(split(triangles, quads), return_inverse=True)
    return points[used], index.reshape(-1, 3)


def continued(distance, weight, windows):
    """Return the distances with those of unknown voxels beside known ones guessed along lines, so that no wall is seen between the
    last solid voxel and the background that unknown ones hold."""
    out, far, steps = distance.deepCopy(), distance.background, cube(3) - 1
    for window in np.unique((windows[:, None] + steps).reshape(-1, 3), axis=0):
        low = window * REGION
        known, values = (np.zeros((REGION + 4,) * 3, np.float32) for _ in range(2))
        weight.copyToArray(known, ijk=tuple(int(c) for c in low - 2))
        if not known.any():
            continue
        distance.copyToArray(values, ijk=tuple(int(c) for c in low - 2))
        known = known > 0
        near = known.copy()
        for axis in range(3):
            near |= np.roll(near, 1, axis) | np.roll(near, -1, axis)
        at = np.argwhere((near & ~known)[2:-2, 2:-2, 2:-2]) + 2
        if not len(at):
            continue
        guess, mass = np.zeros(len(at)), np.zeros(len(at))
        for step in steps[(steps != 0).any(1)]:
            one, two = tuple((at + step).T), tuple((at + 2 * step).T)
            line = known[two] & (np.abs(values[two]) < far)
            share = known[one] * np.where(line, 1.0, 0.05)
            guess += share * np.where(line, 2 * values[one] - values[two], values[one])
            mass += share
        values[tuple(at.T)] = np.clip(guess / np.maximum(mass, 1e-9), -far, far)
        inner = np.ascontiguousarray(values[2:-2, 2:-2, 2:-2])
        out.copyFromArray(inner, ijk=tuple(int(c) for c in low), tolerance=far * 1e-6)
    return out


def corners(points, grids):
    """Yield rows of points, their place (N, 3) within their cells, and for each cell corner the values of each grid there."""
    place = index_places(grids[0][0], points)
    cell = np.floor(place + 1e-6).astype(np.int64)
    for window, rows in grouped(cell // REGION):
        low = np.array(window) * REGION
        dense = [np.zeros((REGION + 1,) * 3 + tail, np.float32) for _, tail in grids]
        for (grid, _), array in zip(grids, dense, strict=True):
            grid.copyToArray(array, ijk=tuple(int(c) for c in low))
        inner = cell[rows] - low
        yield rows, place[rows] - cell[rows], [(step, [a[tuple((inner + step).T)] for a in dense]) for step in np.ndindex(2, 2, 2)]


def index_places(grid, points):
    """Return points (N, 3) in the grid's voxels; the transform is linear."""
    origin = np.array(grid.transform.indexToWorld((0, 0, 0)))
    axes = np.array([grid.transform.indexToWorld(tuple(row)) for row in np.eye(3, dtype=int).tolist()]) - origin
    return (points - origin) @ np.linalg.inv(axes)


def colors_at(points, weight, color):
    """Return colours (N, 3) uint8, trilinear between the voxels that have one."""
    out = np.zeros((len(points), 3))
    for rows, inner, around in corners(points, [(weight, ()), (color, (3,))]):
        total = np.full(len(rows), 1e-9)
        for step, (mass, rgb) in around:
            share = np.clip(1 - np.abs(inner - step), 1e-3, 1).prod(1) * ((mass > 0) & rgb.any(-1))
            out[rows] += share[:, None] * rgb
            total += share
        out[rows] /= total[:, None]
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


def leaves(grid):
    """Return the low corners (N, 3) int64 of the leaves: from the root's nodes down, as the tree has no list of them."""
    low, high = (np.array(corner, np.int64) for corner in grid.evalLeafBoundingBox())
    sides = (4096, 128, SIDE)
    if not grid.leafCount():
        return np.zeros((0, 3), np.int64)
    if np.prod((high - low) / sides[0] + 2) > 1e6:
        raise ValueError("it spans more than a million nodes of the root")
    depth, span = grid.getConstAccessor().getValueDepth, high // sides[0] - low // sides[0] + 1
    found = (np.stack(np.meshgrid(*[np.arange(n) for n in span], indexing="ij"), -1).reshape(-1, 3) + low // sides[0]) * sides[0]
    for level, side in enumerate(sides):
        if level:
            found = (found[:, None] + cube(sides[level - 1] // side) * side).reshape(-1, 3)
        found = found[((found + side > low) & (found <= high)).all(1)]
        # One voxel tells for the whole node: a value kept at this level or above is one for all of it.
        found = found[[depth(tuple(corner)) > level for corner in found.tolist()]]
    return found


def pick(path):
    """Return the grids of a file that holds a level set, and the level set: ours, else the first one, else the first of floats."""
    infos = [g for g in vdb.readAllGridMetadata(path) if g.valueTypeName == "float"]
    if not infos:
        raise ValueError("it holds no grid of floats")
    rank = [(g.name != "surface", g.gridClass != vdb.GridClass.LEVEL_SET) for g in infos]
    return vdb.read(path, infos[rank.index(min(rank))].name)


def to_mesh(path, isovalue, adaptivity):
    """Return points and triangles of a file's surface; one of ours that knows what is unknown has no second wall behind it."""
    grid = pick(path)
    if not grid.transform.isLinear:
        raise ValueError("its transform is not linear")
    if grid.metadata.get("generator") == MARK and grid.metadata.get("unknown") == "weight":
        weight = vdb.read(path, "weight")
        points, faces = known_polygons(grid, weight, np.unique(leaves(weight) // REGION, axis=0), isovalue, adaptivity)
    else:
        points, *some = polygons(grid, isovalue, adaptivity)
        faces = split(*some)
    place = np.array([grid.transform.indexToWorld(tuple(row)) for row in [[0, 0, 0], *np.eye(3, dtype=int).tolist()]])
    if np.linalg.det(place[1:] - place[0]) < 0:
        faces = faces[:, ::-1]
    return points, faces


def to_voxels(path):
    """Return the band of a file's level set: ijk, values, and voxel, origin, background."""
    grid = pick(path)
    origin = np.array(grid.transform.indexToWorld((0, 0, 0)))
    axes = np.array([grid.transform.indexToWorld(tuple(row)) for row in np.eye(3, dtype=int).tolist()]) - origin
    if not grid.transform.isLinear or not np.allclose(axes, np.eye(3) * axes[0, 0], rtol=1e-5, atol=1e-5 * abs(axes[0, 0])):
        raise ValueError("its cells are not cubes along the axes")
    background, ijk, values = float(grid.background), [np.zeros((0, 3), np.int64)], [np.zeros(0, np.float32)]
    dense = np.zeros((SIDE,) * 3, np.float32)
    for low in leaves(grid):
        grid.copyToArray(dense, ijk=tuple(int(c) for c in low))
        inside = np.flatnonzero(np.abs(dense.reshape(-1)) < background * (1 - 1e-6))
        ijk.append(low + CUBE[inside])
        values.append(dense.reshape(-1)[inside])
    return {"ijk": np.concatenate(ijk), "values": np.concatenate(values), "voxel": axes[0, 0], "origin": origin,
            "background": background}


def from_voxels(ijk, values, voxel, origin, background):
    """Return a level set of voxels (N, 3) and their distances (N,)."""
    grid = level_grid(float(voxel), origin, float(background))
    for window, rows in grouped(ijk.astype(np.int64) // REGION):
        low = np.array(window) * REGION
        dense = np.full((REGION,) * 3, background, np.float32)
        dense[tuple((ijk[rows] - low).T)] = values[rows]
        grid.copyFromArray(dense, ijk=tuple(int(c) for c in low))
    return grid


def from_mesh(points, faces, voxel, is_open):
    """Return the level set of a closed mesh, its samples at the cells' centres; gaps far smaller than a cell do no harm."""
    place = level_grid(voxel, voxel / 2, 1.0).transform
    grid = vdb.FloatGrid.createLevelSetFromPolygons(points, triangles=faces, transform=place)
    # At an open sheet a few voxels of less than a hundredth of the band get the wrong sign; a solid has near half of it inside.
    if grid.evalMinMax()[0] >= 0 or (is_open and inside_share(grid) < LEAST_INSIDE):
        raise ValueError("the mesh has no inside: it is open, or thinner than a cell")
    grid.name = "surface"
    return grid


def inside_share(grid):
    """Return which part of the band is negative."""
    dense, count = np.zeros((SIDE,) * 3, np.float32), 0
    for low in leaves(grid):
        grid.copyToArray(dense, ijk=tuple(int(c) for c in low))
        count += np.count_nonzero((dense < 0) & (dense > -grid.background))
    return count / max(1, grid.activeVoxelCount())


def write(path, grid, *more):
    """Write grids with what they mean."""
    unknown = {"unknown": "weight"} if more else {}
    for each in (grid, *more):
        each.updateMetadata({"generator": MARK, "unit": "metre", "up": "+z", **unknown})
    vdb.write(path, grids=[grid, *more])


def answer(fusion, do, ask):
    """Run one command; returns the fusion that later commands are for."""
    if do == "begin":
        return Fusion(ask["voxel"], ask["truncation"], ask["behind"], ask["free_share"])
    if do == "make":
        with np.load(ask["path"]) as data:
            fusion.make(data["blocks"])
    elif do == "integrate":
        with np.load(ask["path"]) as data:
            fusion.integrate(data)
    elif do == "extract":
        points, faces, color = fusion.extract(ask["adaptivity"])
        np.savez(ask["path"], points=points, faces=faces, color=color)
    elif do == "save":
        fusion.save(ask["path"])
    elif do == "mesh_to_vdb":
        with np.load(ask["mesh"]) as data:
            write(ask["path"], from_mesh(data["points"], data["faces"], ask["voxel"], ask["open"]))
    elif do == "vdb_to_mesh":
        points, faces = to_mesh(ask["path"], ask["isovalue"], ask["adaptivity"])
        np.savez(ask["mesh"], points=points, faces=faces)
    elif do == "write_vdb":
        with np.load(ask["voxels"]) as data:
            write(ask["path"], from_voxels(**data))
    elif do == "read_vdb":
        np.savez(ask["voxels"], **to_voxels(ask["path"]))
    return fusion


def main():
    """Answer commands until the input ends."""
    fusion = None
    for line in sys.stdin:
        ask, reply = json.loads(line), {"ok": True}
        try:
            fusion = answer(fusion, ask["do"], ask)
        except MemoryError:
            reply = {"ok": False, "why": "out of memory: damaged, or too large"}
        except Exception as error:  # Whatever it is, the other process is told, in one line.
            reply = {"ok": False, "why": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    if int(sys.argv[1]):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
    import pyopenvdb as vdb

    main()
