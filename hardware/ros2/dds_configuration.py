"""The DDS domain from ROS 2's environment variables. What they leave open stays on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from xml.sax.saxutils import quoteattr

from robot_rl.hardware.ros2.graph import GraphError, adapter

VARIABLES = (
    "ROS_DOMAIN_ID",
    "ROS_AUTOMATIC_DISCOVERY_RANGE",
    "ROS_LOCALHOST_ONLY",
    "ROS_STATIC_PEERS",
    "CYCLONEDDS_URI",
)
RANGES = ("LOCALHOST", "SUBNET", "OFF", "SYSTEM_DEFAULT")
LARGEST_DOMAIN = 232
"""Beyond it the ports of RTPS do not fit into 16 bits."""


@dataclass(frozen=True)
class DdsConfiguration:
    """`discovery_range` as in ROS_AUTOMATIC_DISCOVERY_RANGE; `xml` is Cyclone's configuration."""

    domain_id: int
    discovery_range: str
    static_peers: tuple[str, ...]
    xml: str

    @property
    def on_loopback(self) -> bool:
        """Whether nothing may come in from, or go out to, a network."""
        return self.discovery_range in ("LOCALHOST", "OFF") and not self.static_peers

    @property
    def reach(self) -> str:
        """Where others are found, for people."""
        return "this machine only" if self.on_loopback else f"the network ({self.discovery_range})"


def where_others_are_found(environment: Mapping[str, str] = os.environ) -> str:
    """Domain and reach of this process's graph, for messages that somebody is not there; by the adapter in use.

    Raises:
        GraphError: as `configuration`.
    """
    # ROS 2's own default, where neither of its variables is set, is the network.
    ranges = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"} if adapter(environment) == "rclpy" else {}
    found = configuration({**ranges, **{name: value for name, value in environment.items() if value.strip()}})
    variables = f"ROS_DOMAIN_ID, ROS_AUTOMATIC_DISCOVERY_RANGE={found.discovery_range}"
    return f"in domain {found.domain_id} on {found.reach} ({variables})"


def configuration(environment: Mapping[str, str] = os.environ) -> DdsConfiguration:
    """Read the variables. Raises GraphError for a value that ROS 2 does not have.

    CYCLONEDDS_URI stands above everything, as in rmw_cyclonedds; where it is set and no range is, it rules alone.
    """
    text = environment.get("ROS_DOMAIN_ID", "").strip() or "0"
    if not text.isdecimal() or int(text) > LARGEST_DOMAIN:
        raise GraphError(f"ROS_DOMAIN_ID is a number from 0 to {LARGEST_DOMAIN}, not {text!r}")
    uri = environment.get("CYCLONEDDS_URI", "").strip()
    chosen = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").strip().upper()
    if environment.get("ROS_LOCALHOST_ONLY", "").strip() == "1":
        chosen = "LOCALHOST"
    if chosen not in ("", *RANGES):
        raise GraphError(f"ROS_AUTOMATIC_DISCOVERY_RANGE is one of {', '.join(RANGES)}, not {chosen!r}")
    discovery_range = chosen or ("SYSTEM_DEFAULT" if uri else "LOCALHOST")
    peers = tuple(peer.strip() for peer in environment.get("ROS_STATIC_PEERS", "").split(";") if peer.strip())
    if discovery_range == "OFF":
        peers = ()
    xml = _xml(discovery_range, peers)
    return DdsConfiguration(int(text), discovery_range, peers, f"{xml},{uri}" if uri else xml)


def _xml(discovery_range: str, peers: tuple[str, ...]) -> str:
    interface, discovery = "", ""
    if discovery_range in ("LOCALHOST", "OFF"):
        # Discovery goes to the ports of up to 65 processes: loopback needs no multicast, which containers lack.
        if not peers:
            interface = '<Interfaces><NetworkInterface address="127.0.0.1"/></Interfaces>'
        interface += "<AllowMulticast>false</AllowMulticast>"
        discovery = "<ParticipantIndex>auto</ParticipantIndex><MaxAutoParticipantIndex>64</MaxAutoParticipantIndex>"
        if discovery_range == "LOCALHOST":
            peers = ("127.0.0.1", *peers)
        else:
            discovery += f"<Tag>{os.getpid()}</Tag>"
    if peers:
        discovery += "<Peers>" + "".join(f"<Peer Address={quoteattr(peer)}/>" for peer in peers) + "</Peers>"
    # Large datagrams halve the latency of an image. The high-water mark is beyond what the depth of any topic keeps, so
    # that a reader which hangs, or died and is not yet missed, never blocks a writer: the oldest samples go instead.
    return (
        f'<CycloneDDS><Domain Id="any"><General>{interface}'
        "<MaxMessageSize>65500B</MaxMessageSize><FragmentSize>65000B</FragmentSize></General>"
        f"<Discovery>{discovery}</Discovery>"
        '<Internal><SocketReceiveBufferSize max="10MB"/><Watermarks><WhcHigh>500MB</WhcHigh></Watermarks></Internal>'
        "</Domain></CycloneDDS>"
    )
