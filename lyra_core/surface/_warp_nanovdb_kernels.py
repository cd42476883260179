"""Warp kernels that sample NanoVDB volumes (see ``surface.nanovdb``); importing this file needs warp."""

# Warp writes array types as calls, and its functions take its own number types.
# pyright: reportInvalidTypeForm=false, reportOperatorIssue=false, reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false

import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.kernel
def sample(volume: wp.uint64, places: wp.array(dtype=wp.vec3f), values: wp.array(dtype=wp.float32)):
    """Interpolate a float volume at points in voxels."""
    i = wp.tid()
    values[i] = wp.volume_sample_f(volume, places[i], wp.Volume.LINEAR)
