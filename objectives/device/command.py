"""The command that serves on a device, without anything else of slimfront's: ``python runner.pyz --port P --token T``."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ... import __version__
from ...spaces.errors import InputError
from .packages import PACKAGES
from .server import SPACE, Place, serve

UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}
TOKEN = "SLIMFRONT_TOKEN"  # of the environment


def space_of(text: str) -> int:
    """Return "500MB", "2GB" as bytes. Raises `InputError` for what is none."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]?b?)\s*", text.lower())
    if match is None or match[2] not in UNITS or not float(match[1]):
        raise InputError(f"--space must be a size such as '500MB' or '2GB', but got {text!r}")
    return int(float(match[1]) * UNITS[match[2]])


def place_of(port: int, token: str | None, host: str, space: str, folder: Path | None) -> Place:
    """Return where and how to serve, as flags say it; the token may stand in the environment.

    Raises:
        InputError: a flag is wrong, or there is no token.
    """
    place = Place(token or os.environ.get(TOKEN, ""), port, host, folder, space_of(space))
    place.check()
    return place


def installed() -> list[str]:
    """Return the runtimes that are there, with their versions as far as their packages tell them.

    Raises:
        InputError: there is none, or no NumPy.
    """
    found = [package.with_version for package in PACKAGES.values() if package.is_there]
    if not found or importlib.util.find_spec("numpy") is None:
        ways = ", or ".join(package.install for package in PACKAGES.values())
        raise InputError(f"a runner needs NumPy and a runtime: {ways}")
    return found


def run(place: Place, quiet: bool = False, ready: Callable[[str, list[str]], None] | None = None) -> None:
    """Serve until interrupted, and tell of each connection on standard error.

    Args:
        place: where and how.
        quiet: whether nothing is told.
        ready: told the address and the runtimes, once it listens there; by default they are told as well.

    Raises:
        InputError: it cannot be served there, or no runtime is installed.
    """
    runtimes = installed()

    def tell(text: str) -> None:
        if not quiet:
            print(f"slimfront: {text}", file=sys.stderr, flush=True)

    def listens(address: str) -> None:
        if ready is not None:
            ready(address, runtimes)
        else:
            tell(served(address, runtimes))

    serve(place, __version__, tell, listens)


def served(address: str, runtimes: Sequence[str]) -> str:
    """Return what a runner says when it begins."""
    return f"the runner {__version__} serves {', '.join(runtimes)} on {address} (Ctrl-C ends it)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 2 for a wrong flag, 130 where it was interrupted."""
    parser = argparse.ArgumentParser(
        prog="runner.pyz", description="Run models for a slimfront search on another machine."
    )
    parser.add_argument("--port", type=int, required=True, metavar="P", help="port to listen on; 0 takes a free one")
    parser.add_argument("--token", metavar="T", help=f"what a search must know; by default ${TOKEN}")
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen on (this machine's own)")
    parser.add_argument("--space", default=SPACE, metavar="SIZE", help=f"most that files take on disk ({SPACE})")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where they lie; by default in the cache folder")
    parser.add_argument("--version", action="version", version=__version__)
    flags = parser.parse_args(arguments)
    try:
        run(place_of(flags.port, flags.token, flags.host, flags.space, flags.folder))
    except KeyboardInterrupt:
        print("slimfront: the runner has ended", file=sys.stderr)
        return 130
    except InputError as error:
        print(f"slimfront: {error}", file=sys.stderr)
        return 2
    return 0
