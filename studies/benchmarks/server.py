"""A PostgreSQL server for a benchmark: the one that the tests start."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[2] / "tests" / "search"


@contextmanager
def postgres() -> Iterator[Any]:
    """Give a server (`tests/search/postgres.Server`), whose data are in the system's temporary folder: its user reaches that."""
    sys.path.insert(0, str(TESTS))
    import postgres as servers

    with tempfile.TemporaryDirectory(prefix="slimfront-postgres-") as folder:
        Path(folder).chmod(0o755)
        server = servers.Server(Path(folder) / "server")
        try:
            yield server
        finally:
            server.stop()
