"""The policy that a method trains or freezes: another configuration around the parameters of a given policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robot_rl.policies import Policy


def extended(policy: Policy, **changes: Any) -> Policy:
    """A copy with other keys of its configuration; what a policy of those keys has beyond `policy` begins at random."""
    config: Mapping[str, Any] = {**policy.config, **changes}
    made = Policy(config, policy.contract).to(policy.device).eval()
    made.load_state_dict(policy.state_dict(), strict=False)
    return made


def chooser(policy: Policy) -> str | None:
    """What chooses the noise or the chunk of a policy, in words; None where nothing does."""
    kinds = {"steering": "a steering", "edit": "an edit"}
    return next((kind for key, kind in kinds.items() if policy.config[key] is not None), None)
