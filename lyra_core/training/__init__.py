"""Training of the networks on posed frames with depth, the project's own worlds among them."""
