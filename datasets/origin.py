"""Where an episode was first recorded, which it keeps through every edit, resampling and playback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robot_rl.datasets.store import EpisodeStore


def origin(store: EpisodeStore, number: int) -> dict[str, Any]:
    """Name and id of the store that an episode was first recorded into, and its number there: `store, id, episode`.

    The id is None where an earlier version edited the episode and did not keep it.
    """
    made = store.provenance
    first = {"store": store.path.name, "id": made.get("id", made.get("created")), "episode": number}
    known = store.facts(number).get("origin")
    return first if known is None else {"id": None, **known}


def converted(provenance: Mapping[str, Any]) -> set[str]:
    """Ids of the stores that this one was converted from, or a part of it: which episode became which is not kept."""
    parts = [converted(part) for part in provenance.get("made_of", ())]
    return {provenance.get("converted_from", {}).get("id")}.union(*parts) - {None}


def names(provenance: Mapping[str, Any]) -> set[str]:
    """Names of all stores that this one was made of."""
    parts = [names(part) | {part["store"]} for part in provenance.get("made_of", ()) if "store" in part]
    return {provenance.get("resampled_from", {}).get("store")}.union(*parts) - {None}
