"""Logging a search elsewhere: a small protocol, and MLflow, TensorBoard and Weights & Biases behind it.

class Slack:
    def begin(self, study, folder): self.channel = study.name
    def trial(self, trial, hypervolume): post(self.channel, f"trial {trial.number}: {hypervolume:.3f}")
    def end(self, run, whole): post(self.channel, f"{len(run.front_trials())} on the front")

slimfront.search("painting", logs=[Slack()])

A log that fails is told of once and then left out: it never stops a search.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..spaces.errors import InputError, nearest
from ..studies.export import export_table
from ..studies.trial import Trial
from .progress import Progress

if TYPE_CHECKING:
    from ..studies.run import Run
    from ..studies.study import Study

READINGS = ("size_bytes", "speedup", "predicted_speedup", "psnr_db", "fidelity_db", "ssim", "worst_psnr_db")
FRONT = "front.csv"
SQLITE = "sqlite:///"


class Log(Protocol):
    """Is told of a search; what it is told is on disk already."""

    def begin(self, study: Study, folder: Path) -> None:
        """Take that a search of a study begins or continues, whose run lies in a folder."""
        ...

    def trial(self, trial: Trial, hypervolume: float) -> None:
        """Take a trial that is finished, and the front's hypervolume after it."""
        ...

    def end(self, run: Run, whole: bool) -> None:
        """Take that the search has ended; ``whole`` tells that it was not broken off."""
        ...


class MlflowLog:
    """Logs to an MLflow tracking server or database; a search that continues goes on with the same MLflow run.

    Trial numbers are the steps of the metrics; the front is kept as an artifact.

    Args:
        uri: e.g. "sqlite:///mlflow.db" or "http://host:5000"; "" for what MLflow is set to.
    """

    def __init__(self, uri: str) -> None:
        _demand("mlflow")
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self._uri = uri
        self._client = MlflowClient(uri or None)
        self._run = ""

    def begin(self, study: Study, folder: Path) -> None:
        """Find the MLflow run of this run folder, or make one."""
        found = self._client.get_experiment_by_name(study.name)
        experiment = found.experiment_id if found else self._new_experiment(study.name)
        tags = {"slimfront.study": study.digest, "slimfront.run": str(folder.absolute())}
        wanted = " and ".join(f"tags.`{name}` = '{_quoted(value)}'" for name, value in tags.items())
        runs = self._client.search_runs([experiment], wanted)
        run = runs[0] if runs else self._client.create_run(experiment, tags=tags, run_name=folder.name)
        self._run = run.info.run_id
        if runs:
            self._client.set_terminated(self._run, "RUNNING")
        else:
            for name, value in _parameters(study).items():
                self._client.log_param(self._run, name, value)

    def _new_experiment(self, name: str) -> str:
        """Make an experiment; the files of one in a local database lie beside that, and not wherever a search is started."""
        place = None
        if self._uri.startswith(SQLITE):
            place = (Path(self._uri.removeprefix(SQLITE)).absolute().parent / "mlartifacts").as_uri()
        return str(self._client.create_experiment(name, artifact_location=place))

    def trial(self, trial: Trial, hypervolume: float) -> None:
        """Log a trial's readings."""
        from mlflow.entities import Metric

        now = round(1000 * time.time())
        metrics = [Metric(name, value, now, trial.number) for name, value in _metrics(trial, hypervolume).items()]
        self._client.log_batch(self._run, metrics)

    def end(self, run: Run, whole: bool) -> None:
        """Log the front."""
        self._client.log_text(self._run, _front_csv(run), FRONT)
        self._client.set_terminated(self._run, "FINISHED" if whole else "KILLED")


class TensorBoardLog:
    """Logs to a folder that TensorBoard shows: readings by trial number, and the front as text.

    Args:
        folder: is created.
    """

    def __init__(self, folder: str) -> None:
        _demand("tensorboard")
        self._folder = folder or "tensorboard"
        self._writer: Any = None

    def begin(self, study: Study, folder: Path) -> None:
        """Open the events of this run, beside those of others."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(Path(self._folder) / f"{study.name}-{folder.name}"))
        self._writer.add_text("study", "\n".join(f"    {name}: {value}" for name, value in _parameters(study).items()))

    def trial(self, trial: Trial, hypervolume: float) -> None:
        """Log a trial's readings."""
        for name, value in _metrics(trial, hypervolume).items():
            self._writer.add_scalar(name, value, trial.number)
        self._writer.flush()

    def end(self, run: Run, whole: bool) -> None:
        """Log the front."""
        lines = _front_csv(run).splitlines()
        self._writer.add_text("front", "\n".join(f"    {line}" for line in lines), len(run.trials))
        self._writer.close()


