"""How a model of any library becomes a function from a feature matrix to one score a row.

It deliberately imports none of these libraries before a model of theirs is given, and changes no model: what would give
wrong scores is refused when the job is written, with what to do.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tidemill._native as _native

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Matrix = npt.NDArray[Any]

ConfigError = _native.ConfigError
SchemaError = _native.SchemaError

_MORE_IS_LESS = ("score_samples", "decision_function")
"""Methods of scikit-learn's detectors whose result is lower for what is more anomalous."""

_OF_CLASSIFIERS = ("predict_proba", "decision_function", "predict")
"""Methods of classifiers, whose result is higher for the second class."""

_ONNX_SCORES = ("probabilities", "output_probability", "scores", "score")
"""The outputs of an ONNX model with several that are scores, the best first; beside them stands a label."""

_ONNX_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64"}


@dataclass(frozen=True)
class _Scorer:
    """What `explain` shows, and the function."""

    label: str
    predict: Callable[[Matrix], Any]

    def __call__(self, matrix: Matrix) -> npt.NDArray[np.float64]:
        """One float64 a row."""
        import numpy as np

        rows, scores = len(matrix), np.asarray(self.predict(matrix), dtype="float64")
        if scores.shape not in ((rows,), (rows, 1)):
            raise SchemaError(
                f"{self.label} must give one score a row, shape ({rows},); found the shape {scores.shape}"
            )
        return scores.reshape(rows)


def _scorer(model: object, method: str | None, columns: list[str], dtype: str) -> _Scorer:
    """The scores of `model`; ConfigError where it cannot give any from a matrix of these columns."""
    if inspect.isclass(model):
        fitted = f"{model.__name__}().fit(...)"
        raise ConfigError(
            f"score() takes a model, found the class {model.__name__}; pass one that is fitted: {fitted}"
        )
    if isinstance(model, str | os.PathLike):
        return _of_file(Path(model), method, columns, dtype)
    if _is_of(model, "onnxruntime", "InferenceSession"):
        return _of_session(model, method, columns, dtype)
    if _is_of(model, "torch.nn", "Module"):
        return _of_module(model, method, dtype)
    return _of_estimator(model, method, columns)


def _name_of(fn: object) -> str:
    return getattr(fn, "__qualname__", None) or type(fn).__name__


def _is_of(model: object, module: str, kind: str) -> bool:
    """Whether `model` is of a class of a library; none is where that has not been imported."""
    found = getattr(sys.modules.get(module), kind, None)
    return found is not None and isinstance(model, found)


def _of_two_classes(scores: Any) -> Any:
    """Where there is a column for each of two classes, the second is the one that is looked for."""
    return scores[:, 1] if scores.ndim == 2 and scores.shape[1] == 2 else scores


# -- scikit-learn, and what looks like it ---------------------------------------------------------------------------


def _of_estimator(model: object, method: str | None, columns: list[str]) -> _Scorer:
    name, classes = type(model).__name__, _classes_of(model)
    usual = [*_MORE_IS_LESS, "predict_proba", "predict"] if classes is None else _OF_CLASSIFIERS
    candidates = [method] if method else usual
    found = next((one for one in candidates if callable(getattr(model, one, None))), None)
    if found is None:
        if method is None and callable(model):
            return _Scorer(_name_of(model), model)
        raise ConfigError(f"{name} has no method {' or '.join(candidates)}; pass an estimator or a callable")
    _expect_features(model, columns)
    if classes is not None:
        _expect_one_score(name, found, classes)
    call = _called(model, found, columns)
    if found in _MORE_IS_LESS and classes is None:
        return _Scorer(f"-{name}.{found}", lambda matrix: -call(matrix))
    if found == "predict_proba":
        return _Scorer(f"{name}.{found}[:, 1]", lambda matrix: call(matrix)[:, 1])
    return _Scorer(f"{name}.{found}", call)


def _called(model: object, method: str, columns: list[str]) -> Callable[[Matrix], Any]:
    """The method over a matrix; one of a type that it does not take is told with the other."""
    method_of: Callable[[Any], Any] = getattr(model, method)
    named = _named_as_fitted(model, columns)

    def call(matrix: Matrix) -> Any:
        try:
            return method_of(named(matrix))
        except ValueError as error:
            if "dtype mismatch" not in str(error):
                raise
            name = f"{type(model).__name__}.{method}"
            other = "float64" if matrix.dtype == "float32" else "float32"
            raise SchemaError(
                f'{name} takes no matrix of {matrix.dtype} ({error}); pass dtype="{other}" to score()'
            ) from error

    return call


def _classes_of(model: object) -> list[Any] | None:
    """The classes that a classifier tells apart; none where it is something else."""
    classes = getattr(model, "classes_", None)
    return None if classes is None or getattr(classes, "ndim", 0) != 1 else list(classes.tolist())


def _expect_features(model: object, columns: list[str]) -> None:
    fitted = getattr(model, "n_features_in_", len(columns))
    if isinstance(fitted, int) and fitted != len(columns):
        names = [str(name) for name in getattr(model, "feature_names_in_", ())]
        which = f": {names}" if names else ""
        name = type(model).__name__
        raise ConfigError(
            f"score() was given {len(columns)} columns, {columns}, and {name} was fitted on {fitted}{which}"
        )


