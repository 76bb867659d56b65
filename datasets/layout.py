"""What a store's folder holds: the attributes of its root, and which arrays follow from them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.datasets import chunks
from robot_rl.datasets.contract import Contract, ContractError, Feature, name_problem
from robot_rl.datasets.errors import NotAStore, StoreDamaged, StoreError, StoreVersionError
from robot_rl.datasets.statistics import row_shapes, summarise

FORMAT = "robot_rl.episodes"
VERSION = 1

EPISODE_ENDS = "meta/episode_ends"
CHECKSUM = "meta/checksum"
FACTS = "meta/facts.jsonl"
STATISTICS = "meta/statistics/"
LOCK = "meta/writer.lock"
CONTROL = "control"
"""The stream that every store has: when the row was taken."""

_FLAGS = ("intervened", "is_first", "is_last", "terminated", "truncated")
RESERVED = frozenset(["action", "policy_action", "reward", *_FLAGS, "timestamp", "sim_state"])
"""Names below `data` that no observation may have."""


@dataclass(frozen=True)
class ArrayKind:
    """dtype and shape of one row of an array; `packed` for encoded frames, whose chunk files are larger."""

    dtype: str
    row_shape: tuple[int, ...] = ()
    packed: bool = False

    @property
    def row_bytes(self) -> int:
        """Size of a row."""
        return np.dtype(self.dtype).itemsize * int(np.prod(self.row_shape, dtype=np.int64))

    @property
    def chunk_rows(self) -> int:
        """Rows in a chunk file: as many as fit into its size, at least one."""
        size = chunks.FRAME_CHUNK_BYTES if self.packed else chunks.ROW_CHUNK_BYTES
        return max(1, size // self.row_bytes)

    @property
    def chunk_bytes(self) -> int:
        """Size of a chunk file."""
        return self.chunk_rows * self.row_bytes


@dataclass(frozen=True)
class Layout:
    """All that stands in the attributes of a store.

    Attributes:
        contract: of observations and actions.
        encoding: of every camera, see `robot_rl.datasets.frames`.
        streams: names of further time stamps kept for each row, beside `control` and one for each camera.
        sim_state_size: elements of the simulator state kept for each row; 0 without.
        provenance: what made the data: versions, command line, environment.
    """

    contract: Contract
    encoding: Mapping[str, str] = field(default_factory=dict)
    streams: tuple[str, ...] = ()
    sim_state_size: int = 0
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = [*self._problems()]
        if problems:
            raise StoreError("\n".join(["this cannot be stored:", *(f"  - {problem}" for problem in problems)]))

    @cached_property
    def lowdim(self) -> dict[str, Feature]:
        """The observation features that are stored as rows."""
        return {name: feature for name, feature in self.contract.observation.items() if not feature.is_frame}

    @cached_property
    def row_arrays(self) -> dict[str, ArrayKind]:
        """The arrays with one row for each row of an episode, by path, but for the encoded frames."""
        size = self.contract.action_dim
        arrays = {f"data/{name}": ArrayKind(feature.dtype, feature.shape) for name, feature in self.lowdim.items()}
        arrays |= {"data/action": ArrayKind("float32", (size,)), "data/policy_action": ArrayKind("float32", (size,))}
        arrays |= {"data/reward": ArrayKind("float32")}
        arrays |= {f"data/{name}": ArrayKind("bool") for name in _FLAGS}
        arrays |= {f"data/timestamp/{name}": ArrayKind("float64") for name in (CONTROL, *self.streams)}
        if self.sim_state_size:
            arrays["data/sim_state"] = ArrayKind("float64", (self.sim_state_size,))
        for camera in self.contract.cameras:
            for name, dtype in (("offset", "int64"), ("size", "int32"), ("stamp", "float64"), ("checksum", "uint32")):
                arrays[f"frames/{camera}/{name}"] = ArrayKind(dtype)
        return arrays

    @cached_property
    def frame_arrays(self) -> dict[str, ArrayKind]:
        """The encoded frames of each camera, by path."""
        kind = ArrayKind("uint8", packed=True)
        return {f"frames/{camera}/bytes": kind for camera in self.contract.cameras}

    @cached_property
    def episode_arrays(self) -> dict[str, ArrayKind]:
        """The arrays with one row for each episode, by path, but for `EPISODE_ENDS`."""
        arrays = {CHECKSUM: ArrayKind("uint32")}
        for name, shape in self.statistics_shapes.items():
            arrays[f"{STATISTICS}{name}"] = ArrayKind("float64", (sum(_parts(shape).values()), *shape))
        return arrays

    @cached_property
    def statistics_shapes(self) -> dict[str, tuple[int, ...]]:
        """The features that statistics are kept of, and their shape: no frames, texts and diagnostics."""
        kept = {name: f for name, f in self.lowdim.items() if f.kind != "text" and f.role != "diagnostic"}
        return {**{name: feature.shape for name, feature in kept.items()}, "action": (self.contract.action_dim,)}

    @cached_property
    def arrays(self) -> dict[str, ArrayKind]:
        """All arrays, by path; `EPISODE_ENDS` stands last."""
        ends = {EPISODE_ENDS: ArrayKind("int64")}
        return {**self.row_arrays, **self.frame_arrays, **self.episode_arrays, **ends}

    @property
    def groups(self) -> list[str]:
        """All groups below the root, parents first."""
        groups = {str(parent) for path in self.arrays for parent in Path(path).parents}
        return sorted(groups - {"."}, key=lambda path: (path.count("/"), path))

    def group_header(self, path: str) -> bytes:
        """The `zarr.json` of a group; the root (an empty path) and its copy in `meta` carry the attributes."""
        attributes = self.to_dict() if path in ("", "meta") else {}
        plain = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        return json.dumps(plain, indent=2, allow_nan=False).encode()

    def to_dict(self) -> dict[str, Any]:
        """The attributes of the root."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "rate_hz": self.contract.rate_hz,
            "contract": self.contract.to_dict(),
            "encoding": dict(self.encoding),
            "streams": list(self.streams),
            "sim_state_size": self.sim_state_size,
            "provenance": dict(self.provenance),
        }

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> Layout:
        """The inverse of `to_dict`. Raises KeyError, TypeError or ContractError when something is missing or wrong."""
        return Layout(
            contract=Contract.from_dict(plain["contract"]),
            encoding=plain["encoding"],
            streams=tuple(plain["streams"]),
            sim_state_size=plain["sim_state_size"],
            provenance=plain["provenance"],
        )

    @staticmethod
    def read(store: Path, group: str = "") -> Layout:
        """Read the attributes of a store.

        Raises:
            NotAStore: there is none.
            StoreVersionError: its version is not read by this package.
            StoreDamaged: the attributes are unreadable.
        """
        path = store / group / "zarr.json"
        if not path.is_file():
            if (store / FACTS).parent.is_dir() and (store / EPISODE_ENDS).is_dir():
                raise StoreDamaged(f"{path} is missing; `robot-rl data check --repair` restores it from its copy.")
            found = "it does not exist" if not store.exists() else "it has no zarr.json"
            inside = sorted(str(each.parent) for each in store.glob("*.zarr/zarr.json"))
            makes = "`robot-rl collect` and EpisodeStore.create make new ones"
            way = f"Give {' or '.join(inside)}" if inside else makes
            raise NotAStore(f"{store} is no episode store: {found}. {way}.")
        try:
            plain = json.loads(path.read_bytes())
            attributes = dict(plain["attributes"])
        except (ValueError, KeyError, TypeError) as error:
            raise StoreDamaged(
                f"{path} is unreadable ({error}); `robot-rl data check --repair` restores it from its copy."
            ) from error
        if attributes.get("format") != FORMAT:
            raise NotAStore(
                f"{store} is Zarr, but no episode store: its attribute `format` is {attributes.get('format')!r}, "
                f"expected {FORMAT!r}. `robot-rl data convert` reads other formats."
            )
        if attributes.get("version") != VERSION:
            raise StoreVersionError(
                f"{store} has version {attributes.get('version')} of the format; this package reads version {VERSION}. "
                "Install a newer robot_rl."
            )
        try:
            return Layout.from_dict(attributes)
        except (KeyError, TypeError, ContractError) as error:
            raise StoreDamaged(
                f"{path}: the attributes are incomplete ({error}); `robot-rl data check --repair` restores them."
            ) from error

    def pack_statistics(self, name: str, summary: Mapping[str, np.ndarray]) -> np.ndarray:
        """The quantities of `robot_rl.datasets.statistics.summarise` one behind the other, [K, *shape]."""
        shape = self.statistics_shapes[name]
        parts = _parts(shape)
        return np.concatenate([np.broadcast_to(summary[key], (number, *shape)) for key, number in parts.items()])

    def statistics_of(self, name: str, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """The same of the rows of an episode, by array; to the last row belongs no action."""
        values = rows[f"data/{name}"]
        return self.pack_statistics(name, summarise(values[:-1] if name == "action" else values))

    def unpack_statistics(self, name: str, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The inverse for E episodes: rows [E, K, *shape] to the quantities, each [E, ...]."""
        shape = self.statistics_shapes[name]
        own, start, found = row_shapes(shape), 0, {}
        for key, number in _parts(shape).items():
            part = rows[:, start : start + number]
            found[key] = part.reshape(len(rows), -1)[:, 0] if own[key] == () else part.reshape(len(rows), *own[key])
            start += number
        return found

    def _problems(self) -> Iterator[str]:
        for name in self.streams:
            if problem := name_problem(name):
                yield f"stream {name}: {problem}"
        for name, feature in self.contract.observation.items():
            if name in RESERVED:
                yield f"observation.{name}: this name is taken by the format; taken are {', '.join(sorted(RESERVED))}"
            if feature.dtype not in chunks.DTYPES:
                yield f"observation.{name}: {feature.dtype} cannot be stored; {', '.join(sorted(chunks.DTYPES))} can"
        for name, feature in self.contract.cameras.items():
            size = ArrayKind(feature.dtype, feature.shape).row_bytes
            if self.encoding.get(name) == "raw" and size > chunks.FRAME_CHUNK_BYTES:
                yield (
                    f"observation.{name}: a raw frame takes {size} bytes, more than a chunk of "
                    f"{chunks.FRAME_CHUNK_BYTES}; choose another encoding"
                )
        if CONTROL in self.contract.cameras:
            yield f"observation.{CONTROL}: exists already as a stream; every store has {CONTROL}"
        taken = {CONTROL, *self.contract.cameras}
        for name in self.streams:
            if name in taken or self.streams.count(name) > 1:
                yield f"stream {name}: exists already; every store has {', '.join(sorted(taken))}"
        if self.sim_state_size < 0:
            yield f"sim_state_size: expected 0 or more, got {self.sim_state_size}"


def _parts(shape: tuple[int, ...]) -> dict[str, int]:
    """How many rows of the feature's shape each quantity of the statistics takes."""
    return {key: own[0] if len(own) > len(shape) else 1 for key, own in row_shapes(shape).items()}
