"""Whether a runtime computes what ONNX Runtime does of the same graph."""

from __future__ import annotations

import numpy as np

from ..spaces.errors import BuildError
from ..spaces.session import infer, open_session
from .protocol import Reading, Subject
from .quality import psnr_db

# Kernels round a value that lies between two integers either way, which costs less than this; a kernel that is wrong, more.
LEAST_DB = 30.0


class Agreement:
    """Reads `agreement_db`: the PSNR between the target's output and ONNX Runtime's on the first batch of the evaluation data."""

    name = "agreement"

    def measure(self, subject: Subject) -> dict[str, Reading]:
        """Return the agreement, at most 100 dB; nothing where the graph that a file was made of cannot be had.

        Raises:
            BuildError: ONNX Runtime cannot run the graph, or the outputs are not the same picture.
        """
        model = subject.model
        few = model.samples.first(model.batch)
        with model.graph() as path:
            if path is None:
                return {}
            plain = open_session(path, optimize=False)  # in float where integers would run: nothing saturates
            stock = np.clip(infer(plain, few.inputs, model.batch), few.low, few.high)
        outputs = model.glanced if model.samples.glanced(model.batch) else model.outputs
        found = float(psnr_db(outputs[: few.count], stock, few.low, few.high).min())
        runtime = model.target.runtime
        if found < LEAST_DB:
            raise BuildError(
                f"{runtime}'s output is {found:.1f} dB from ONNX Runtime's on the same graph, which is not rounding "
                f"(at least {LEAST_DB:g}): one of its kernels computes something else"
            )
        return {"agreement_db": Reading(found, "dB", how=f"{runtime} against ONNX Runtime, the first batch")}
