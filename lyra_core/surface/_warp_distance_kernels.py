"""Warp kernels of distances to a mesh (see ``surface.distance``); importing this file needs warp."""

# Warp writes array types as calls, and its functions take its own number types.
# pyright: reportInvalidTypeForm=false, reportOperatorIssue=false, reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false

import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.kernel
def closest(
    mesh: wp.uint64, points: wp.array(dtype=wp.vec3f), limit: wp.float32,
    distance: wp.array(dtype=wp.float32), face: wp.array(dtype=wp.int32), place: wp.array(dtype=wp.vec3f),
):
    """Find the nearest point of a mesh within limit; face -1 = none."""
    i = wp.tid()
    found = wp.mesh_query_point_no_sign(mesh, points[i], limit)
    distance[i] = wp.inf
    face[i] = -1
    if found.result:
        at = wp.mesh_eval_position(mesh, found.face, found.u, found.v)
        distance[i] = wp.length(at - points[i])
        face[i] = found.face
        place[i] = at
