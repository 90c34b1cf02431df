"""How the model tests run: in CI always in the same way. MODEL_EXAMPLES=5000 is the long form of each."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

_LONG = int(os.environ.get("MODEL_EXAMPLES", "0"))
_CI = bool(os.environ.get("CI"))
_LONG_STEPS = 100


def model_settings(examples: int, steps: int) -> settings:
    """Return the settings of a state machine's TestCase.

    Args:
        examples: how many orders of rules are tried, unless it is the long form.
        steps: the most rules in one of them.
    """
    # To look for the shortest failing example takes minutes; CI and the long form report the first one.
    phases = set(Phase) - ({Phase.shrink, Phase.explain} if _LONG or _CI else set())
    return settings(
        phases=phases,
        max_examples=_LONG or examples,
        stateful_step_count=_LONG_STEPS if _LONG else steps,
        deadline=None,
        derandomize=_CI,
        suppress_health_check=[HealthCheck.too_slow],
    )
