"""Configs of `harvest eval`, one for each task."""
