"""python studies/benchmarks/pruning.py --zoo ../shared/zoo [taef2_decoder rlfn_s_x2 ...] [--sequential]

What channel pruning does to trained models, without any training. Prints three Markdown tables: how much of each model the
channel groups cover, and what goes at a ratio of 0.5; the PSNR after removal, plain and repaired, with the channels chosen by
magnitude, at random or by output energy; and the bits a weight takes on disk at 75 % sparsity.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import numpy as np
from zoo import MODELS, Model, load, parser

from slimfront.spaces import importance
from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.graph import Graph, serialized
from slimfront.spaces.groups import Group, channel_groups
from slimfront.spaces.prune import pruned
from slimfront.spaces.session import open_session
from slimfront.spaces.statistics import Statistics
from slimfront.spaces.work import multiply_adds

RATIOS = (0.125, 0.25, 0.5)
SEEDS = 3  # of random choices, averaged
ROUNDS = 15


class RandomChoice:
    """Channels in random order."""

    name = "random"

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def order(self, group: Group, statistics: Statistics) -> np.ndarray:
        """Return the pieces in random order."""
        return np.random.default_rng((self.seed, group.pieces)).permutation(group.pieces)


def main() -> None:
    """Run the benchmark and print the tables."""
    flags = parser(__doc__ or "", MODELS)
    flags.add_argument("--sequential", action="store_true", help="sequential repair as well (about a minute a row)")
    arguments = flags.parse_args()
    for seed in range(SEEDS):
        importance.METHODS[f"random {seed}"] = partial(RandomChoice, seed)
    models = {name: load(arguments.zoo, name) for name in arguments.models}

    print("| model | groups | weights covered | at 0.5: weights left | multiply-adds left | faster in float |")
    print("|---|---|---|---|---|---|")
    for name, model in models.items():
        print(f"| {name} | {' | '.join(coverage(model))} |", flush=True)

    print(
        "\n| model | groups | ratio | plain, magnitude | plain, ours | repaired, random | repaired, magnitude | ours |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, model in models.items():
        reference = model.psnr(model.path)
        print(f"| {name} | | 0 | {reference:.2f} |", flush=True)
        for kind, groups in kinds(model.graph).items():
            for ratio in RATIOS:
                cells = quality(model, groups, ratio, arguments.sequential)
                print(f"| {name} | {kind} ({len(groups)}) | {ratio:g} | {' | '.join(cells)} |", flush=True)

    print("\n| model | sparsity | weight bits | bits a weight on disk | PSNR |")
    print("|---|---|---|---|---|")
    for name, model in models.items():
        for sparsity in (0.5, 0.75):
            print(f"| {name} | {sparsity:g} | 4 | {' | '.join(sparse(model, sparsity))} |", flush=True)


def kinds(graph: Graph) -> dict[str, list[str]]:
    """Return the groups inside of blocks (single channels that one layer writes and one reads), and all."""
    groups = channel_groups(graph).groups
    inside = [
        name
        for name, group in groups.items()
        if len(group.writers) == len(group.readers) == 1 and group.pieces == group.channels
    ]
    return {"inside": inside, "all": list(groups)} if inside and len(inside) < len(groups) else {"all": list(groups)}


def coverage(model: Model) -> list[str]:
    """Return the cells of the first table."""
    graph = model.graph
    groups = channel_groups(graph).groups
    covered = {name for group in groups.values() for name in group.layers}
    whole = sum(int(np.prod(layer.shape)) for layer in graph.layers.values())
    share = sum(int(np.prod(graph.layers[name].shape)) for name in covered) / whole
    builder = Builder(graph, model.calibration, importance="magnitude")
    small = pruned(builder.equalised, builder.pruner.removed(dict.fromkeys(groups, 0.5)))
    work = sum(multiply_adds(small).values()) / sum(multiply_adds(graph).values())
    return [
        str(len(groups)),
        f"{share:.1%}",
        f"{small.parameters / graph.parameters:.1%}",
        f"{work:.1%}",
        f"{speedup(model, serialized(small.model)):.2f}×",
    ]


def speedup(model: Model, data: bytes) -> float:
    """Return the median speedup of a file against the reference, the two timed in turn."""
    sessions = [open_session(model.path), open_session(data)]
    feed = {name: array[: model.graph.batch] for name, array in model.inputs.items()}
    ratios = []
    for number in range(ROUNDS + 2):
        times = []
        for session in sessions:
            start = time.perf_counter()
            session.run(None, feed)
            times.append(time.perf_counter() - start)
        ratios += [times[0] / times[1]] * (number > 1)
    return float(np.median(ratios))


def quality(model: Model, groups: Sequence[str], ratio: float, sequential: bool) -> list[str]:
    """Return the PSNR of each way to remove channels."""
    candidate = Candidate(groups=dict.fromkeys(groups, ratio))
    builders = {name: Builder(model.graph, model.calibration, importance=name) for name in importance.METHODS}

    def plain(name: str) -> float:
        builder = builders[name]
        return model.psnr(serialized(pruned(builder.equalised, builder.removed(candidate)).model))

    def repaired(name: str) -> float:
        return model.psnr(builders[name].build(candidate).to_bytes())

    random = float(np.mean([repaired(f"random {seed}") for seed in range(SEEDS)]))
    found = [plain("magnitude"), plain("output-energy"), random, repaired("magnitude"), repaired("output-energy")]
    if sequential:
        twin = Candidate(groups=candidate.groups, repair="sequential")
        found.append(model.psnr(builders["output-energy"].build(twin).to_bytes()))
    return [f"{value:.2f}" for value in found]


def sparse(model: Model, sparsity: float) -> list[str]:
    """Return the bits a weight takes in the file, all else of the file but the dense biases counted, and the PSNR."""
    builder = Builder(model.graph, model.calibration)
    candidate = Candidate(dict.fromkeys(model.graph.layers, LayerChoice(4, 32, sparsity)))
    data = builder.build(candidate).to_bytes()
    weights = sum(int(np.prod(layer.shape)) for layer in model.graph.layers.values())
    bare = len(builder.build(Candidate()).to_bytes()) - 4 * weights
    return [f"{8 * (len(data) - bare) / weights:.2f}", f"{model.psnr(data):.2f}"]


if __name__ == "__main__":
    main()
