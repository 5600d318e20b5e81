"""A generated world of short clips in which every factor is known: what is seen, what moves how, in which order.

Everything here is NumPy, Pillow and the standard library, and scikit-learn for the pictures of one look; nothing reads
a clip back.
"""

WORLD_VERSION = "1"  # a clip is known by this, a seed, a split and a number; a change of any clip is a new version
