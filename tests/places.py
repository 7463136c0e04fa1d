"""Where the suite keeps what outlives a clone: one folder in the user's cache.

It deliberately has no rule of its own for Cargo's folder: the build backend has it, and both must agree.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
BACKEND = ROOT / ".build" / "tidemill_build.py"


def cache_folder() -> Path:
    """The folder in the user's cache that belongs to tidemill's builds and suite."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tidemill"


def target_dir(profile: str = "dev") -> Path:
    """Where Cargo builds, free of what another clone built of this package in `profile`."""
    return Path(backend().claim_target_dir(profile))


def backend() -> ModuleType:
    """The build backend, which is on no path but pip's."""
    spec = importlib.util.spec_from_file_location("tidemill_build", BACKEND)
    if spec is None or spec.loader is None:
        raise ImportError(f"{BACKEND} cannot be read")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