def _expect_one_score(name: str, method: str, classes: list[Any]) -> None:
    """Refuses what gives no single number a row."""
    if method == "predict" and not all(isinstance(one, int | float) for one in classes):
        raise ConfigError(
            f"{name}.predict gives classes, {classes}, and a score is a number; pass a callable, say "
            f"lambda matrix: model.predict(matrix) == {classes[-1]!r}"
        )
    if method in ("predict_proba", "decision_function") and len(classes) > 2:
        raise ConfigError(
            f"{name} tells {len(classes)} classes apart, {classes}, and a score is one number a row; pass a callable, "
            f"say lambda matrix: 1 - model.predict_proba(matrix)[:, 0], for all but {classes[0]!r}"
        )


def _named_as_fitted(model: object, columns: list[str]) -> Callable[[Matrix], Any]:
    """The matrix as a frame with the names that an estimator was fitted on: without them scikit-learn warns."""
    fitted = [str(name) for name in getattr(model, "feature_names_in_", ())]
    if sorted(fitted) == sorted(columns) and fitted != columns:
        raise ConfigError(
            f"score() takes the columns in the order that {type(model).__name__} was fitted on, {fitted}; "
            f"found {columns}"
        )
    if len(fitted) != len(columns):
        return lambda matrix: matrix
    try:
        import pandas as pd
    except ImportError:  # fitted on a frame of another library
        return lambda matrix: matrix
    return lambda matrix: pd.DataFrame(matrix, columns=fitted, copy=False)


# -- ONNX -----------------------------------------------------------------------------------------------------------


def _of_file(path: Path, method: str | None, columns: list[str], dtype: str) -> _Scorer:
    if path.suffix != ".onnx":
        raise ConfigError(f"score() reads a model from a file that ends in .onnx, found {str(path)!r}")
    if not path.is_file():
        raise ConfigError(f"score() finds no file {str(path)!r} in {Path.cwd()}; name the model's file")
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(f"score() needs onnxruntime for {str(path)!r}; pip install onnxruntime") from error
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no class in common
        raise ConfigError(f"onnxruntime cannot read {str(path)!r}: {error}") from error
    return _of_session(session, method, columns, dtype)


def _of_session(session: Any, method: str | None, columns: list[str], dtype: str) -> _Scorer:
    feature, output = _input_of(session, columns, dtype), _output_of(session, method)

    def call(matrix: Matrix) -> Any:
        (scores,) = session.run([output], {feature: matrix})
        return _of_two_classes(scores)

    return _Scorer(f"ONNX {output}", call)


def _input_of(session: Any, columns: list[str], dtype: str) -> str:
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = [one.name for one in inputs]
        raise ConfigError(
            f"score() gives an ONNX model one matrix, found the inputs {names}; pass a callable"
        )
    (only,) = inputs
    wanted = _ONNX_DTYPES.get(only.type)
    if wanted is None:
        raise ConfigError(f"score() gives an ONNX model floats, its input {only.name!r} is {only.type}")
    if wanted != dtype:
        raise ConfigError(f'the ONNX model takes {wanted}, found dtype="{dtype}"; pass dtype="{wanted}"')
    features = only.shape[1] if len(only.shape) == 2 else 0
    if features != len(columns) and isinstance(features, int):  # it may be open, and then has a name or None
        raise ConfigError(
            f"the ONNX model takes a matrix of the shape {only.shape}, found {len(columns)} columns: {columns}"
        )
    return str(only.name)


def _output_of(session: Any, method: str | None) -> str:
    """A model cannot be asked which of its outputs is the score: what the exporters call it decides."""
    outputs = {one.name: one.type for one in session.get_outputs()}
    if method is not None and method not in outputs:
        raise ConfigError(f"the ONNX model has no output {method!r}; it has {list(outputs)}")
    known = next((name for name in _ONNX_SCORES if name in outputs), None)
    chosen = method or (next(iter(outputs)) if len(outputs) == 1 else known)
    if chosen is None:
        raise ConfigError(
            f"which output of the ONNX model is the score? pass method=, one of {list(outputs)}"
        )
    if not outputs[chosen].startswith("tensor"):
        raise ConfigError(
            f"the ONNX model's output {chosen!r} is {outputs[chosen]}, and no tensor; export it without a ZipMap "
            "(skl2onnx: options={'zipmap': False})"
        )
    return chosen


# -- PyTorch --------------------------------------------------------------------------------------------------------


def _of_module(model: Any, method: str | None, dtype: str) -> _Scorer:
    """On the device where the module is, without gradients."""
    import torch

    name = type(model).__name__
    if method is not None:
        raise ConfigError(
            f"score() calls the module {name} itself, found method={method!r}; pass model.{method}"
        )
    if model.training:
        raise ConfigError(
            f"the module {name} is in training mode, where scores are random; call model.eval()"
        )
    parameter = next((one for one in model.parameters() if one.is_floating_point()), None)
    wanted = dtype if parameter is None else str(parameter.dtype).removeprefix("torch.")
    if wanted != dtype:
        raise ConfigError(f'the module {name} takes {wanted}, found dtype="{dtype}"; pass dtype="{wanted}"')

    def call(matrix: Matrix) -> Any:
        if not matrix.flags.writeable:  # torch knows no tensor that is only read, and warns
            matrix = matrix.copy()
        with torch.inference_mode():
            features = torch.from_numpy(matrix)
            scores = model(features if parameter is None else features.to(parameter.device))
        return _of_two_classes(scores.cpu().numpy())

    return _Scorer(name, call)
