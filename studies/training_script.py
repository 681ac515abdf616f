"""What the scripts share that trained the ready-made studies: their options, the steps, and how weights are kept."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

RECENT = 200  # steps that the loss is averaged over


def options_parser(what: str, out: Path | None, *, steps: int, batch: int, rate: float) -> argparse.ArgumentParser:
    """Return the options that every script has.

    Args:
        what: is trained, for people.
        out: where its weights go by default.
        steps, batch: how many, and of how many samples.
        rate: the learning rate, the highest one of a cycle.
    """
    parser = argparse.ArgumentParser(description=f"Train {what}.")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--rate", type=float, default=rate, help="the highest learning rate")
    parser.add_argument("--bfloat16", action="store_true", help="multiply in bfloat16 while training")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=out, help="where the weights go; a picture goes beside them")
    return parser


def begin(options: argparse.Namespace) -> None:
    """Set PyTorch's seed and threads."""
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)


def tell(network: nn.Module, options: argparse.Namespace, of: str) -> None:
    """Say what is trained, on batches of what."""
    count = sum(weights.numel() for weights in network.parameters())
    print(f"{count:,} weights, {options.steps} steps of {options.batch} {of}", flush=True)


def optimise(
    network: nn.Module,
    loss_of: Callable[[], Tensor],
    judged: Callable[[], str],
    options: argparse.Namespace,
    *,
    every: int,
    rise: float,
    most: float = 1.0,
) -> None:
    """Train with Adam and one cycle of the learning rate.

    Args:
        network: has the weights that learn.
        loss_of: the loss of a new batch.
        judged: says what the network makes of what it never saw.
        options: of `options_parser`.
        every: so many steps it is judged.
        rise: part of the steps in which the rate rises.
        most: the largest norm of a gradient.
    """
    optimizer = torch.optim.Adam(network.parameters(), options.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.rate, options.steps, pct_start=rise)
    network.train()
    began, mean_loss = time.time(), 0.0
    for step in range(1, options.steps + 1):
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), most)
        optimizer.step()
        schedule.step()
        mean_loss += (loss.item() - mean_loss) / min(step, RECENT)
        if step % every == 0 or step == options.steps:
            print(f"step {step}: loss {mean_loss:.4g}, {judged()}, {time.time() - began:.0f} s", flush=True)


def given(network: nn.Module, *inputs: Tensor) -> Tensor:
    """Return what a network gives while nothing is learned."""
    was_training = network.training
    network.eval()
    with torch.no_grad():
        output: Tensor = network(*inputs)
    network.train(was_training)
    return output


def keep(network: nn.Module, path: Path) -> None:
    """Write a network's weights."""
    from safetensors.torch import save_file

    save_file({name: weights.contiguous() for name, weights in network.state_dict().items()}, path)
