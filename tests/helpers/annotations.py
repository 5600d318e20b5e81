"""Real videos and annotation files, for tests that use them where they are.

They are in the folder that the variable HARVEST_TEST_DATA names: its `annotations` holds the annotation files of public
data sets, its `videos` and `web_clips.csv` real clips. Without the variable they are looked for in `../shared/data`
beside the checkout. Tests that need them are skipped where they are missing.
"""

import os
from pathlib import Path

DATA = Path(os.environ.get("HARVEST_TEST_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
ANNOTATIONS = DATA / "annotations"
