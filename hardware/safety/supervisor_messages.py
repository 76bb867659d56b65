"""What sources and the Supervisor say to each other on the graph, in standard message types.

| topic                               | type             | from       | what                                        |
|-------------------------------------|------------------|------------|---------------------------------------------|
| `supervisor/source`                 | DiagnosticStatus | sources    | asks for the lease, keeps it, gives it back |
| `supervisor/proposal`               | JointState       | sources    | one action under a lease                    |
| `supervisor/emergency_stop_request` | std_msgs/Bool    | anyone     | true stops                                  |
| `supervisor/status`                 | DiagnosticArray  | Supervisor | of every tick, latched                      |
| `supervisor/transition`             | DiagnosticStatus | Supervisor | every change of state, with its reason      |

Services of type std_srvs/Trigger: `supervisor/home`, `supervisor/disengage`, `supervisor/emergency_stop`,
`supervisor/clear`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from robot_rl.datasets import Contract
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.qos import Qos
from robot_rl.hardware.safety.lease import SourceKind
from robot_rl.hardware.safety.proposal import Proposal

SOURCE, PROPOSAL, STATUS = "supervisor/source", "supervisor/proposal", "supervisor/status"
TRANSITION, STOP_REQUEST = "supervisor/transition", "supervisor/emergency_stop_request"
DIAGNOSTIC, DIAGNOSTICS = "diagnostic_msgs/msg/DiagnosticStatus", "diagnostic_msgs/msg/DiagnosticArray"
JOINT_STATE, BOOL, TRIGGER = "sensor_msgs/msg/JointState", "std_msgs/msg/Bool", "std_srvs/srv/Trigger"
HISTORY = Qos(depth=100)

Wish = Literal["acquire", "hold", "release"]
_FRAME = re.compile(r"(\d{1,15})/(\d{1,15})")


class MalformedError(ValueError):
    """A message of a source cannot be read; `reason` is the word under which it is counted."""

    def __init__(self, reason: str, text: str) -> None:
        self.reason = reason
        super().__init__(text)


class SourceWord(NamedTuple):
    """What a source says about itself.

    Attributes:
        name: for people.
        token: random, of its process; two sources of one name are told apart by it.
        wish: asks for the lease, holds it, or gives it back.
        kind: of source.
        lease: id of the lease that it holds or gives back; 0 without one.
        actions: `describe_actions` of the contract that its proposals follow.
        reason: why it gives the lease back.
    """

    name: str
    token: str
    wish: Wish
    kind: SourceKind
    lease: int
    actions: str
    reason: str


def describe_actions(contract: Contract) -> str:
    """What both sides have to agree on: controller, rate and the name of every element of an action."""
    return f"{contract.controller or 'any controller'} at {contract.rate_hz:g} Hz: {', '.join(contract.action_names)}"


def encode_source(word: SourceWord) -> Any:
    """The message of `supervisor/source`."""
    values = {"kind": word.kind, "lease": word.lease, "actions": word.actions, "reason": word.reason}
    return diagnostic(word.name, 0, word.wish, values, hardware_id=word.token)


def decode_source(message: Any) -> SourceWord:
    """Read `supervisor/source`. Raises `MalformedError`."""
    values = pairs(message)
    lease = values.get("lease", "0")
    kind: Any = values.get("kind", "")
    if not message.hardware_id or not message.name:
        raise MalformedError("source_without_token", "a source needs a name and, as hardware_id, a token")
    if kind not in get_args(SourceKind):
        raise MalformedError(
            "malformed_source", f"source {message.name!r}: expected {get_args(SourceKind)}, got {kind!r}"
        )
    if message.message not in get_args(Wish) or not (lease.isascii() and lease.isdigit() and len(lease) < 16):
        raise MalformedError(
            "malformed_source", f"source {message.name!r}: expected {get_args(Wish)} and a lease number, "
            f"got {message.message!r} and {lease!r}",
        )  # fmt: skip
    return SourceWord(
        message.name, message.hardware_id, message.message, kind, int(lease), values.get("actions", ""),
        values.get("reason", ""),
    )  # fmt: skip


def encode_proposal(proposal: Proposal, names: Sequence[str]) -> Any:
    """The message of `supervisor/proposal`, for an action whose elements have these names."""
    header = messages.make(
        "std_msgs/msg/Header", stamp=messages.stamp(proposal.stamp), frame_id=f"{proposal.lease}/{proposal.sequence}"
    )
    return messages.make(JOINT_STATE, header=header, name=list(names), position=proposal.action)


def decode_proposal(message: Any, names: Sequence[str]) -> Proposal:
    """Read `supervisor/proposal` for an action with these names, in whatever order they came.

    Raises:
        MalformedError: wrong names or length, or no `lease/sequence` in the frame.
    """
    frame = _FRAME.fullmatch(message.header.frame_id)
    if frame is None:
        raise MalformedError("malformed_frame", f"expected `lease/sequence`, got {message.header.frame_id!r}")
    if len(message.position) != len(message.name):
        raise MalformedError("wrong_shape", f"{len(message.name)} names, but {len(message.position)} positions")
    if len(message.name) != len(names) or set(message.name) != set(names):
        raise MalformedError("wrong_names", f"expected {list(names)}, got {list(message.name)}")
    place = {name: index for index, name in enumerate(message.name)}
    action = np.asarray(message.position, float)[[place[name] for name in names]]
    return Proposal(int(frame[1]), int(frame[2]), messages.seconds(message.header.stamp), action)


def diagnostic(name: str, level: int, message: str, values: Mapping[str, object], hardware_id: str = "") -> Any:
    """A DiagnosticStatus."""
    # As `messages.make`, without its checks of every field: there are a dozen in each tick.
    kind = messages.type_of("diagnostic_msgs/msg/KeyValue")
    made = [kind(key, str(value)) for key, value in values.items()]
    return messages.make(DIAGNOSTIC, level=level, name=name, message=message, hardware_id=hardware_id, values=made)


def diagnostics(stamp: float, *statuses: Any) -> Any:
    """A DiagnosticArray."""
    header = messages.make("std_msgs/msg/Header", stamp=messages.stamp(stamp))
    return messages.make(DIAGNOSTICS, header=header, status=list(statuses))


def pairs(status: Any) -> dict[str, str]:
    """The values of a DiagnosticStatus by key."""
    return {pair.key: pair.value for pair in status.values}
