"""The axes that every target has: its services by role."""

from __future__ import annotations

from collections.abc import Sequence

from allodoc_health.probe import axis
from allodoc_health.target import ROLES, Target


@axis("service")
def services(target: Target) -> Sequence[str]:
    """Every role, also those that the target lacks: what is not there is said to be not applicable, not left out."""
    return ROLES
