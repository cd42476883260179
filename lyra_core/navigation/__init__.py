"""Where a robot can go: free space, geodesic distance, episodes and the occupancy map, from collision geometry alone."""

from lyra_core.navigation.disc import DiscSpace
from lyra_core.navigation.episodes import load_episodes, sample_episodes, save_episodes
from lyra_core.navigation.files import load_free_space, save_free_space
from lyra_core.navigation.freespace import (
    area_by_provenance,
    free_points,
    free_space,
    free_space_stats,
    home_island,
    islands,
    with_seen_floor,
)
from lyra_core.navigation.geodesic import GeodesicField, GeodesicGraph
from lyra_core.navigation.occupancy import save_occupancy_map

__all__ = [
    "DiscSpace",
    "GeodesicField",
    "GeodesicGraph",
    "area_by_provenance",
    "free_points",
    "free_space",
    "free_space_stats",
    "home_island",
    "islands",
    "load_episodes",
    "load_free_space",
    "sample_episodes",
    "save_episodes",
    "save_free_space",
    "save_occupancy_map",
    "with_seen_floor",
]
