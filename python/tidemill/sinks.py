"""The words for outputs: which column is a record's key.

Only the words are here: the sinks themselves are in the engine.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal


class Auto(Enum):
    """The type of `AUTO`."""

    AUTO = "AUTO"

    def __repr__(self) -> str:
        return "AUTO"


AUTO: Final = Auto.AUTO
"""Let the stream decide: the ``key_by`` column is the record's key (several: a JSON array), none where unkeyed."""

AutoType = Literal[Auto.AUTO]
