"""Warp kernels of the ray tracer; importing this file needs warp."""

# Warp writes array types as calls.
# pyright: reportInvalidTypeForm=false

import warp as wp


@wp.kernel
def first_hit(
    mesh: wp.uint64,
    origins: wp.array(dtype=wp.vec3),
    directions: wp.array(dtype=wp.vec3),
    face: wp.array(dtype=wp.int32),
    t: wp.array(dtype=wp.float32),
    uv: wp.array(dtype=wp.vec2),
):
    """One ray a thread; Warp's u, v weigh the first and second vertex, ours the second and third."""
    i = wp.tid()
    length = wp.length(directions[i])
    hit = wp.mesh_query_ray(mesh, origins[i], directions[i] / length, 1.0e6)
    if hit.result:
        face[i] = hit.face
        t[i] = hit.t / length
        uv[i] = wp.vec2(hit.v, 1.0 - hit.u - hit.v)
    else:
        face[i] = -1
        t[i] = wp.inf
        uv[i] = wp.vec2(0.0, 0.0)
