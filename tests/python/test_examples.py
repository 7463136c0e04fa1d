"""Every public name has an example; `python -m tests examples` runs them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType

import tidemill as tm

# What a class is made of. Attributes of the engine's own classes are shown by the example of their class.
MEMBERS = (FunctionType, BuiltinFunctionType, MethodDescriptorType, property)
REACHED_BY_ATTRIBUTES = [
    type(tm.col("a").str),
    type(tm.col("a").dt),
    type(tm.col("a").list),
    type(tm.col("a").struct),
]


def public() -> Iterator[tuple[str, object]]:
    """All that a user may call or look at, by name."""
    for module in (tm, tm.ml, tm.testing):
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isclass(thing):
                yield from public_class(f"{module.__name__}.{name}", thing)
            elif callable(thing):
                yield f"{module.__name__}.{name}", thing
    for kind in REACHED_BY_ATTRIBUTES:
        yield from public_class(kind.__name__, kind)


def public_class(path: str, kind: type) -> Iterator[tuple[str, object]]:
    yield path, kind
    if getattr(kind, "_is_protocol", False) or kind is tm.StreamingListener:
        return  # its methods are the user's to write, as the example of the class does
    for owner in kind.__mro__:
        if owner.__module__.partition(".")[0] != "tidemill" or issubclass(owner, Exception):
            continue
        for name, member in vars(owner).items():
            made = member.__func__ if isinstance(member, staticmethod | classmethod) else member
            if not name.startswith("_") and isinstance(made, MEMBERS):
                yield f"{path}.{name}", made


def test_every_public_name_has_an_example() -> None:
    names = dict(public())
    assert len(names) > 200
    assert {"tidemill.DStream.to_table", "tidemill.ml.Ewma.save", "tidemill.Batch.to_pandas"} <= names.keys()
    assert [name for name, thing in names.items() if ">>> " not in (inspect.getdoc(thing) or "")] == []
