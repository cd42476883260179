"""Ray casting against triangle meshes: a base service, because generator, lift, navigation and sensors all need it."""

from lyra_core.rays.base import Hits, RayTracer, cast_camera, make_ray_tracer, sphere_directions

__all__ = ["Hits", "RayTracer", "cast_camera", "make_ray_tracer", "sphere_directions"]
