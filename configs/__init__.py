"""Configurations as a data package: YAML that holds only what differs from the defaults."""
