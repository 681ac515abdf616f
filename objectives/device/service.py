"""What a runner does for one search: it keeps models and arrays that are sent, runs them, and answers with plain data.

Every request names models and arrays by their sha256 and can be asked again, of another process as well: what is not there is
asked for, what is not open is opened.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib.util
import io
import json
import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...spaces.errors import BuildError, InputError
from . import executorch_engine, litert_engine, openvino_engine
from .engine import Engine, Rounds, Session, Slot, timed
from .executorch_engine import ExecuTorchEngine
from .facts import machine_facts
from .frames import Channel, DamagedError, Header, Sink
from .litert_engine import LiteRtEngine
from .lock import MachineLock
from .onnxruntime_engine import OnnxRuntimeEngine
from .openvino_engine import OpenVinoEngine
from .packages import PACKAGES, Package
from .store import Store, Taking, WrongError

ALIVE_SECONDS = 2.0  # between two signs of life while a request is under way
LOOK_SECONDS = 0.5  # between two looks at whether the runner is still there
IDLE_SECONDS = 60.0  # that a search may hold the machine without asking for anything
MOST_SECONDS = 3600.0  # that a request may take

Answer = tuple[Header, list[bytes]]


@dataclass(frozen=True)
class Kind:
    """A runtime that a runner can have.

    Attributes:
        package: that it comes in.
        engine: makes it of threads and an execution provider.
        version: as records tell it; "" where they tell it elsewhere.
    """

    package: Package
    engine: Callable[[int, str], Engine]
    version: Callable[[], str]


KINDS: Mapping[str, Kind] = {
    "onnxruntime": Kind(PACKAGES["onnxruntime"], OnnxRuntimeEngine, lambda: ""),
    "openvino": Kind(PACKAGES["openvino"], lambda threads, _: OpenVinoEngine(threads), openvino_engine.version),
    "litert": Kind(PACKAGES["litert"], lambda threads, _: LiteRtEngine(threads), litert_engine.version),
    "executorch": Kind(PACKAGES["executorch"], lambda threads, _: ExecuTorchEngine(threads), executorch_engine.version),
}


class Service:
    """Serves one search over a channel that both sides have sealed.

    Args:
        channel: to the search.
        store: of files.
        slimfront: its version.
        begins: told the number of a request that begins, and 0 when it is over.
    """

    def __init__(self, channel: Channel, store: Store, slimfront: str, begins: Callable[[int], None]) -> None:
        self.channel = channel
        self.store = store
        self.slimfront = slimfront
        self._begins = begins
        self._lock = MachineLock()
        self._keeps = False  # whether the search holds the machine from one request to the next
        self._title = ""
        self._engine: Engine | None = None
        self._sessions: dict[str, Session] = {}
        self._asked = threading.Event()  # a request is under way
        self._waits = False  # for the machine
        self._since = time.monotonic()  # the last request ended
        self._parent = os.getppid()
        self._void = Path(os.devnull).open("w")  # noqa: SIM115 (as long as the process)

    def serve(self) -> None:
        """Answer until the search ends the connection.

        Raises:
            DamagedError, EOFError, OSError: as `Channel.receive`.
        """
        threading.Thread(target=self._show_life, daemon=True).start()
        while True:
            taking: list[Taking] = []

            def sink(header: Header, size: int, taking: list[Taking] = taking) -> Sink:
                if header.get("op") != "put":
                    raise DamagedError("only files are sent")
                taking.append(
                    self.store.taking(header.get("name", ""), header.get("size", -1), bool(header.get("packed")))
                )
                return _Noticed(taking[0], self._notice)

            try:
                asked, _ = self.channel.receive(sink, self.store.most)
                answer = self._put(asked, taking) if asked.get("op") == "put" else self._answered(asked)
            except WrongError as error:  # in the middle of a file: what follows cannot be told apart
                self.channel.send({"error": "input", "message": str(error)})
                raise EOFError(str(error)) from None
            except DamagedError:
                self.channel.send({"error": "damaged"})
                raise
            finally:
                for each in taking:
                    each.drop()
            self._send(answer)

    def _notice(self) -> None:
        self._since = time.monotonic()

    def _put(self, asked: Header, taking: list[Taking]) -> Answer:
        """Keep a file that was sent; one without any bytes came without a payload."""
        name = asked.get("name", "")
        kept = (taking or [self.store.taking(name, 0, False)])[0].keep()
        return ({"ok": True} if kept else {"error": "damaged"}), []

    def _answered(self, asked: Header) -> Answer:
        """Do what is asked; return what to say. A request that hangs ends the process."""
        work = {
            "use": self._use,
            "hold": self._hold,
            "release": self._release,
            "open": self._open,
            "inspect": self._inspect,
            "run": self._run,
            "time": self._time,
            "profile": self._profile,
        }.get(asked.get("op", ""))
        if work is None:
            return {"error": "input", "message": f"the runner knows no request {asked.get('op')!r}"}, []
        for name in asked.get("forget", ()):
            self._sessions.pop(name, None)
        self._begins(int(asked.get("number", 0)))
        self._waits = False
        self._asked.set()
        try:
            missing = self._missing(asked)
            if missing:
                return {"missing": missing}, []
            self._lock.acquire(self._wait)
            self._waits = False
            missing = self._missing(asked)  # another search may have needed the room meanwhile
            if missing:
                return {"missing": missing}, []
            seconds = min(float(asked.get("limit", MOST_SECONDS)), MOST_SECONDS)
            faulthandler.dump_traceback_later(seconds, exit=True, file=self._void)
            gc.disable()  # kept out of timings
            return work(asked)
        except BuildError as error:
            return {"error": "build", "message": str(error)}, []
        except (InputError, WrongError) as error:
            return {"error": "input", "message": str(error)}, []
        except Exception as error:
            return {"error": "build", "message": f"{type(error).__name__}: {error}"}, []
        finally:
            gc.enable()
            faulthandler.cancel_dump_traceback_later()
            self._asked.clear()
            self._notice()
            self._begins(0)
            if not self._keeps:
                self._lock.release()

    def _missing(self, asked: Header) -> list[str]:
        return [name for name in dict.fromkeys(_names(asked)) if not self.store.has(name)]

    def _wait(self) -> None:
        if not self._waits:
            self._waits = True
            self.channel.send({"working": True, "waits": True})

    def _use(self, asked: Header) -> Answer:
        """Work with a runtime from now on; say what this machine and the runtime are."""
        kind = KINDS.get(asked["runtime"])
        if kind is None:
            raise InputError(f"a runner has {', '.join(KINDS)}, but not the runtime {asked['runtime']!r}")
        if not kind.package.is_there:
            raise InputError(f"the device has no {kind.package.title}: install it there ({kind.package.install})")
        self._engine = kind.engine(int(asked["threads"]), asked["provider"])
        self._title = kind.package.title
        self._sessions.clear()
        found = {**machine_facts(), "slimfront": self.slimfront, "runtime": kind.version(), "onnxruntime": ""}
        providers: Sequence[str] = ()
        if importlib.util.find_spec("onnxruntime") is not None:
            import onnxruntime

            found["onnxruntime"], providers = onnxruntime.__version__, onnxruntime.get_available_providers()
        return {"facts": found, "providers": list(providers), "space": self.store.most}, []

    def _hold(self, asked: Header) -> Answer:
        self._keeps = True
        return {"ok": True}, []

    def _release(self, asked: Header) -> Answer:
        self._keeps = False
        return {"ok": True}, []

    def _open(self, asked: Header) -> Answer:
        self._sessions.pop(asked["model"], None)
        self._session(asked["model"])
        return {"ok": True}, []

    def _inspect(self, asked: Header) -> Answer:
        shapes = {name: tuple(shape) for name, shape in asked["shapes"].items()}
        self._sessions[asked["model"]], graph = self._runtime.inspect(self.store.path(asked["model"]), shapes)
        return {"ok": True}, [graph]

    def _run(self, asked: Header) -> Answer:
        try:
            outputs = self._session(asked["model"]).run(asked.get("outputs"), self._feed(asked["feed"]))
        except (WrongError, BuildError):
            raise
        except Exception as error:
            raise BuildError(f"{self._title} fails while running the model: {error}") from error
        return {"ok": True}, [_packed(np.asarray(output)) for output in outputs]

    def _time(self, asked: Header) -> Answer:
        """Run sessions one after another; the first of them, and what had to be opened once more, once before that.

        A processor that rested meanwhile is then as busy as between two rounds.
        """
        slots: list[Slot] = []
        feeds: dict[str, dict[str, np.ndarray]] = {}
        try:
            for turn in asked["slots"]:
                cold = turn["model"] not in self._sessions
                known = json.dumps(turn["feed"], sort_keys=True)
                feeds[known] = feeds.get(known) or self._feed(turn["feed"])
                slot = Slot(self._session(turn["model"]), feeds[known], int(turn["repeats"]))
                if cold:
                    slot.session.run(None, slot.feed)
                slots.append(slot)
            for slot in slots[:1]:
                slot.session.run(None, slot.feed)
            return {"seconds": timed(slots)}, []
        except (WrongError, BuildError):
            raise
        except Exception as error:
            raise BuildError(f"{self._title} fails while running the model: {error}") from error

    def _profile(self, asked: Header) -> Answer:
        models = [self.store.path(name) for name in asked["models"]]
        rounds = Rounds(int(asked["least"]), int(asked["most"]), float(asked["seconds"] or math.inf))
        told = time.monotonic()

        def progress(what: str, part: float) -> None:
            nonlocal told
            if time.monotonic() - told > ALIVE_SECONDS:
                told = time.monotonic()
                self.channel.send({"working": True, "progress": [what, part]})

        parts = []
        for raw in self._runtime.profile(models, self._feed(asked["feed"]), rounds, progress):
            ran = json.dumps([list(pair) for pair in raw.ran]).encode()
            parts += [raw.graph, ran, _packed(raw.times_ms), _packed(raw.whole_ms)]
        return {"ok": True}, parts

    @property
    def _runtime(self) -> Engine:
        if self._engine is None:
            raise InputError("no runtime was chosen")
        return self._engine

    def _session(self, name: str) -> Session:
        """Return the open model of this name; open it where it is not."""
        if name not in self._sessions:
            self._sessions[name] = self._runtime.open(self.store.path(name))
        return self._sessions[name]

    def _feed(self, names: Mapping[str, str]) -> dict[str, np.ndarray]:
        return {name: self.store.array(file) for name, file in names.items()}

    def _send(self, answer: Answer) -> None:
        header, parts = answer
        self.channel.send(header | {"parts": [len(part) for part in parts]}, parts, sum(map(len, parts)))

    def _show_life(self) -> None:
        """Tell the search that a request is under way; end this process where nobody is left to tell."""
        told = time.monotonic()
        while True:
            time.sleep(LOOK_SECONDS)
            now = time.monotonic()
            idle = self._keeps and not self._asked.is_set() and now - self._since > IDLE_SECONDS
            if os.getppid() != self._parent or idle:
                os._exit(0)
            if self._asked.is_set() and now - told > ALIVE_SECONDS:
                told = now
                try:
                    self.channel.send({"working": True, "waits": self._waits})
                except OSError:
                    self._begins(0)
                    os._exit(0)


class _Noticed:
    """A sink that tells of each part that comes: a search that sends a large file is not idle."""

    def __init__(self, sink: Sink, notice: Callable[[], None]) -> None:
        self._sink, self._notice = sink, notice

    def write(self, data: bytes) -> None:
        """Take the next part."""
        self._notice()
        self._sink.write(data)


def _names(asked: Header) -> list[str]:
    """Return all files that a request names."""
    slots = asked.get("slots", ())
    models = [*asked.get("models", ()), *(turn["model"] for turn in slots)]
    feeds = [asked.get("feed", {}), *(turn["feed"] for turn in slots)]
    own = [asked["model"]] if "model" in asked else []
    return [*own, *models, *(name for feed in feeds for name in feed.values())]


def _packed(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()
