"""The search: propose, evaluate, record; killed anywhere and called again, it goes on where it was."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..spaces.errors import InputError
from ..studies.artifacts import given_place
from ..studies.definition import Settings, check_sampler
from ..studies.limits import parse_time
from ..studies.record_table import read_table
from ..studies.run import Run
from ..studies.run_folder import use_machine_facts
from ..studies.storage import database_of, open_records
from ..studies.study import Study, load_study
from .addition import Addition
from .coordinator import Coordinator
from .copies import copies_of
from .logs import Log, Logged
from .mirror import Mirror
from .pace import Pace
from .polish import POLISHED
from .polish_front import polish_front
from .pool import Crew
from .progress import Progress, Silent
from .recorded import RecordedRun


def search(
    study: Study | str | Path,
    trials: int | None = None,
    run_dir: str | Path | None = None,
    timeout: str | float | None = None,
    sampler: str | None = None,
    seed: int | None = None,
    storage: str | None = None,
    progress: Progress | None = None,
    until_converged: bool = False,
    workers: int | None = None,
    ray: str | None = None,
    artifacts: str | Path | None = None,
    logs: Sequence[Log] = (),
) -> Run:
    """Search a study's space and return the run; called again with the same folder, it continues.

    Args:
        study: a study, or what `load_study` takes.
        trials: the run's distinct candidates in all, reference, uniform ones and failures included.
        run_dir: the run folder; by default ``runs/<study name>``.
        timeout: seconds, or a text such as "10m"; the search ends in time, counting from this call.
        sampler: frontier, tpe, nsga2, gp or random; by default the study's.
        seed: of the sampler; by default the study's.
        storage: a database that keeps the run's records, so that several searches can work on them at once, and an Optuna
            study that mirrors them, e.g. "postgresql://user@host/name"; or the path of a journal file for the mirror alone.
        progress: is told what happens.
        until_converged: end before the trials are used up where little is left to gain, as far as the frontier sampler's
            model can tell.
        workers: processes that evaluate candidates side by side; by default this process evaluates them, or, on a cluster,
            as many as its nodes have processors for.
        ray: a Ray cluster whose nodes do the work: "auto", or the address of its head.
        artifacts: where the models of the reference and of the front are kept besides the run folder, for readers and
            searches on other machines: any URL of fsspec, e.g. "s3://bucket/models", or a folder.
        logs: are told of trials as well (`search.logs`).

    Raises:
        InputError: the study is wrong, nothing varies, ``until_converged`` is asked of another sampler, the folder is the
            run of another study or cannot be written to, the cluster cannot be worked with, ``artifacts`` cannot be written
            to, needs a driver that is not installed, or is not where the run keeps its models.
        KeyboardInterrupt: passed through; everything finished is on disk.
    """
    start = time.monotonic()
    study = study if isinstance(study, Study) else load_study(study)
    deadline = None if timeout is None else start + parse_time(timeout, "timeout")
    settings = study.settings.search
    total = settings.trials if trials is None else trials
    if isinstance(total, bool) or not isinstance(total, int) or total < 1:
        raise InputError(f"trials must be a whole number, at least 1, but got {total!r}")
    try:
        sampler = check_sampler(sampler or settings.sampler)
    except ValueError as error:
        raise InputError(f"sampler {error}") from None
    if until_converged and sampler != "frontier":
        raise InputError(
            f"only the sampler 'frontier' can tell when little is left to gain, but the sampler is {sampler!r}"
        )
    folder = Path(run_dir) if run_dir is not None else Path("runs") / study.name
    database = database_of(folder, storage)
    place = given_place(folder, study.name, None if artifacts is None else str(artifacts))
    use_machine_facts(folder, study)
    study.check()
    if not study.space.varies and study.settings.students is None:
        raise InputError(
            "nothing varies in the study's space: give [space] weight_bits, activation_bits, pruning_ratios or sparsities "
            "more values"
        )
    if study.further.in_memory and (workers is not None or ray is not None):
        raise InputError(
            f"objectives.{study.further.in_memory[0]} was given in memory as an object, which other processes have not: "
            'put it into a file and name that, "measures.py:name", or search without workers'
        )
    with _crew(workers, ray, study.settings, deadline) as crew:
        mirrored = database or storage
        mirror = Mirror(mirrored, study) if mirrored else None
        progress = Logged(progress or Silent(), logs)
        with open_records(folder, study, database, progress.note) as records:
            copies = copies_of(folder, study.rules.format, records, place, progress.note)
            recorded = RecordedRun(study, folder, records, copies)
            training, seed = study.settings.training, settings.seed if seed is None else seed
            kept = max(
                0, round(training.share * total) - sum(t.label.startswith(POLISHED) for t in recorded.run.trials)
            )
            kept = min(kept, total - 1)  # the reference is measured in any case
            pace = Pace(total - kept, deadline)
            coordinator = Coordinator(recorded, mirror, progress, pace, until_converged, crew)
            progress.begin(study, folder)
            whole = False
            try:
                coordinator.go(sampler, seed)
                if kept:
                    addition = Addition(recorded, coordinator.evaluator)
                    most = min(total, recorded.run.count + kept)
                    race = crew.race if crew else None
                    polish_front(addition, Pace(most, deadline), training.polish_steps, seed, progress, race)
                    recorded.keep_files([])
                    if mirror is not None:
                        mirror.add(recorded.run, [t for t in recorded.run.trials if recorded.mine(t)], ended=True)
                whole = True
            finally:
                progress.end(recorded.run, whole)
            recorded.settle_copies()
    return Run(folder) if database is None else Run(folder, records=read_table(database, study.digest))


@contextmanager
def _crew(workers: int | None, ray: str | None, settings: Settings, deadline: float | None) -> Iterator[Crew | None]:
    """Start Ray here or join a cluster; give the workers, or None where all is done in this process."""
    if workers is None and ray is None:
        yield None
        return
    if settings.target.device is not None:
        raise InputError(
            f"target.device {settings.target.device!r} is one device, which one process measures on: leave out --workers and "
            "--ray"
        )
    from . import cluster, nodes, race, ray_pool

    limit = settings.search.stage_seconds
    with cluster.connected(workers, ray, settings.target.threads):
        if ray is not None:
            nodes.check_all(cluster.alive(), settings.target.runtime)
        yield Crew(
            lambda evaluator, reference: ray_pool.RayPool(evaluator, reference, workers, limit, deadline),
            race.Race(workers),
        )
