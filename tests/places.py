"""Where the suite keeps what outlives a clone: one folder in the user's cache.

It deliberately repeats one rule of the build backend, which must stand alone; a test holds the two together.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]


def cache_folder() -> Path:
    """The folder in the user's cache that belongs to tidemill's builds and suite."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tidemill"


def target_dir() -> Path:
    """Where Cargo builds: one folder for all clones, unless CARGO_TARGET_DIR says otherwise."""
    return Path(os.environ.get("CARGO_TARGET_DIR") or cache_folder() / "target")
