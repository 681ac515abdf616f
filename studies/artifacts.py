"""Where a run's model files are kept besides its folder: any place that fsspec reaches, which many runs may share.

URL/<study name>-<token of the run>/<candidate key>.<start of the sha256>.onnx, above 2 GB with its ".data" beside it; files for
another runtime end as that has them

The run folder's models/ stays the working copy. A file at the place counts where its bytes are those that were measured;
one that is missing there, or is damaged, is built again.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..spaces.errors import InputError, SlimfrontError, one_line
from ..spaces.formats import ONNX
from .run_folder import RUN_FILE, placing, read_run_file, write_whole, writing_to

if TYPE_CHECKING:
    from .records import Records
    from .trial import Trial

URL_VARIABLE = "SLIMFRONT_ARTIFACTS"  # may hold the whole URL, so that no file holds a password
URL, FOLDER = "artifacts", "artifacts_folder"  # what run.json holds of the place
DATA = ".data"
PACKAGES = {"smbclient": "smbprotocol"}  # of drivers whose modules are called otherwise
EXAMPLES = "give s3://bucket/folder, gs://bucket/folder, sftp://user@host/folder, or the path of a folder"


class Place:
    """Where one run's model files are kept.

    It is opened when it is first used. Methods raise whatever the file system's driver raises, which is not always an
    `OSError`, and `InputError` where the URL cannot be read, its driver is not installed, or does not come to the place.

    Args:
        url: of the place, with what its driver needs to open it.
        folder: name of the run's folder there.
    """

    def __init__(self, url: str, folder: str) -> None:
        self.whole_url = url
        self.url = without_secrets(url)  # as it may be shown
        self.folder = folder

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        return _open(self.whole_url)

    @property
    def _files(self) -> Any:
        return self._opened[0]

    @property
    def _root(self) -> str:
        return self._opened[1]

    @property
    def facts(self) -> dict[str, str]:
        """What run.json holds of the place."""
        return {URL: self.url, FOLDER: self.folder}

    def try_out(self) -> None:
        """Write a file, move it, read and delete it. Raises `InputError` where one of these cannot be done."""
        part, whole = (f"{self._root}/slimfront-{uuid.uuid4().hex}{end}" for end in (".part", ".test"))
        try:
            self._make(self._root)
            self._files.pipe_file(part, whole.encode())
            self._files.mv(part, whole)
            same = self._files.cat_file(whole) == whole.encode()
            self._files.rm_file(whole)
        except Exception as error:
            raise InputError(
                f"--artifacts {self.url!r} cannot be written to: {one_line(error)}; make it writable, or name another place"
            ) from error
        if not same:
            raise InputError(f"--artifacts {self.url!r} does not give back what was written to it; name another place")

    def names(self) -> dict[str, int]:
        """Return the names of the run's files there, with their sizes in bytes."""
        self._files.invalidate_cache(self._path(""))
        try:
            listed = self._files.ls(self._path(""), detail=True)
        except FileNotFoundError:  # nothing was put there yet
            return {}
        return {entry["name"].rpartition("/")[2]: entry["size"] for entry in listed if entry["type"] == "file"}

    def put(self, trial: Trial, path: Path) -> None:
        """Copy a trial's model file there, and the data beside it first."""
        self._make(self._path(""))
        for end in (DATA, ""):
            source = path.with_name(path.name + end)
            if source.exists():
                self._put(source, self._path(name_of(trial, path.suffix) + end))

    def _put(self, source: Path, target: str) -> None:
        # A file system renames the whole file; an object store, whose put is whole or not at all, copies the whole object.
        part = f"{target}.{uuid.uuid4().hex}.part"
        try:
            self._files.put_file(str(source), part)
            self._files.mv(part, target)
        except BaseException:
            with suppress(Exception):  # what stays is deleted later, with the files that left the front
                self._files.rm_file(part)
            raise

    def get(self, trial: Trial, path: Path) -> None:
        """Copy a trial's model file from there. Raises `SlimfrontError` where it is not the one that was measured."""
        source = self._path(name_of(trial, path.suffix))
        with placing(path) as part:
            self._files.get_file(source, str(part))
            if self._files.exists(source + DATA):
                self._files.get_file(source + DATA, f"{part}{DATA}")
            if not is_measured(trial, part):
                raise SlimfrontError("its file there is not the one that was measured")

    def delete(self, name: str) -> None:
        """Delete one of the run's files there."""
        with suppress(FileNotFoundError):  # another process was faster
            self._files.rm_file(self._path(name))

    def _make(self, folder: str) -> None:
        # What does not begin so is in a bucket, which has no folders; a misspelled bucket is not to be made.
        if folder.startswith("/"):
            self._files.makedirs(folder, exist_ok=True)

    def _path(self, name: str) -> str:
        return f"{self._root}/{self.folder}/{name}".rstrip("/")


def name_of(trial: Trial, suffix: str = ONNX.suffix) -> str:
    """Return the name of a trial's file: the same candidate built elsewhere with other bytes has another one."""
    return f"{trial.candidate.key}.{trial.sha256[:16]}{suffix}"


