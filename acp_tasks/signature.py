"""Signed messages: with `ACP_SIGNING_KEYS` set, whoever publishes vouches for what it asks for, and workers take
nothing else.

The header `acp` carries `sig: {key, mac, digest}`: the HMAC-SHA256 of the canonical JSON of

    ["message", TASK, DIGEST, ACP, CANVAS]

where DIGEST is that of the task's name and arguments, ACP the rest of the header, and CANVAS the SHA-256 of the
canonical JSON of [callbacks, errbacks, chain, chord]. What a message hands on is signed with it: otherwise a callback
that somebody hung onto a signed message would be submitted, and signed, by the worker that ran it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from json import dumps, loads
from typing import Any, Final
from uuid import NAMESPACE_OID, uuid5

import structlog
from kombu.utils.json import JSONEncoder

from acp_tasks import bootstrap
from acp_tasks.header import header_of
from acp_tasks.message import arguments_json, digest, pack
from governance.core.actions import Submission
from governance.core.digest import canonical_json, sha256
from governance.core.policy import DEFAULT_STREAM, Risk
from governance.core.signing import RULE, Keyring
from governance.errors import ActionDenied, ArgumentsNotJson
from governance.operations.context import Governance
from governance.operations.submit import refuse

log = structlog.get_logger(__name__)

SIGNATURE: Final = "sig"
# What one message hands on, by its names among the options of a call and in a worker's request.
_OPTIONS: Final = ("link", "link_error", "chain", "chord")
_REQUEST: Final = ("callbacks", "errbacks", "chain", "chord")
_UNBOUNDED: Final = 2**40
_encode = JSONEncoder().default


@dataclass(frozen=True, slots=True)
class Proof:
    """What a message's signature says. `forged`: why it counts for nothing; `digest`: of the arguments it was for."""

    forged: str | None
    digest: str | None = None


