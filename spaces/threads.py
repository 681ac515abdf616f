"""How many threads matrix algebra may take: small factorisations on several of them mostly wait for each other."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

SMALL = 2048  # rows of a matrix: below it one thread is as fast, and on a busy machine a hundred times faster


def threads_for(size: int) -> AbstractContextManager[Any]:
    """Return a context in which matrices of this many rows are handled: by one BLAS thread where they are small."""
    return nullcontext() if size > SMALL else _controller().limit(limits=1, user_api="blas")


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    """The BLAS libraries of NumPy and SciPy, looked up once both are loaded."""
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
