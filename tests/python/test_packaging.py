"""The build: what the machine lacks is told in one message, and the wheel and `cargo test` share one build."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from tests import places


@pytest.fixture
def backend() -> ModuleType:
    return places.backend()


def program(folder: Path, name: str, says: str, exit_code: int = 0) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\necho '{says}'\nexit {exit_code}\n")
    file.chmod(0o755)


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that has everything; a test takes away or spoils one thing."""
    for name in ("cargo", "cc", "c++", "make", "perl"):
        program(tmp_path, name, "")
    program(tmp_path, "rustc", "rustc 1.999.0 (0123456 2030-01-01)")
    monkeypatch.setenv("PATH", str(tmp_path))
    for variable in ("CC", "CXX", "MAKE"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def test_a_machine_that_has_everything_lacks_nothing(backend: ModuleType, bin_folder: Path) -> None:
    assert list(backend.missing()) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cargo", "Rust 1.94 or newer: `cargo` is not on the PATH"),
        ("cc", "a C compiler: none of cc, gcc, clang is on the PATH"),
        ("c++", "a C++ compiler: none of c++, g++, clang++ is on the PATH"),
        ("make", "make: none of make, gmake is on the PATH"),
        ("perl", "perl: `perl` is not on the PATH"),
    ],
)
def test_what_is_missing_is_named(backend: ModuleType, bin_folder: Path, name: str, said: str) -> None:
    (bin_folder / name).unlink()
    assert list(backend.missing()) == [said]


def test_a_rust_that_is_too_old_is_named_with_its_version(backend: ModuleType, bin_folder: Path) -> None:
    program(bin_folder, "rustc", "rustc 1.70.0 (90c541806 2023-05-31)")
    assert list(backend.missing()) == ["Rust 1.94 or newer: found 1.70 (`rustup update` brings a newer one)"]


def test_a_rustup_without_a_toolchain_is_not_taken_for_rust(backend: ModuleType, bin_folder: Path) -> None:
    program(bin_folder, "rustc", "error: no default toolchain", exit_code=1)
    (found,) = backend.missing()
    assert "says 'error: no default toolchain'" in found


def test_a_part_of_perl_is_not_enough(backend: ModuleType, bin_folder: Path) -> None:
    program(bin_folder, "perl", "", exit_code=2)
    (found,) = backend.missing()
    assert found.startswith("perl's standard modules (FindBin, ")


def test_everything_that_is_missing_is_told_at_once_with_the_way_out(
    backend: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as refused:
        backend.get_requires_for_build_wheel()
    assert str(refused.value).count("  * ") == 5
    assert "apt install build-essential perl" in str(refused.value)


def test_cargo_builds_in_the_cache_unless_told_otherwise(
    backend: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CARGO_TARGET_DIR", raising=False)
    assert backend.target_dir() == places.cache_folder() / "target" == tmp_path / "tidemill" / "target"
    monkeypatch.setenv("CARGO_TARGET_DIR", "elsewhere")
    assert backend.target_dir() == Path("elsewhere")


def test_what_another_clone_built_is_not_taken_for_this_ones(
    backend: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CARGO_TARGET_DIR", str(tmp_path))
    built, wheel = tmp_path / "debug" / "libtidemill.rlib", tmp_path / "release" / "libtidemill.rlib"
    for library in built, wheel:
        library.parent.mkdir()
        library.touch()
    backend.claim_target_dir("dev")
    assert not built.exists()
    assert wheel.exists(), "another profile's"
    built.touch()
    backend.claim_target_dir("dev")
    assert built.exists()


def test_another_clone_waits_for_the_end_of_the_process_that_builds(tmp_path: Path) -> None:
    clone = tmp_path / "clone" / ".build" / places.BACKEND.name
    clone.parent.mkdir(parents=True)
    shutil.copy(places.BACKEND, clone)
    (clone.parents[1] / "Cargo.toml").write_text('[package]\nname = "tidemill"\n[lib]\npath = "Cargo.toml"\n')
    environment = {**os.environ, "CARGO_TARGET_DIR": str(tmp_path / "target")}
    claim = "import sys, tidemill_build; tidemill_build.claim_target_dir('dev'); print('claimed', flush=True)"
    hold = f"{claim}; sys.stdin.read()"

    def python(code: str, backend: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code], env={**environment, "PYTHONPATH": str(backend.parent)},
            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    with python(hold, places.BACKEND) as building, python(claim, places.BACKEND) as same:
        assert building.stdout is not None
        assert building.stdout.readline() == "claimed\n"
        assert same.communicate()[0] == "claimed\n"
        with python(claim, clone) as other:
            assert other.stderr is not None
            assert "another clone no longer builds or tests in" in other.stderr.readline()
            building.communicate()
            assert other.communicate()[0] == "claimed\n"


def test_the_wheel_and_the_tests_build_each_dependency_with_the_same_features() -> None:
    """Else arrow and DataFusion would be built twice, which takes ten minutes more."""
    wheel = features("--edges=normal,build", "--features=python,pyo3/extension-module")
    tests = features("--edges=normal,build,dev")
    shared = (wheel.keys() & tests.keys()) - {"tidemill"}
    assert len(shared) > 50
    assert {name: (wheel[name], tests[name]) for name in shared if wheel[name] != tests[name]} == {}


def features(*arguments: str) -> dict[str, set[str]]:
    """Of each package, the versions and features that a build with those arguments uses."""
    command = ["cargo", "tree", "--locked", "--prefix=none", "--format={p}|{f}", *arguments]
    tree = subprocess.run(command, cwd=places.ROOT, capture_output=True, text=True, check=True).stdout
    found: dict[str, set[str]] = {}
    for line in filter(None, tree.splitlines()):
        package, _, used = line.partition("|")
        name, release = package.split()[:2]
        found.setdefault(name, set()).add(f"{release} {used.removesuffix(' (*)')}")
    return found


DISTRIBUTIONS = {"PIL": "pillow"}
"""What is installed under another name than it is imported by, but for the sign between words."""


def test_what_the_suite_imports_is_what_its_extras_install() -> None:
    project = tomllib.loads((places.ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    names = {
        extra: {
            re.split(r"[^\w-]", one)[0].replace("-core", "").replace("-", "_")
            for one in extras[extra] + project["dependencies"]
        }
        for extra in ("test", "bench")
    }
    missing = []
    for file in (places.ROOT / "tests").rglob("*.py"):
        extra = "bench" if "peers" in file.parts and file.name.startswith("with_") else "test"
        for module in imported(file) - sys.stdlib_module_names - {"tests", "tidemill"}:
            if DISTRIBUTIONS.get(module, module) not in names[extra]:
                missing.append(f"{file.relative_to(places.ROOT)} imports {module}, which [{extra}] lacks")
    assert missing == []


def imported(file: Path) -> set[str]:
    """The modules that a file imports, by their first names."""
    modules = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
    return {module.partition(".")[0] for module in modules}


def test_nothing_below_the_faces_imports_through_the_package() -> None:
    """What `import tidemill` offers is for users; inside, each import names the module that it needs."""
    package = places.ROOT / "python" / "tidemill"
    inner = [path for path in package.rglob("*.py") if path.parent.name != "demo" and path.name != "cli.py"]
    through = re.compile(r"^(from tidemill import|import tidemill( as tm)?$)", re.MULTILINE)
    assert len(inner) > 10
    assert [path.name for path in inner if through.search(path.read_text("utf-8"))] == []
