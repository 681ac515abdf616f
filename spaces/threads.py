"""How many threads matrix algebra and PyTorch may take: small work on several of them mostly waits for one another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Keep PyTorch to one thread: on a busy machine several are many times slower on small work."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
