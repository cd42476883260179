"""Move Gaussians by a similarity; the work is in lyra_core.camera.gaussians, which the USD reader shares."""

from lyra_core.camera.gaussians import T_Z_UP_FROM_Y_UP, flipped, sh_basis, sh_rotations, split_similarity, transformed

__all__ = ["T_Z_UP_FROM_Y_UP", "flipped", "sh_basis", "sh_rotations", "split_similarity", "transformed"]