def signed(
    keyring: Keyring, task: str, arguments: str, header: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """`header` with the signature of a message with these arguments (their digest) and publishing options."""
    key = keyring.signing
    canvas = _canvas([options.get(name) for name in _OPTIONS])
    rest = {name: value for name, value in header.items() if name != SIGNATURE}
    mac = keyring.mac(key, ["message", task, arguments, rest, canvas])
    return {**rest, SIGNATURE: {"key": key, "mac": mac, "digest": arguments}}


def proof_of(keyring: Keyring, task: str, header: Mapping[str, Any], request: Any) -> Proof:
    """Whether the header, and all that the message hands on, is what a known key has signed."""
    signature = header.get(SIGNATURE)
    if not isinstance(signature, Mapping):
        return Proof("it is not signed: whoever publishes needs a key of ACP_SIGNING_KEYS")
    key, mac, arguments = (signature.get(name) for name in ("key", "mac", "digest"))
    if not (isinstance(key, str) and isinstance(mac, str) and isinstance(arguments, str)):
        return Proof("its signature cannot be read: expected key, mac and digest as text")
    if key not in keyring.secrets:
        return Proof(f"it is signed by the key {key!r:.80}, which is not known here")
    rest = {name: value for name, value in header.items() if name != SIGNATURE}
    canvas = _canvas([getattr(request, name, None) for name in _REQUEST])
    if not keyring.fits(key, mac, ["message", task, arguments, rest, canvas]):
        return Proof(f"it is not what the key {key} signed: its header, or what it hands on, was changed")
    return Proof(None, arguments)


def examined(task: Any) -> Proof | None:
    """What the signature of the message that `task` works on says; None when this process asks for none.

    Before anything else is done with it: whatever is raised from here on, a forged message hands nothing on, neither
    to the callbacks nor to the errbacks that came with it.
    """
    keyring = bootstrap.governance().signing
    if keyring is None:
        return None
    request = task.request
    try:
        proof = proof_of(keyring, task.name, header_of(request), request)
    except Exception:
        hand_nothing_on(request)
        raise
    if proof.forged is not None:
        hand_nothing_on(request)
    return proof


def flaw_of_new(proof: Proof, header: Mapping[str, Any], arrived: str) -> str | None:
    """Why a message whose action nobody has submitted may not be submitted by the worker; None when it may."""
    if proof.forged is not None:
        return proof.forged
    if proof.digest != arrived:
        return "its arguments are not those that were signed"
    if not header.get("command_id"):
        return "its signature covers no command_id: without one it could be sent again and again"
    return None


def hand_nothing_on(request: Any) -> None:
    """Forgets what a forged message would have Celery publish, or count, when it ends or fails."""
    for name in _REQUEST:
        setattr(request, name, None)


def sign_moving(task: Any, args: Any, kwargs: Any, options: dict[str, Any]) -> None:
    """Signs a message of a task outside governance that hands on others: of Celery's own, or with a canvas of its own.

    One whose arguments are no JSON stays unsigned, and is refused where it arrives.
    """
    if not task.moves_others and not any(options.get(name) for name in _OPTIONS):
        return
    keyring = bootstrap.governance().signing
    if keyring is None:
        return
    try:
        text = arguments_json(task.name, tuple(args or ()), dict(kwargs or {}), _UNBOUNDED)
    except ArgumentsNotJson as problem:
        log.warning("not signed", task=task.name, problem=str(problem))
        return
    headers = options.get("headers") or {}
    header = signed(keyring, task.name, digest(task.name, text), headers.get("acp") or {}, options)
    options["headers"] = {**headers, "acp": header}


def check_moving(task: Any, args: Any, kwargs: Any) -> None:
    """A message outside governance may run its own task, but hands on nothing that a known key has not signed.

    Raises ActionDenied for one of Celery's own, which does nothing else.
    """
    request = task.request
    if not task.moves_others and not any(getattr(request, name, None) for name in _REQUEST):
        return
    proof = examined(task)
    if proof is None:
        return
    flaw = proof.forged
    if flaw is None and proof.digest != digest(task.name, arguments_json(task.name, args, kwargs, _UNBOUNDED)):
        flaw = "its arguments are not those that were signed"
    if flaw is None:
        return
    hand_nothing_on(request)
    if task.moves_others:
        raise refused(bootstrap.governance(), task, request.id, args, kwargs, flaw)
    log.warning("nothing is handed on", action=request.id, task=task.name, why=flaw)


def refused(gov: Governance, task: Any, action_id: str, args: Any, kwargs: Any, why: str) -> ActionDenied:
    """Records that a message was refused, and says so to whoever waits for it.

    The record has an id of its own: neither its command_id nor its task's id is taken from a message that may be
    anybody's.
    """
    text = arguments_json(task.name, args, kwargs, _UNBOUNDED)
    own_id = str(uuid5(NAMESPACE_OID, f"refused/{action_id}/{digest(task.name, text)}"))
    terms = getattr(task, "terms", None)
    submission = Submission(
        action_id=own_id,
        command_id=own_id,
        name=task.name,
        digest=digest(task.name, text),
        message=pack(task.name, text, {}),
        stream=terms.stream if terms else DEFAULT_STREAM,
        risk=terms.risk if terms else Risk.HIGH,
        idempotent=False,
        correlation_id=own_id,
        can_wait=False,
    )
    refuse(gov, submission, RULE, f"message {action_id} of {task.name}: {why}")
    log.warning("message refused", action=action_id, task=task.name, why=why)
    return ActionDenied(action_id, RULE, why, None, [])


def _canvas(parts: list[Any]) -> str:
    callbacks, errbacks, chain, chord = parts
    lists = [_listed(callbacks), _listed(errbacks), list(chain or ())]
    # As it arrives: over the wire every key is a string, and every signature a dict.
    return sha256(canonical_json(loads(dumps([*lists, chord or None], default=_encode))))


def _listed(signatures: Any) -> list[Any]:
    if not signatures:
        return []
    return list(signatures) if isinstance(signatures, list | tuple) else [signatures]
