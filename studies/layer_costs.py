"""What a search has found that layers and channel groups cost, kept in its run: ``sensitivity.json``, by base.

It is derived: another process may write it anew at any time, and nothing is lost where it is not there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..spaces.sensitivity import Sensitivity
from .run_folder import write_derived

FILE = "sensitivity.json"


def keep_sensitivity(folder: Path, base: str, found: Sensitivity) -> None:
    """Keep what was found of a base in a run's folder."""
    known = _read(folder)
    told = found.to_json()
    if known.get(base) != told:
        write_derived(folder / FILE, known | {base: told})


def kept_sensitivity(folder: Path, base: str) -> Sensitivity | None:
    """Return what was found of a base; None where nothing is known."""
    try:
        return Sensitivity.from_json(_read(folder)[base])
    except (LookupError, TypeError, ValueError, AttributeError):
        return None


def _read(folder: Path) -> dict[str, Any]:
    try:
        known = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
