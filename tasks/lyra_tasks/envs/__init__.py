"""The environments; make them by id with gymnasium.make."""
