"""Generated frames as H.264 in MP4, the same bytes on every run."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

# One thread, so that timing decides nothing. No macroblock tree: its vector code takes 8 macroblocks at once, and in a
# picture 4 macroblocks wide it reads memory that nothing has written, so that the same frames became other bytes
# (docs/demo.md, "What is reproducible").
ENCODER: dict[str, object] = {"crf": "18", "preset": "veryfast", "threads": "1", "mbtree": "0"}


def write_video(path: Path, frames: UInt8[np.ndarray, "t h w 3"], frames_per_second: Fraction | int = 8) -> None:
    """Encode frames as H.264 in MP4; equal frames give equal bytes on one machine."""
    rate = Fraction(frames_per_second)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.time_base = 1 / rate
        stream.options = ENCODER
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
