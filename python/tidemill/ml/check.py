"""What every detector must do, as checks that any detector can be put through, a user's own included.

The checks judge no detector's quality; they find what makes a detector wrong in a stream: looking ahead, mixing keys,
depending on the size of batches, forgetting when restored. The same suite in Rust runs over the engine's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class ScoresLike(Protocol):
    """What a detector says of n values: any object with these three attributes.

    Example:
        >>> from types import SimpleNamespace
        >>> import numpy as np
        >>> from tidemill import ml
        >>> nothing = np.array([np.nan])
        >>> scores: ml.ScoresLike = SimpleNamespace(score=nothing, p_value=nothing, is_anomaly=np.array([False]))
    """

    @property
    def score(self) -> Floats:
        """Float64 of shape (n,): higher is more anomalous; NaN where it cannot be told."""

    @property
    def p_value(self) -> Floats:
        """Float64 of shape (n,): the probability of such a score where nothing is anomalous; NaN where score is."""

    @property
    def is_anomaly(self) -> npt.NDArray[np.bool_]:
        """Bool of shape (n,): whether the value is worth an alarm."""


class DetectorLike(Protocol):
    """What `check` needs of a detector: these four methods and ``threshold``.

    Example:
        >>> from types import SimpleNamespace
        >>> import numpy as np
        >>> from tidemill import ml
        >>> class Silent:
        ...     threshold = 1e-3
        ...     def score_then_learn(self, values, keys=None):
        ...         nothing = np.full(len(values), np.nan)
        ...         return SimpleNamespace(score=nothing, p_value=nothing, is_anomaly=np.zeros(len(values), bool))
        ...     def reset(self): pass
        ...     def save(self): return b""
        ...     def load(self, data): pass
        >>> detector: ml.DetectorLike = Silent()
        >>> detector.score_then_learn(np.array([20.0])).is_anomaly
        array([False])
    """

    @property
    def threshold(self) -> float:
        """The accepted probability of a false alarm."""

    def score_then_learn(self, values: Floats, keys: Any = None) -> ScoresLike:
        """Scores values of shape (n,) in order, each by what was learnt before it.

        ``keys`` has shape (n,): each key has its own state. None: all values are of one key.
        """

    def reset(self) -> None:
        """Forgets all that was learnt."""

    def save(self) -> bytes:
        """All that was learnt."""

    def load(self, data: bytes, /) -> None:
        """Replaces all that was learnt by what `save` gave."""


@dataclass(frozen=True)
class Failure:
    """A check that did not hold: its name, and what was expected and seen.

    Example:
        >>> from tidemill import ml
        >>> print(ml.Failure("causal", "row 3 changed when row 4 did"))
        causal: row 3 changed when row 4 did
    """

    check: str
    reason: str

    def __str__(self) -> str:
        return f"{self.check}: {self.reason}"


class CheckFailedError(AssertionError):
    """A detector does not do what every detector must; ``failures`` names each check that did not hold.

    Example:
        >>> from tidemill import ml
        >>> error = ml.CheckFailedError("Mine()", [ml.Failure("causal", "row 3 changed when row 4 did")])
        >>> print(error)
        'Mine()' fails 1 checks:
          causal: row 3 changed when row 4 did
    """

    def __init__(self, detector: object, failures: list[Failure]) -> None:
        super().__init__("\n  ".join([f"{detector!r} fails {len(failures)} checks:", *map(str, failures)]))
        self.failures = failures


def check(detector: DetectorLike) -> None:
    """Runs all checks on ``detector``; what it has learnt is forgotten.

    Args:
        detector: any object with the methods of `DetectorLike`.

    Raises:
        CheckFailedError: names every check that did not hold, with what was seen. An exception that the detector
            itself raises is such a failure too.

    Example:
        >>> from tidemill import ml
        >>> ml.check(ml.Ewma(alpha=0.1))
    """
    found = [failure for name, holds in _CHECKS.items() if (failure := _verdict(detector, name, holds))]
    detector.reset()
    if found:
        raise CheckFailedError(detector, found)


def _verdict(detector: DetectorLike, name: str, holds: Callable[[DetectorLike], None]) -> Failure | None:
    try:
        detector.reset()
        holds(detector)
    except _Broken as broken:
        return Failure(name, str(broken))
    except Exception as error:  # a user's own detector may raise anything
        return Failure(name, f"raised {error!r}")
    return None


class _Broken(Exception):
    pass


def _expect(holds: object, reason: str) -> None:
    if not holds:
        raise _Broken(reason)


def _noise(count: int, **at: float) -> Floats:
    """Plain noise, the same in every run, with other values at the given rows: ``_noise(9, at_3=1e9)``."""
    values = 20.0 + np.random.default_rng(0x7E57).standard_normal(count)
    for row, value in at.items():
        values[int(row.removeprefix("at_"))] = value
    return values


def _score(detector: DetectorLike, values: Floats, keys: Any = None) -> Floats:
    """Shape (n, 3): score, p_value and is_anomaly of each value."""
    found = detector.score_then_learn(values, keys)
    columns = [np.asarray(column, np.float64) for column in (found.score, found.p_value, found.is_anomaly)]
    for column in columns:
        _expect(column.shape == values.shape, f"shape {values.shape} was expected, found {column.shape}")
    return np.stack(columns, axis=1)


def _fresh(detector: DetectorLike, values: Floats, keys: Any = None) -> Floats:
    detector.reset()
    return _score(detector, values, keys)


def _same(expected: Floats, found: Floats, where: str) -> None:
    """Equal to the last bit."""
    _expect(len(expected) == len(found), f"{where}: {len(expected)} scores were expected, found {len(found)}")
    differ = ~((expected == found) | (np.isnan(expected) & np.isnan(found))).all(axis=1)
    if differ.any():
        row = int(differ.argmax())
        raise _Broken(
            f"{where}, row {row}: {expected[row]} was expected (score, p, anomaly), found {found[row]}"
        )


def _causal(detector: DetectorLike) -> None:
    values = _noise(1_000, at_700=90.0)
    whole = _fresh(detector, values)
    for length in (1, 100, 500, 701):
        _same(whole[:length], _fresh(detector, values[:length]), f"the first {length} values alone")


def _batch_size_invariant(detector: DetectorLike) -> None:
    values, keys = _noise(1_000, at_700=90.0, at_97=np.nan), np.arange(1_000) % 7 // 3
    whole = _fresh(detector, values, keys)
    for size in (1, 7, 300):
        detector.reset()
        parts = [_score(detector, values[rows], keys[rows]) for rows in _slices(len(values), size)]
        _same(whole, np.concatenate(parts), f"in batches of {size}")


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))


def _key_isolated(detector: DetectorLike) -> None:
    values, keys = _noise(1_200), np.arange(1_200) % 3
    values[(keys == 1) & (np.arange(1_200) > 600)] = 1e6
    together = _fresh(detector, values, keys)
    for key in range(3):
        alone = _fresh(detector, values[keys == key])
        _same(alone, together[keys == key], f"key {key} among others")


def _restored(detector: DetectorLike) -> None:
    values, keys = _noise(1_500, at_740=90.0, at_800=90.0), np.arange(1_500) % 2
    for cut in (0, 1, 25, 750):
        _fresh(detector, values[:cut], keys[:cut])
        saved = detector.save()
        expected = _score(detector, values[cut:], keys[cut:])
        detector.reset()
        detector.load(saved)
        _same(expected, _score(detector, values[cut:], keys[cut:]), f"restored after {cut} values")


def _not_finite(detector: DetectorLike) -> None:
    strange = np.arange(1_000) % 5 == 2
    for value in (np.nan, np.inf, -np.inf):
        values = np.where(strange, value, _noise(1_000, at_700=90.0))
        found = _fresh(detector, values)
        silent = np.isnan(found[strange, :2]).all() and not found[strange, 2].any()
        _expect(silent, f"{value} was expected to get no score, no probability and no alarm")
        _same(_fresh(detector, values[~strange]), found[~strange], f"with {value} between")


def _constant(detector: DetectorLike) -> None:
    for value in (0.0, 21.3, -1e9):
        found = _fresh(detector, np.r_[np.full(1_900, value), value + 1.0, np.full(99, value)])
        _finite(found, f"constant {value}")
        _expect(not found[:1_900, 2].any(), f"constant {value}: no alarm was expected, found one")


def _finite(found: Floats, where: str) -> None:
    _expect(not np.isinf(found).any(), f"{where}: finite scores were expected, found an infinite one")
    _expect(
        not np.isnan(found[-1, 0]), f"{where}: a score was expected after {len(found)} values, found none"
    )


def _one_or_none(detector: DetectorLike) -> None:
    _expect(len(_fresh(detector, _noise(0))) == 0, "no score was expected of no value")
    _expect(not _fresh(detector, _noise(1))[0, 2], "no alarm was expected of the first value")


def _huge(detector: DetectorLike) -> None:
    values, largest = _noise(1_000), np.finfo(np.float64).max
    values[10::50], values[11::50] = largest, -largest
    _finite(_fresh(detector, values), "among the largest floats")


def _deterministic(detector: DetectorLike) -> None:
    values = _noise(1_000, at_700=90.0)
    _same(_fresh(detector, values), _fresh(detector, values), "the same again")


def _sign(detector: DetectorLike) -> None:
    found = _fresh(detector, _noise(1_000, at_900=120.0))
    before, spike = np.nanmax(found[:900, 0]), found[900]
    _expect(
        spike[0] > before,
        f"100 deviations above noise: a score above {before} was expected, found {spike[0]}",
    )
    _expect(spike[2], "100 deviations above noise: an anomaly was expected")


def _probabilities(detector: DetectorLike) -> None:
    score, p_value, anomaly = _fresh(detector, _noise(3_000, at_699=90.0, at_2099=90.0)).T
    known = ~np.isnan(score)
    _expect(np.isnan(p_value[~known]).all(), "a probability was found where there is no score")
    _expect(
        ((p_value[known] >= 0) & (p_value[known] <= 1)).all(), "probabilities were expected between 0 and 1"
    )
    alarms = p_value[anomaly == 1]
    _expect((alarms < detector.threshold).all(), f"alarms were expected below p = {detector.threshold} only")
    falling = p_value[known][np.argsort(score[known], kind="stable")]
    _expect((np.diff(falling) <= 0).all(), "a higher score was expected to be less probable")


_CHECKS: dict[str, Callable[[DetectorLike], None]] = {
    "causal": _causal,
    "batch-size invariant": _batch_size_invariant,
    "key-isolated": _key_isolated,
    "restored state continues identically": _restored,
    "what is not finite gets no score and is not learnt": _not_finite,
    "constant input": _constant,
    "one value, or none": _one_or_none,
    "huge values": _huge,
    "deterministic": _deterministic,
    "score sign": _sign,
    "scores and probabilities agree": _probabilities,
}
