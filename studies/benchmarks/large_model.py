"""python studies/benchmarks/large_model.py [--blocks 11]

Takes a made-up decoder of about 50 million weights (512 channels, like that of a latent diffusion model) through the whole
chain: capture, statistics, uniform 4/8 candidate, ship, verify. Prints the time and the peak memory of each step as a
Markdown table. Weights are random, so only size, time and memory mean something.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import slimfront as sf

CHANNELS, LATENT, SIZE = 512, 4, 16


class Block(torch.nn.Module):
    """Two convolutions and a sum across."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.second = torch.nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [N, 512, H, W]."""
        return x + 0.3 * self.second(torch.relu(self.first(x)))


def decoder(blocks: int) -> torch.nn.Module:
    """Return a decoder from [N, 4, 16, 16] to [N, 3, 32, 32]."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(LATENT, CHANNELS, 3, padding=1),
        *(Block() for _ in range(blocks)),
        torch.nn.Upsample(scale_factor=2),
        torch.nn.Conv2d(CHANNELS, 3, 3, padding=1),
        torch.nn.Sigmoid(),
    )


def main() -> None:
    """Run the chain and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[2])
    parser.add_argument("--blocks", type=int, default=11)
    arguments = parser.parse_args()
    x = np.random.default_rng(0).standard_normal((24, LATENT, SIZE, SIZE), dtype=np.float32)
    print("| step | seconds | peak memory so far, GB | |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="slimfront-") as text:
        folder = Path(text)
        os.environ["SLIMFRONT_CACHE"] = str(folder / "cache")
        study = sf.Study(
            model=decoder(arguments.blocks).eval(),
            calibration=x[:16],
            evaluation=x[16:],
            input_shape=(1, LATENT, SIZE, SIZE),
            name="large",
            weight_bits=[4, 32],
            activation_bits=[8, 32],
        )
        graph = _step("capture", lambda: study.graph, lambda graph: f"{graph.parameters / 1e6:.1f} million weights")
        _step("statistics and roundings", study.builder.prepare)
        candidate = sf.Candidate({name: sf.LayerChoice(4, 8) for name in graph.layers})
        _step("build 4/8", lambda: sf.build(study, candidate), lambda data: f"{len(data) / 1e6:.1f} MB")
        run = _step("search, 2 candidates", lambda: sf.search(study, trials=2, run_dir=folder / "run"))
        chosen = run.pick(prefer="size")
        row = chosen.row()
        _step(
            "ship",
            lambda: run.ship(chosen, folder / "bundle"),
            lambda _: f"{row['size_bytes'] / 1e6:.1f} MB, {row['speedup']:.1f}× faster",
        )
        _step("verify", lambda: sf.verify(folder / "bundle"), lambda found: "holds" if found["holds"] else "FAILS")


def _step(name: str, work: Callable[[], Any], facts: Callable[[Any], str] = lambda _: "") -> Any:
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"| {name} | {seconds:.0f} | {max(own, children) / 1e6:.1f} | {facts(result)} |", flush=True)
    return result


if __name__ == "__main__":
    main()
