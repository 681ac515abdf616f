"""The JSON documents that slimfront keeps: a run's and a bundle's, each with the version that wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..spaces.errors import InputError


def read_document(path: Path, kind: str, version: int, missing: str) -> dict[str, Any]:
    """Return a document's content.

    Args:
        path: the file; messages about its version name its folder.
        kind: "run", "bundle" or "search".
        version: the one that can be read.
        missing: what to say where there is no such file.

    Raises:
        InputError: the file is absent, unreadable, damaged, or of another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != version:
            raise InputError(
                f"{path.parent} was written by another version of slimfront ({kind} version {content['version']})"
            )
    except FileNotFoundError:
        raise InputError(missing) from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    return dict(content)
