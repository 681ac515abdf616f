"""How a search and a runner meet: both show that they know the token, which itself is never sent.

Each side sends a random number; each answers with an HMAC-SHA256 of both numbers and of what both said of themselves, under the
token. From the same come the keys that seal what follows (`frames`).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets

from .frames import Channel, Header

PROTOCOL = 1
LEAST_TOKEN = 8  # characters
NONCE = 32  # bytes


class RefusedError(Exception):
    """The other side is not who is talked to; another try changes nothing."""


def welcome(channel: Channel, token: str, version: str) -> Header:
    """Meet a search, as a runner does; return what it says of itself.

    Raises:
        RefusedError: it has another token or another version; it was told so.
        DamagedError, EOFError, OSError: as `Channel.receive`.
    """
    own = {"runner": PROTOCOL, "slimfront": version, "nonce": secrets.token_hex(NONCE)}
    channel.send(own)
    said, _ = channel.receive()
    reason = None
    if (said.get("runner"), said.get("slimfront")) != (PROTOCOL, version):
        reason = f"the runner is slimfront {version}, not {said.get('slimfront')!r}"
    elif not hmac.compare_digest(str(said.get("proof")).encode(), _proof(token, "search", own, said).encode()):
        reason = "token"
    if reason is not None:
        channel.send({"refused": reason})
        raise RefusedError(reason)
    channel.send({"proof": _proof(token, "runner", own, said)})
    channel.seal_with(_key(token, "runner", own, said), _key(token, "search", own, said))
    return said


def introduce(channel: Channel, token: str, version: str, name: str) -> None:
    """Meet a runner, as a search does.

    Args:
        channel: that was opened just now.
        token: of the runner.
        version: of slimfront.
        name: of this search, the same whenever it connects again.

    Raises:
        RefusedError: what answers is no runner, has another version or another token.
        DamagedError, EOFError, OSError: as `Channel.receive`.
    """
    said, _ = channel.receive()
    if "runner" not in said:
        raise RefusedError("it is no runner of slimfront's")
    if (said["runner"], said.get("slimfront")) != (PROTOCOL, version):
        raise RefusedError(
            f"the runner there is slimfront {said.get('slimfront')}, here it is {version}: bring the same to the device "
            "(slimfront runner --pack runner.pyz)"
        )
    own: Header = {"runner": PROTOCOL, "slimfront": version, "nonce": secrets.token_hex(NONCE), "name": name}
    channel.send(own | {"proof": _proof(token, "search", said, own)})
    answer, _ = channel.receive()
    if answer.get("refused") == "token":
        raise RefusedError("it has another token: SLIMFRONT_TOKEN must be what the runner was started with")
    if "refused" in answer:
        raise RefusedError(f"it refuses this search: {answer['refused']}")
    if not hmac.compare_digest(str(answer.get("proof")).encode(), _proof(token, "runner", said, own).encode()):
        raise RefusedError("it does not know the token, though it pretends to")
    channel.seal_with(_key(token, "search", said, own), _key(token, "runner", said, own))


def _proof(token: str, who: str, runner: Header, search: Header) -> str:
    return _told(token, f"proof of the {who}", runner, search).hex()


def _key(token: str, who: str, runner: Header, search: Header) -> bytes:
    return _told(token, f"what the {who} sends", runner, search)


def _told(token: str, what: str, runner: Header, search: Header) -> bytes:
    """Return an HMAC of what both said, under the token."""
    said = [{key: value for key, value in side.items() if key != "proof"} for side in (runner, search)]
    return hmac.new(token.encode(), json.dumps([what, *said], sort_keys=True).encode(), hashlib.sha256).digest()
