"""The clips of an evaluation: which ones, their frames, their embeddings."""
