"""Benchmarks: each proves its results right, then times them. From the root: ``python -m tests.benchmarks.NAME``."""