class WandbLog:
    """Logs to Weights & Biases; a search that continues goes on with the same run there.

    Args:
        project: its name; "" for the study's.
    """

    def __init__(self, project: str) -> None:
        _demand("wandb")
        self._project = project
        self._run: Any = None

    def begin(self, study: Study, folder: Path) -> None:
        """Open or continue the run."""
        import wandb

        self._run = wandb.init(
            project=self._project or study.name,
            name=folder.name,
            id=f"{study.digest[:12]}-{folder.name}",
            resume="allow",
            config=dict(_parameters(study)),
        )
        self._run.define_metric("*", step_metric="trial")

    def trial(self, trial: Trial, hypervolume: float) -> None:
        """Log a trial's readings."""
        self._run.log({"trial": trial.number, **_metrics(trial, hypervolume)})

    def end(self, run: Run, whole: bool) -> None:
        """Log the front."""
        import wandb

        self._run.log({"front": wandb.Table(dataframe=export_table(run.to_json()["front"]))})
        self._run.finish(exit_code=0 if whole else 1)


LOGS: Mapping[str, Callable[[str], Log]] = {
    "mlflow": MlflowLog,
    "tensorboard": TensorBoardLog,
    "wandb": WandbLog,
}


def log_of(text: str) -> Log:
    """Return the log that a text names: "mlflow:URI", "tensorboard:FOLDER" or "wandb:PROJECT".

    Raises:
        InputError: no such log, or its library is not installed.
    """
    kind, _, place = text.partition(":")
    if kind not in LOGS:
        raise InputError(
            f"log must be one of {', '.join(f'{name}:…' for name in LOGS)}, but got {text!r}{nearest(kind, LOGS)}"
        )
    try:
        return LOGS[kind](place)
    except InputError:
        raise
    except Exception as error:  # of another library, of any kind
        raise InputError(f"log {text!r} cannot be opened: {error}") from error


class Logged:
    """A `Progress` that tells logs as well.

    Args:
        progress: is told everything.
        logs: are told of trials.
    """

    def __init__(self, progress: Progress, logs: Sequence[Log]) -> None:
        self._progress = progress
        self._logs = list(logs)
        for name in ("note", "prepare", "standing"):
            with suppress(AttributeError):
                setattr(self, name, getattr(progress, name))

    note: Callable[[str], None]
    prepare: Callable[[str, float], None]

    def begin(self, study: Study, folder: Path) -> None:
        """Take that a search begins."""
        self._tell(lambda log: log.begin(study, folder))

    def step(
        self,
        done: int,
        total: int,
        hypervolume: float,
        seconds_left: float | None,
        trial: Trial,
        gain_ahead: float | None = None,
    ) -> None:
        """Take that a trial is finished."""
        self._progress.step(done, total, hypervolume, seconds_left, trial, gain_ahead)
        self._tell(lambda log: log.trial(trial, hypervolume))

    def end(self, run: Run, whole: bool) -> None:
        """Take that the search has ended."""
        self._tell(lambda log: log.end(run, whole))

    def _tell(self, what: Callable[[Log], None]) -> None:
        for log in list(self._logs):
            try:
                what(log)
            except Exception as error:  # whatever another library does, the search goes on
                self._logs.remove(log)
                self._progress.note(f"{type(log).__name__} is left out from now on, it has failed: {error}")


def _metrics(trial: Trial, hypervolume: float) -> dict[str, float]:
    known = {name: trial.value(name) for name in (*READINGS, *trial.further) if name in trial.readings}
    return {**known, "hypervolume": hypervolume}


def _parameters(study: Study) -> dict[str, str]:
    settings = study.settings
    return {
        "study": study.name,
        "sampler": settings.search.sampler,
        "layers": str(len(study.graph.layers)),
        "threads": str(settings.target.threads),
        "runtime": settings.target.runtime,
        "provider": settings.target.provider,
    }


def _front_csv(run: Run) -> str:
    stream = io.StringIO()
    export_table(run.to_json()["front"]).to_csv(stream, index=False)
    return stream.getvalue()


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def _demand(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        raise InputError(f'logging to {library} needs it installed: pip install "slimfront[{library}]"')
