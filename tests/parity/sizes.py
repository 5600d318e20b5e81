"""Which architectures are compared with what: all with transformers and OpenAI's module, fewer where it is costly."""

SIZES = ("B/32", "B/16", "L/14", "L/14@336", "H/14")
OPENAI_SIZES = SIZES[:-1]  # those that OpenAI published
OPEN_CLIP_SIZES = ("B/32", "H/14")
GRADIENT_SIZES = ("B/32", "L/14")
SMALL = ("B/32", "B/16")  # float32 files and more pictures; the others have files of float16, and numbers that fit it
