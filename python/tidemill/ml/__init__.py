"""Streaming machine learning: detectors that learn from each value after they have scored it.

A detector is given to ``detect`` of a keyed stream, or scores arrays by itself; nothing here knows a stream. All have
the same four stages (scale, score, calibrate, loud), so that ``threshold`` means the same everywhere: the accepted
probability of a false alarm.

>>> import numpy as np
>>> from tidemill import ml
>>> values = np.r_[20 + np.arange(60) % 3, 80]
>>> scores = ml.Ewma().score_then_learn(values)
>>> scores.is_anomaly.nonzero()[0], bool(np.isnan(scores.score[0]))
(array([60]), True)

`check` puts a detector, a user's own included, through what every detector must do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidemill._native import Detector, Ewma, Scores
from tidemill.hints import no_attribute
from tidemill.ml.check import CheckFailedError, DetectorLike, Failure, ScoresLike, check

if not TYPE_CHECKING:  # a checker knows by itself what is not there

    def __getattr__(name: str) -> object:
        raise no_attribute("module 'tidemill.ml'", name, __all__)


__all__ = ["CheckFailedError", "Detector", "DetectorLike", "Ewma", "Failure", "Scores", "ScoresLike", "check"]
