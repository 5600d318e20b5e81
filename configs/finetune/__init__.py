"""Configs of `harvest train` for fine-tuning: what is learnt after post-pretraining."""
