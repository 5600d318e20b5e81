"""Whether the stored frames of a clip can be of the part of the video that a row asks for."""

from collections.abc import Sequence

_ROUNDING = 0.002  # seconds; stored as float32, whose steps are this large after some hours


def other_part(start: float | None, end: float | None, seconds: Sequence[float]) -> str:
    """Why stored frames are of another part of the video than start..end; "" if they may be of it.

    Frame i of T is the picture that is shown at start + (i + 1/2) / T of the part, and its time is that at which this
    picture begins. So no frame begins after the end, only one can begin before the start, and the first begins at most
    1/(2T) of the part after the start (1/T if the frames were chosen among stored ones).

    A stored part that begins where the row's does and ends earlier is not found: the video might end there.

    Args:
      start, end: seconds in the file; None: its start, its end.
      seconds: of the stored frames, rising.
    """
    if not seconds:
        return ""  # a record without frames, which reading refuses
    first, last, count = seconds[0], seconds[-1], len(seconds)
    begin = start or 0.0
    outside = end is not None and last > end + _ROUNDING
    early = sum(second < begin - _ROUNDING for second in seconds) > 1
    late = end is not None and first - begin > (end - begin) / count + _ROUNDING
    # With t the first wanted time after the start, the last frame but one is wanted at (2T - 3) t or later, and the
    # last frame begins after that. Half of t, because of frames chosen among stored ones.
    late = late or (count > 1 and (first - begin) / 2 * (2 * count - 3) >= last - begin + _ROUNDING)
    if not (outside or early or late):
        return ""
    wanted = f"{begin:g} s to {'its end' if end is None else f'{end:g} s'}"
    return f"the part stored under its id is another one: frames from {first:.1f} to {last:.1f} s, wanted {wanted}"
