"""Training of the layout prior: a small network that reads floor, walls and things from a photo, learnt on the seeded scenes."""
