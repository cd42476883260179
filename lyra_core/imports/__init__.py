"""Worlds from anyone's files: readers of scans, captures, meshes, splats and other generators' output, and the build."""
