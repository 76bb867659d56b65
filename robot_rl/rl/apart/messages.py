"""What actors and learner say to each other: one small class for each message, checked when it arrives.

An actor asks, the learner answers. `Welcome` comes once, unasked; then each of `Join`, `Recorded` and `Poll` is
answered by `Reply`, or by `Refused` as the last word. On the wire a message is its kind and fields as JSON behind their
length, then its arrays as safetensors.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints, overload

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

_LENGTH = struct.Struct("<I")


class MessageError(ValueError):
    """A message is not what was agreed on; says what was expected and what came."""


def same_rewards(learner: str, actor: str) -> None:
    """Whether rewards fit together, by where success comes from on both sides.

    Raises:
        MessageError: a task says it on one side alone.
    """
    if (actor == "task") != (learner == "task"):
        raise MessageError(
            f"expected success={learner}, got success={actor}: the rewards of a task and those of a detector, 1 for "
            "each success, are not to be mixed. Choose it at the learner"
        )


@dataclass(frozen=True)
class Welcome:
    """What an actor needs to know to act.

    Attributes:
        run: identity of the training; episodes of another one are none of it.
        environment: specification of what is stepped.
        name, algorithm: of the method, and its options.
        network, contract: configuration and contract of the policy that the method is built on.
        recorded: the contract of the environments, and of what is recorded; the policy may see less.
        success: where success comes from, as of `SuccessSource`.
        execute: actions of each chunk that are executed.
        first_seed: of the training's episodes.
    """

    run: str
    environment: dict[str, Any]
    name: str
    algorithm: dict[str, Any]
    network: dict[str, Any]
    contract: dict[str, Any]
    recorded: dict[str, Any]
    success: dict[str, Any]
    execute: int
    first_seed: int


@dataclass(frozen=True)
class Join:
    """An actor introduces itself.

    Attributes:
        actor: its identity, that of its store.
        contract: of its environments.
        success: who says there that the task is achieved: `task`, `key` or `classifier`.
    """

    actor: str
    contract: dict[str, Any]
    success: str


@dataclass(frozen=True)
class Recorded:
    """An episode that an actor has committed to its own store.

    Attributes:
        number: there.
        facts: of it.
        version: of the newest parameters that the actor has.
        arrays: `observation/<name>` and `timestamp/<stream>` of T + 1 rows; `action`, `policy_action`, `intervened`,
            `reward`, `terminated` and `truncated` of T.
    """

    number: int
    facts: dict[str, Any]
    version: int
    arrays: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Poll:
    """An actor has nothing to send, and wants news.

    Attributes:
        version: of the newest parameters that it has.
    """

    version: int


@dataclass(frozen=True)
class Reply:
    """The learner's answer.

    Attributes:
        received: episodes of this actor that lie in the learner's store; they are those of the lowest numbers.
        version: of the published parameters.
        begin: whether the first steps, which are drawn otherwise, are still being made.
        finished: whether the training is over.
        arrays: the parameters, where the actor's are others.
    """

    received: int
    version: int
    begin: bool
    finished: bool
    arrays: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """The learner does not go on with this actor."""

    reason: str


Message = Welcome | Join | Recorded | Poll | Reply | Refused
KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Message)}
M = TypeVar("M", bound=Message)
N = TypeVar("N", bound=Message)


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    from safetensors.numpy import save

    content = {item.name: getattr(message, item.name) for item in fields(message)}
    arrays = content.pop("arrays", {})
    text = json.dumps({"kind": type(message).__name__, **content}, allow_nan=False).encode()
    packed = save({name: np.asarray(value, order="C") for name, value in arrays.items()}) if arrays else b""
    return _LENGTH.pack(len(text)) + text + packed


@overload
def decode(payload: bytes, expected: type[M], /) -> M: ...
@overload
def decode(payload: bytes, expected: type[M], other: type[N], /) -> M | N: ...
def decode(payload: bytes, *expected: type[Any]) -> Any:
    """The message in these bytes, which has to be of an expected kind.

    Raises:
        MessageError: it is another one, or no message at all.
    """
    content, rest = _split(payload)
    kind, wanted = content.pop("kind", None), " or ".join(each.__name__ for each in expected)
    if not isinstance(kind, str) or kind not in KINDS:
        raise MessageError(f"expected {wanted}, got a message of unknown kind {kind!r}")
    chosen = KINDS[kind]
    hints = get_type_hints(chosen)
    problems = [f"{key}: no such field" for key in content if key not in hints or key == "arrays"]
    for key, hint in hints.items():
        if key == "arrays":
            continue
        kinds = get_args(hint) if isinstance(hint, UnionType) else (get_origin(hint) or hint,)
        if key not in content:
            problems.append(f"{key}: missing")
        elif type(content[key]) not in kinds:
            wants = " or ".join(each.__name__ for each in kinds)
            problems.append(f"{key}: expected {wants}, got {type(content[key]).__name__} {content[key]!r:.60}")
    if rest and "arrays" not in hints:
        problems.append(f"arrays: none expected, got {len(rest)} bytes")
    if problems:
        raise MessageError(f"a message {kind} does not fit:\n" + "\n".join(f"  - {line}" for line in problems))
    if "arrays" in hints:
        content["arrays"] = _arrays(kind, rest)
    message = chosen(**content)
    if not isinstance(message, expected):
        said = f": {message.reason}" if isinstance(message, Refused) else ""
        raise MessageError(f"expected {wanted}, got {kind}{said}")
    return message


def _split(payload: bytes) -> tuple[dict[str, Any], bytes]:
    if len(payload) < _LENGTH.size:
        raise MessageError(f"expected a message, got {len(payload)} bytes")
    (length,) = _LENGTH.unpack_from(payload)
    start, stop = _LENGTH.size, _LENGTH.size + length
    if stop > len(payload):
        raise MessageError(f"a message is cut off: {length} bytes of fields announced, {len(payload) - start} came")
    try:
        content = json.loads(payload[start:stop], parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"the fields of a message are not JSON: {error}") from error
    if not isinstance(content, dict):
        raise MessageError(f"expected fields by name, got {type(content).__name__}")
    return content, payload[stop:]


def _arrays(kind: str, data: bytes) -> Arrays:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if not data:
        return {}
    try:
        return dict(load(data))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise MessageError(f"the arrays of a message {kind} cannot be read: {error}") from error


def _no_constant(name: str) -> Mapping[str, Any]:
    raise ValueError(f"{name} is no number of JSON")
