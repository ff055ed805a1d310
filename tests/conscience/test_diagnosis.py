"""Each figure of a log has a sentence, and the sentence says what is so."""

import pytest

from emergent_alignment.conscience.diagnosis import diagnosed


def run_of(**series) -> list[dict]:
    """A row a step, from lists or constants."""
    steps = max((len(v) for v in series.values() if isinstance(v, list)), default=10)
    return [
        {name.replace("__", "/"): v[i] if isinstance(v, list) else v for name, v in series.items()}
        for i in range(steps)
    ]


@pytest.mark.parametrize(
    "series, said",
    [
        ({"pairs__likeness": 0.1, "pairs__length_ratio": 1.8}, "differ in more than the score"),
        ({"pairs__likeness": 0.8, "pairs__length_ratio": 1.0}, "little but the score"),
        (
            {"pairs__likeness": 0.8, "pairs__length_ratio": 1.0, "pairs__form_kept": 0.2},
            "20% of them keep the form",
        ),
        ({"gradient_cosine": -0.5}, "against each other"),
        ({"gradient_cosine": 0.0}, "side by side"),
        ({"watched__margin_moved": [0.0, -3.0], "watched__safe_moved": -1.0}, "harm is learnt"),
        ({"watched__margin_moved": [0.0, 0.1], "watched__safe_moved": 0.0}, "has not moved"),
        (
            {"watched__margin_moved": [0.0, 3.0], "watched__safe_moved": -20.0},
            "only the difference is learnt",
        ),
        ({"score__samples": -1.0, "score__frozen": 0.0}, "below the frozen copy"),
        ({"score__samples": 1.0, "score__frozen": 0.0}, "no worse than"),
        ({"conscience__auc_current": 0.52}, "no better than chance"),
        ({"kl__samples": 0.4}, "0.40 nats a token"),
        ({"flag_rate": 0.0}, "Nothing is flagged"),
        ({"flag_rate": 1.0}, "Everything is flagged"),
    ],
)
def test_a_figure_has_its_sentence(series, said):
    (sentence,) = diagnosed(run_of(**series))
    assert said in sentence and sentence.endswith(".")


@pytest.mark.parametrize("weight, said", [(0.1, "raise"), (1.0, "weighs 1 "), (100.0, "lower")])
def test_strength_is_that_of_a_pair_s_token_times_lambda(weight, said):
    (sentence,) = diagnosed(run_of(pair_strength=1.0), weight=weight)
    assert said in sentence
    (moved,) = diagnosed(run_of(pair_strength=1.0, weight__alignment_loss=weight), weight=7.0)
    assert moved == sentence, "a weight that was moved counts as it was in each step"


def test_repeats_are_pairs_that_were_there_before():
    pair = {"outcome": "revised_best", "prompt": [], "candidate": "a", "revision": "b"}
    (sentence,) = diagnosed([], [pair, pair, pair | {"candidate": "c"}])
    assert "33% of the pairs" in sentence
    assert not diagnosed([], [pair]) and not diagnosed([], [{"outcome": "approved"}] * 4)


def test_the_margin_of_a_run_s_own_pairs_alarms_nobody():
    assert not diagnosed(run_of(rewards_margin=-2.0, rewards_accuracy=0.0))


def test_nothing_is_said_of_nothing():
    assert not diagnosed([]) and not diagnosed(run_of(task_loss=1.0))
    assert not diagnosed([{"pairs/likeness": None, "flag_rate": None}])
