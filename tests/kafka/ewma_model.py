"""A short model of `detect(Ewma())` over a fleet: what the tests of whole jobs compare alerts with.

It deliberately uses nothing of tidemill, and works the other way round: over all devices of a round at once, and over
whole series where the engine keeps a ring. Only the definition of the detector is shared.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]

ALPHA = 0.05
WARMUP = 30
THRESHOLD = 1e-3
# The last 150 points, in sixteen blocks of nine.
BLOCK, BLOCKS = 9, 16


def alerts(readings: Matrix) -> set[tuple[int, int]]:
    """The (device, round) of every alarm in `readings`, a row a round and a column a device; NaN is no reading."""
    scores = _scores(readings)
    return {(device, at) for device in range(readings.shape[1]) for at in _alarms(scores[:, device])}


def _scores(readings: Matrix) -> Matrix:
    """How many standard deviations each reading is off the weighted mean of those before it; NaN for none."""
    devices = readings.shape[1]
    mean, variance, seen = np.zeros(devices), np.zeros(devices), np.zeros(devices, dtype=np.int64)
    scores = np.full(readings.shape, np.nan)
    for now, out in zip(readings, scores, strict=True):
        there = ~np.isnan(now)
        first, warm = there & (seen == 0), there & (seen >= WARMUP)
        mean = np.where(first, now, mean)
        off = np.where(there, now - mean, 0.0)
        np.divide(np.abs(off), np.sqrt(variance), out=out, where=warm)
        step = ALPHA * off
        variance = np.where(there, (1.0 - ALPHA) * (variance + step * off), variance)
        mean = mean + step
        seen += there
    return scores


def _alarms(scores: Matrix) -> list[int]:
    """The rounds in which one device's score is improbable and above all that were scored shortly before."""
    scored = np.flatnonzero(~np.isnan(scores))
    series = scores[scored]
    improbable = np.flatnonzero(series > 3.0)  # a bound that is surely below the threshold's
    return [int(scored[i]) for i in improbable if _improbable(series[i]) and _loud(series, int(i))]


def _improbable(score: float) -> bool:
    return math.erfc(score / math.sqrt(2.0)) < THRESHOLD


def _loud(series: Matrix, i: int) -> bool:
    remembered = series[max(0, (i // BLOCK - BLOCKS) * BLOCK) : i]
    return bool(remembered.size == 0 or series[i] > remembered.max())
