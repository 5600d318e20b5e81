"""Ranking and the scores that follow from it: arrays in, numbers out."""
