"""Errors that a user can cause or correct; the command line prints them as one line and exits with their code.

Exit codes: 0 done, 1 other, 2 configuration, 3 data, 4 non-finite loss, 5 checkpoint, 6 what hung, or a process
that was lost, 7 no progress, 42 stopped by a signal with the state saved (after 6 and 42 the same command goes on).
"""


class HarvestError(Exception):
    """Base class: the message says what is wrong, where, and what to do, in one line."""

    exit_code = 1


class ConfigError(HarvestError):
    """A config, a command-line value or a combination of them cannot be used."""

    exit_code = 2


class DataError(HarvestError):
    """A manifest, a video, a shard or a weights file cannot be used."""

    exit_code = 3


class NonFiniteError(HarvestError):
    """The loss or the gradient stopped being a number; nothing non-finite was saved."""

    exit_code = 4


class CheckpointError(HarvestError):
    """A checkpoint is damaged, belongs to another run, or could not be read or written."""

    exit_code = 5


class HungError(HarvestError):
    """Something takes far longer than it usually does, or another process of the run is dead, stopped or not there."""

    exit_code = 6


class NoProgressError(HarvestError):
    """A launcher does not start a run again: its last attempts brought no new checkpoint, or there were too many."""

    exit_code = 7


class Preempted(HarvestError):
    """A signal asked the run to stop; the state was saved."""

    exit_code = 42
