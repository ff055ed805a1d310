"""A step that is trained on what the conscience has heard, as a sum of its programs: the policy
answers, the frozen copy reviews, corrects, reviews what it wrote and gives log-probs; and the step.

All candidates count as flagged, and every link of the chain as tried. Programs run one after the
other; what hosts do between them is in no plan.
"""

import math
from collections import Counter
from dataclasses import dataclass

from emergent_alignment.conscience.pairs import ConscienceSettings
from emergent_alignment.conscience.revise import FORK_LINKS, FROZEN_LINKS
from emergent_alignment.conscience.turning import FALL_TOKENS, most_beginnings
from emergent_alignment.planning.roofline import Roofline
from emergent_alignment.runs.config import RunConfig
from emergent_alignment.runs.from_config import conscience_settings
from emergent_alignment.runs.listening_inputs import heard_size

STEP = "training step"


@dataclass(frozen=True)
class OnlineStep:
    """Seconds, at least, by the roofline of each program.

    every    a round of listening every so many steps (conscience.every)
    calls    program → how often it runs in a round; of a program that ends early, the part
    round    all of those together
    seconds  a round's share, and the training step
    plain    the training step alone
    """

    every: int
    calls: dict[str, float]
    round: float
    seconds: float
    plain: float

    @property
    def ratio(self) -> float:
        """How many training steps an online one is."""
        return self.seconds / self.plain


def online_step(
    config: RunConfig, limits: dict[str, Roofline | None], plain: Roofline | None = None
) -> OnlineStep | None:
    """From the limits of its programs, by name, beside a training step with `plain` ones (by
    default its own); None where one has none, or nothing is heard."""
    conscience = config.conscience
    if not conscience.enabled or conscience.candidate == "target" or None in limits.values():
        return None
    calls = calls_of_a_round(config, conscience_settings(config))
    if not calls.keys() <= limits.keys():
        return None
    round_seconds = sum(times * limits[name].seconds for name, times in calls.items())
    seconds = round_seconds / conscience.every + limits[STEP].seconds
    plain = plain or limits[STEP]
    return OnlineStep(conscience.every, calls, round_seconds, seconds, plain.seconds)


def calls_of_a_round(config: RunConfig, conscience: ConscienceSettings) -> dict[str, float]:
    """How often each program runs. A request to write is read like a review, and prompts by the
    frozen copy as by the policy."""
    heard = heard_size(config, config.training.batch_size)
    chunks = math.ceil(heard / config.conscience.batch_size)
    samples = conscience.samples if "best" in conscience.chain else 1
    calls = Counter({"prefill": 1, "decoding": 1})
    calls["review"] += math.ceil(heard * samples / config.conscience.batch_size)
    written = [link for link in conscience.chain if link in FROZEN_LINKS]
    requests = len(written) + conscience.critique
    decodes = requests - conscience.side_by_side
    calls += Counter({"review": requests * chunks, "correction": decodes * chunks})
    if "self" in conscience.chain:
        calls += Counter({"prefill": 1, "decoding": 1})
    calls.update(_calls_of_forks(conscience, heard, config.conscience.batch_size))
    scored = ("best", *FORK_LINKS)  # as soon as they are written
    corrected = [link for link in conscience.chain if link not in scored]
    calls["review"] += len(corrected) * chunks
    # The frozen copy reads the prompts, and on top of them the candidates and the corrections.
    calls += Counter({"prefill": chunks, "reference": 2 * chunks})
    return {name: times for name, times in calls.items() if times}


def _calls_of_forks(conscience: ConscienceSettings, heard: int, batch: int) -> dict[str, float]:
    """Forks are one batch of so many times the rows. At the turn they are phrases, one of them a
    token and the rest of it, and the beginnings of the candidates are read first."""
    links = [link for link in conscience.chain if link in FORK_LINKS]
    if not links:
        return {}
    longest, forks = conscience.max_new_tokens, conscience.samples * len(links)
    calls = {"prefill": forks, "decoding": forks, "review": math.ceil(heard * forks / batch)}
    if conscience.cuts != "turn":
        return calls
    calls["prefill"] += conscience.samples * links.count("fork")
    calls["decoding"] *= min(FALL_TOKENS / longest, 1.0)
    calls["review"] += len(links) * math.ceil(heard * most_beginnings(longest) / batch)
    return calls
