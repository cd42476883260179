"""Finished worlds in other tools' formats."""
