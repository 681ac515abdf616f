"""A run's front (or all its trials) as a table file: CSV or Parquet."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..spaces.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from .run import Run


def export(run: Run, all: bool = False, csv: Path | None = None, parquet: Path | None = None) -> None:
    """Write the front, or with ``all`` every trial with its state and reason; one row a candidate.

    Columns are the keys of the JSON form; the candidate (and with ``all`` the stages) is JSON text.

    Raises:
        InputError: a file cannot be written, or Parquet is asked for without pyarrow.
    """
    if parquet is not None and importlib.util.find_spec("pyarrow") is None:
        raise InputError("--parquet needs pyarrow: pip install pyarrow, or use --csv")
    document = run.to_json(all=all)
    table = export_table(document["trials"] if all else document["front"])
    if csv is not None:
        _write(csv, table.to_csv(index=False).encode())
    if parquet is not None:
        _write(parquet, table.to_parquet(engine="pyarrow", index=False))


def export_table(rows: list[dict[str, object]]) -> pd.DataFrame:
    """Return rows as a table of plain columns."""
    import pandas as pd

    table = pd.DataFrame(rows)
    for column in {"candidate", "stages"} & set(table.columns):
        table[column] = [json.dumps(value, sort_keys=True) for value in table[column]]
    return table


def _write(path: Path, content: bytes | None) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content or b"")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error.strerror}") from error
