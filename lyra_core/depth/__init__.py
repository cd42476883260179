"""Depth of the photo: from single-view geometry, or from a file."""
