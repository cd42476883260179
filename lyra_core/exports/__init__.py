"""Finished worlds in other tools' formats: meshes, point clouds, stages, simulators' scenes, capture folders, maps and splats."""

from lyra_core.exports.base import FORMATS, ExportCfg, export_world

__all__ = ["FORMATS", "ExportCfg", "export_world"]
