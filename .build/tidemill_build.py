"""The build backend: says in one message what the machine lacks, then leaves the building to maturin.

It deliberately installs nothing and decides nothing about the build itself: profiles, features and layout are
settings of Cargo and maturin. It exists because without it a missing perl shows after five minutes, as the last of
two hundred lines from a build script of OpenSSL.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import IO, Any

ROOT = Path(__file__).parents[1]

Settings = Mapping[str, Any] | None

INSTALL = """\
Install them with
    Debian, Ubuntu:  apt install build-essential perl
    Fedora:          dnf install gcc gcc-c++ make perl-core
    macOS:           xcode-select --install
    Rust:            https://rustup.rs  (Debian: apt install rustup && rustup default stable)
"""

# Debian's perl-base has the program without these; OpenSSL's Configure needs them.
PERL_MODULES = ("FindBin", "IPC::Cmd", "File::Compare", "File::Copy")


def missing() -> Iterator[str]:
    """What the machine lacks to build tidemill, in words."""
    yield from _missing_rust()
    yield from _missing_program("a C compiler", "CC", ("cc", "gcc", "clang"))
    yield from _missing_program("a C++ compiler", "CXX", ("c++", "g++", "clang++"))
    yield from _missing_program("make", "MAKE", ("make", "gmake"))
    yield from _missing_perl()


def build_wheel(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """PEP 517: the release wheel."""
    return str(_maturin("release").build_wheel(wheel_directory, config_settings, metadata_directory))


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """PEP 660: a development build, which `cargo test` shares."""
    return str(_maturin("dev").build_editable(wheel_directory, config_settings, metadata_directory))


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    """PEP 517: the source archive."""
    return str(_maturin().build_sdist(sdist_directory, config_settings))


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """PEP 517: nothing beyond `build-system.requires`; asked first, so here the machine is looked at."""
    _prepare()
    return []


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Settings = None) -> str:
    """PEP 517: the metadata alone."""
    return str(_maturin().prepare_metadata_for_build_wheel(metadata_directory, config_settings))


get_requires_for_build_editable = get_requires_for_build_wheel
get_requires_for_build_sdist = get_requires_for_build_wheel
prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel


def target_dir() -> Path:
    """Where Cargo builds, unless CARGO_TARGET_DIR says otherwise: one folder for all clones of a user.

    The dependencies take ten minutes; in the clone they would be built again with each one.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("CARGO_TARGET_DIR") or cache / "tidemill" / "target")


def claim_target_dir(profile: str) -> Path:
    """The folder, free of what another clone built of this package in `profile`, until this process ends.

    Cargo does not tell clones apart: it compares times, and takes what one clone built last for the fresh state of
    the other, whose tests then run code that is not theirs. Processes of one clone share the claim; another clone
    waits for them, since it would take a library away between its being built and its being packed.
    """
    folder = target_dir()
    folder.mkdir(parents=True, exist_ok=True)
    claim = (folder / f"built-by-{profile}").open("a+")
    _CLAIMS.append(claim)
    told = False
    while not _shares(claim):
        if not _takes(claim):
            if not told:
                print(
                    f"waiting until another clone no longer builds or tests in {folder}",
                    file=sys.stderr,
                    flush=True,
                )
            told = True
            time.sleep(_AGAIN_S)
        elif not _is_ours(claim):
            clean = ["cargo", "clean", "--quiet", "--package=tidemill", f"--profile={profile}"]
            subprocess.run([*clean, f"--target-dir={folder}"], cwd=ROOT, check=True)
            claim.truncate(0)
            claim.write(str(ROOT))
            claim.flush()
    return folder


_CLAIMS: list[IO[str]] = []  # open, and thereby locked, until the process ends
_AGAIN_S = 0.1


def _shares(claim: IO[str]) -> bool:
    """Waits for whoever cleans, which is short."""
    _lock(claim, "LOCK_SH")
    return _is_ours(claim)


def _takes(claim: IO[str]) -> bool:
    """Never waits: another process of this clone may have come first, and then there is nothing left to do."""
    try:
        _lock(claim, "LOCK_EX", "LOCK_NB")
    except BlockingIOError:
        return False
    return True


def _is_ours(claim: IO[str]) -> bool:
    claim.seek(0)
    return claim.read() == str(ROOT)


def _lock(claim: IO[str], *kind: str) -> None:
    """Not on Windows, which has no such locks: there two clones do not build at once in one folder."""
    if sys.platform != "win32":
        fcntl = import_module("fcntl")
        fcntl.flock(claim, sum(getattr(fcntl, flag) for flag in kind))


def _prepare() -> None:
    found = list(missing())
    if found:
        lines = "\n".join(f"  * {what}" for what in found)
        sys.exit(f"tidemill is built from source here, and this machine lacks:\n{lines}\n{INSTALL}")
    # Without build isolation cmake and maturin stand beside an interpreter that need not be on the PATH.
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), sysconfig.get_path("scripts")])


def _maturin(profile: str | None = None) -> ModuleType:
    """Imported here, so that the suite can ask this file for its folder where there is no maturin.

    Where it builds, the folder of `profile` is claimed.
    """
    _prepare()
    os.environ["CARGO_TARGET_DIR"] = str(claim_target_dir(profile) if profile else target_dir())
    return import_module("maturin")


def _missing_rust() -> Iterator[str]:
    wanted = _rust_version()
    if shutil.which("cargo") is None:
        yield f"Rust {wanted} or newer: `cargo` is not on the PATH"
        return
    said = _output(["rustc", "--version"])
    found = re.match(r"rustc (\d+)\.(\d+)", said)
    if found is None:
        yield f"Rust {wanted} or newer: `rustc --version` says {said.strip() or 'nothing'!r}"
    elif (int(found[1]), int(found[2])) < tuple(int(part) for part in wanted.split(".")[:2]):
        yield f"Rust {wanted} or newer: found {found[1]}.{found[2]} (`rustup update` brings a newer one)"


def _rust_version() -> str:
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    return str(manifest["package"]["rust-version"])


def _missing_program(what: str, variable: str, names: tuple[str, ...]) -> Iterator[str]:
    chosen = os.environ.get(variable)
    if chosen and shutil.which(chosen.split()[0]) is None:
        yield f"{what}: {variable} is {chosen!r}, which is not on the PATH"
    elif not chosen and not any(shutil.which(name) for name in names):
        yield f"{what}: none of {', '.join(names)} is on the PATH"


def _missing_perl() -> Iterator[str]:
    if shutil.which("perl") is None:
        yield "perl: `perl` is not on the PATH"
        return
    lacking = [name for name in PERL_MODULES if not _runs(["perl", f"-M{name}", "-e", "1"])]
    if lacking:
        yield f"perl's standard modules ({', '.join(lacking)}): only a part of perl is installed"


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return done.stdout or done.stderr


def _runs(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
