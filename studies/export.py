"""A run's front (or all its trials) as a table file: CSV or Parquet."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..spaces.errors import InputError
from .output import check_output, write_output

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
    for path in filter(None, (csv, parquet)):
        check_output(path)
    document = run.to_json(all=all)
    table = export_table(document["trials"] if all else document["front"])
    if csv is not None:
        write_output(csv, table.to_csv(index=False).encode())
    if parquet is not None:
        write_output(parquet, table.to_parquet(engine="pyarrow", index=False) or b"")


def export_table(rows: list[dict[str, object]]) -> pd.DataFrame:
    """Return rows as a table of plain columns."""
    import pandas as pd

    table = pd.DataFrame(rows)
    for column in {"candidate", "stages"} & set(table.columns):
        table[column] = [json.dumps(value, sort_keys=True) for value in table[column]]
    return table