def key_of(name: str) -> str:
    """Return the key of the candidate that a file is of, whole or a part of it."""
    return name.split(".")[0]


def is_measured(trial: Trial, path: Path) -> bool:
    """Whether a file is the one that was measured."""
    from ..spaces.build import built_hash

    try:
        return built_hash(path) == trial.sha256
    except SlimfrontError:  # no room for what has to be written to tell
        raise
    except Exception:  # damaged, so that it cannot even be read
        return False


def without_secrets(url: str) -> str:
    """Return a URL as it may be written to a file and shown: without password and query; a local path is absolute."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme in ("file", "local"):
        return f"file://{Path(rest or url).expanduser().resolve()}"
    host, slash, path = rest.partition("?")[0].partition("/")
    user, at, server = host.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}{at}{server}{f'{slash}{path}'.rstrip('/')}"


def given_place(folder: Path, study_name: str, url: str | None) -> Place | None:
    """Return the place for a run's models; None where nothing was given and run.json knows of none.

    One that is given is written to first; one that run.json knows may be away: a search goes on without it.

    Args:
        folder: the run folder, which may not be there yet.
        study_name: begins the name of a new run's folder at the place.
        url: what was given.

    Raises:
        InputError: the run's models are kept at another place, or the one that is given cannot be written to or needs a
            driver.
    """
    known = read_run_file(folder) if (folder / RUN_FILE).exists() else {}
    if url is None and URL not in known:
        return None
    if url is not None and not url.strip():
        raise InputError(f"--artifacts {url!r} is no place: {EXAMPLES}")
    if url is not None and URL in known:
        _check_same(f"{folder} keeps its models", known[URL], without_secrets(url))
    whole = url or _complete(str(known[URL]))
    place = Place(whole, str(known.get(FOLDER) or f"{study_name}-{uuid.uuid4().hex[:12]}"))
    if url is not None:
        place.try_out()
    return place


def agree(folder: Path, records: Records, place: Place | None) -> Place | None:
    """Return the place that all who write to a run's records use, and keep it in run.json.

    Args:
        folder: the run folder, made and checked.
        records: of the run, open.
        place: of `given_place`.

    Raises:
        InputError: others keep their models at another place.
    """
    facts = records.agreed({} if place is None else place.facts)
    if URL not in facts:
        return None
    if place is not None:
        _check_same("other searches of this study keep their models", facts[URL], place.url)
    if place is None or place.folder != facts[FOLDER]:
        place = Place(_complete(facts[URL]) if place is None else place.whole_url, facts[FOLDER])
    about = read_run_file(folder)
    if not about.items() >= place.facts.items():
        with writing_to(folder):
            write_whole(folder / RUN_FILE, json.dumps({**about, **place.facts}, indent=1))
    return place


def fetch(about: Mapping[str, Any], trial: Trial, path: Path) -> str | None:
    """Get a trial's model file from the place of its run.

    Args:
        about: what run.json holds.
        trial: whose file.
        path: where it is to lie.

    Returns:
        None where it lies there now; else why not, empty where the run keeps its models nowhere else.
    """
    url = ""
    try:
        facts = _facts(about)
        if URL not in facts or not trial.sha256:
            return ""
        url = facts[URL]
        Place(_complete(url), facts[FOLDER]).get(trial, path)
    except FileNotFoundError:
        return f"its file is not in {url}"
    except Exception as error:
        return f"its file could not be had from {url or 'its place'}: {one_line(error)}"
    return None


def _facts(about: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what is known of a run, that included which searches that share its database have agreed on since."""
    if URL in about or "storage" not in about:
        return about
    from .study_table import read_about

    return read_about(about["storage"], str(about["study"]["digest"]))


def _check_same(who: str, known: str, given: str) -> None:
    if given != known:
        raise InputError(f"{who} in {known}, not in {given}; leave --artifacts out, or choose another run folder")


def _complete(url: str) -> str:
    """Return a URL with its password, where the environment has it."""
    given = os.environ.get(URL_VARIABLE)
    return given if given and without_secrets(given) == url else url


def _open(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the place's path there without a slash at its end."""
    from fsspec.core import url_to_fs

    shown = without_secrets(url)
    if "::" in url:
        raise InputError(f"--artifacts {shown!r} is a chain of file systems: {EXAMPLES}")
    local = shown.startswith("file://")
    try:
        files, root = url_to_fs(shown if local else url)
    except ImportError as error:
        cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        name = (cause.name or "").split(".")[0]
        raise InputError(
            f"--artifacts {shown!r} needs a driver: pip install {PACKAGES.get(name, name)} ({one_line(error)})"
        ) from error
    except ValueError as error:
        raise InputError(f"--artifacts {shown!r} cannot be read: {EXAMPLES} ({one_line(error)})") from error
    except Exception as error:
        raise InputError(f"--artifacts {shown!r} cannot be opened: {one_line(error)}") from error
    return files, (str(root) if local else str(root).partition("?")[0]).rstrip("/")
