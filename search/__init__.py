"""Propose candidates, evaluate them, record what was found.

`slimfront.search` is this package and the function to call, whichever was imported first.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from .loop import search

        return search(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
