"""Defaults of what becomes a clip; all are our choice."""

SHORTEST, LONGEST = 2.0, 20.0  # seconds of a clip
BLACK = 16.0  # brightness, 0 to 255
STILL = 0.25  # change of the pictures in 0.25 s, 0 to 255
DUPLICATE = 4.0  # difference from another clip, 0 to 255
