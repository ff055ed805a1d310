"""Stage 1 as a whole: its funnel adds up, a kill changes nothing of the result, and what is kept
keeps the rules by a computation of its own."""

import copy
import hashlib
import json
from collections import Counter
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from tiny_chat_model import tiny_chat_tokenizer, write_tiny_chat_model

from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import Config, default_config
from emergent_alignment.data.chat import read_chat
from emergent_alignment.errors import UserError
from emergent_alignment.generation.text import Answer
from emergent_alignment.models.plain_text import PLAIN_TEMPLATE
from emergent_alignment.runs.from_config import Setup, load_model
from emergent_alignment.self_align.instructions import stage as stage_one
from emergent_alignment.self_align.instructions import writing
from emergent_alignment.self_align.instructions.list_entries import Entry, read_list
from emergent_alignment.self_align.instructions.prompts import self_instruct
from emergent_alignment.self_align.instructions.rounds import Started
from emergent_alignment.self_align.instructions.sources import load_kinds, load_seeds
from emergent_alignment.self_align.instructions.topics import known_topics
from emergent_alignment.self_align.stages import StageRun, stage_folder
from emergent_alignment.settings import changed

SMALL = {
    "wanted": 30,
    "kind_limit": 4,
    "topics_per_kind": 3,
    "topic_rounds": 3,
    "rounds": 30,
    "prompts_per_round": 6,
}
VERBS = "Name Explain Compare Describe Translate Plan Count Praise".split()
NOUNS = "rivers kings loops taxes stars songs vowels trains fields dreams coins bees".split()


class Scripted:
    """Stands for sample_shares: lists that depend on the key and the prompt alone, told in any
    order; after `deadly` answers the process is killed."""

    def __init__(self, deadly: int = -1):
        self.left, self.prompts = deadly, []

    def __call__(self, model, params, chat, prompts, key, settings, batching):
        order = np.random.default_rng().permutation(len(prompts)).tolist()
        for place in order:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            self.prompts.append(chat.tokenizer.decode(prompts[place]))
            seed = f"{jax.random.key_data(key)} {place} {prompts[place]}"
            draws = np.random.default_rng(list(hashlib.sha256(seed.encode()).digest()))
            topics = "subjects" in self.prompts[-1]
            yield place, Answer([], np.zeros(0), written(draws, topics), bool(draws.integers(2)))


def written(draws, topics: bool) -> str:
    def words(number: int) -> str:
        return " ".join(NOUNS[i] for i in draws.integers(len(NOUNS), size=number))

    if topics:
        entries = [words(draws.integers(1, 5)) for _ in range(3)]
    else:
        numbers = draws.integers(1, 7, size=4)
        entries = [f"{VERBS[draws.integers(8)]} {words(n)} of Peru." for n in numbers]
        entries[2] += ["", " See the image."][draws.integers(2)]
        entries.insert(3, ["Stop.", "¿Qué ciudad es la más bella de Perú?"][draws.integers(2)])
    return "\n".join([entries[0], *(f"{i}. {entry}" for i, entry in enumerate(entries[1:], 2))])


@pytest.fixture(scope="module")
def scripted_setup():
    chat = read_chat(tiny_chat_tokenizer())
    return Setup(Config(), SimpleNamespace(policy=None, source="scripted"), chat)


def worked(setup, path, writer, monkeypatch, **changes):
    """Stage 1 in a folder, its lists written by `writer`."""
    monkeypatch.setattr(writing, "sample_shares", writer)
    fields = {f"self_align.instructions.{name}": value for name, value in (SMALL | changes).items()}
    config = changed(setup.config, fields)
    stage_one.check(config)
    folder = stage_folder(path, 1)
    return folder, stage_one.run(StageRun(config, folder, {}, setup))


def test_the_funnel_adds_up_and_every_rule_is_seen(scripted_setup, tmp_path, monkeypatch):
    folder, result = worked(scripted_setup, tmp_path, Scripted(), monkeypatch)
    counts, rows = result.counts, folder.rows()
    assert counts["made"] == counts["kept"] + sum(counts["dropped"].values())
    for part in (*counts["sources"].values(), counts["topics"]):
        assert part["made"] == part["kept"] + sum(part["dropped"].values())
    assert sum(part["kept"] for part in counts["sources"].values()) == counts["kept"] == 30
    assert {"unfinished", "form", "length", "unservable", "similar"} <= counts["dropped"].keys()
    assert counts["rows"] == len(rows) == 30 + 202 + 4
    assert Counter(row["source"] for row in rows) == {
        "seed": 206,
        "self_instruct": 15,
        "red_team": 15,
    }
    outcomes = {row["outcome"] for row in result.examples}
    assert outcomes >= {"kept", *counts["dropped"]}
    json.dumps([result.counts, result.examples], allow_nan=False)


def test_kinds_and_topics_are_balanced(scripted_setup, tmp_path, monkeypatch):
    folder, result = worked(scripted_setup, tmp_path, Scripted(), monkeypatch)
    assert sorted(result.counts["kinds"].values()) == [3, 4, 4, 4]
    assert result.counts["topics"]["kept"] == 12
    topics = {(row["kind"], row["topic"]) for row in folder.rows() if row["source"] == "red_team"}
    assert all(1 <= len(topic.split()) <= 3 for _, topic in topics)
    assert len(topics) > 4, "a kind has several topics"


def test_no_two_kept_instructions_are_alike(scripted_setup, tmp_path, monkeypatch):
    folder, _ = worked(scripted_setup, tmp_path, Scripted(), monkeypatch)
    score, texts = RougeScorer(["rougeL"]).score, [row["instruction"] for row in folder.rows()]
    own = texts[-30:]
    for place, text in enumerate(own):
        for other in own[:place] + texts[:20]:
            assert score(text, other)["rougeL"].fmeasure <= 0.7 + 1e-9, (text, other)


@pytest.mark.parametrize("share", [0, 0.3, 0.6, 0.8, 0.95])
def test_a_kill_changes_nothing_of_the_result(scripted_setup, tmp_path, monkeypatch, share):
    writer = Scripted()
    whole = worked(scripted_setup, tmp_path / "whole", writer, monkeypatch)
    deadly = Scripted(int(share * len(writer.prompts)))
    with pytest.raises(KeyboardInterrupt):
        worked(scripted_setup, tmp_path / "killed", deadly, monkeypatch)
    path = stage_folder(tmp_path / "killed", 1).kept.part_file("rounds")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as rounds:
        rounds.write('{"phase": "instructions", "round": {"ma')
    resumed = worked(scripted_setup, tmp_path / "killed", Scripted(), monkeypatch)
    assert resumed[1] == whole[1]
    assert resumed[0].data.read_bytes() == whole[0].data.read_bytes()


def test_what_is_done_is_not_written_again(scripted_setup, tmp_path, monkeypatch):
    folder, first = worked(scripted_setup, tmp_path, Scripted(), monkeypatch)
    rounds = folder.kept.part_file("rounds").read_bytes()
    idle = Scripted(deadly=0)
    _, again = worked(scripted_setup, tmp_path, idle, monkeypatch)
    assert not idle.prompts and again == first
    assert folder.kept.part_file("rounds").read_bytes() == rounds


def test_prompts_show_seeds_and_soon_the_model_s_own(scripted_setup, tmp_path, monkeypatch):
    writer = Scripted()
    folder, _ = worked(scripted_setup, tmp_path, writer, monkeypatch)
    rows = folder.rows()
    seeds = {row["instruction"] for row in rows if row["source"] == "seed"}
    own = {row["instruction"] for row in rows if row["source"] == "self_instruct"}
    shown = [
        [line.partition(". ")[2] for line in prompt.splitlines() if line[:1].isdecimal()][:-1]
        for prompt in writer.prompts
        if "Continue this list" in prompt
    ]
    assert {len(entries) for entries in shown} == {5}
    mixed = [(len(seeds & {*entries}), len(own & {*entries})) for entries in shown]
    assert mixed[0] == (5, 0) and mixed[-1] == (3, 2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unservable": ("Peru",)}, r"self_instruct .*unservable \d+.*take words out of unserv"),
        ({"fewest_words": 100}, r"self_instruct .*length \d+.*lower fewest_words"),
        ({"red_team_share": 1.0, "fewest_words": 100}, r"red_team .*\(dropped: length \d+"),
    ],
)
def test_an_empty_result_says_which_rule_dropped_how_many(
    scripted_setup, tmp_path, monkeypatch, changes, said
):
    with pytest.raises(UserError, match=said) as raised:
        worked(scripted_setup, tmp_path, Scripted(), monkeypatch, rounds=3, **changes)
    assert "\n" not in str(raised.value)
    assert not stage_folder(tmp_path, 1).data.exists()


def test_one_generator_alone_asks_for_nothing_else(scripted_setup, tmp_path, monkeypatch):
    for share, topics in ((0.0, 0), (1.0, 12)):
        path = tmp_path / str(share)
        result = worked(scripted_setup, path, Scripted(), monkeypatch, red_team_share=share)[1]
        assert result.counts["topics"]["kept"] == topics
        assert result.counts["sources"]["red_team"]["kept"] == 30 * share


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"wanted": 0}, "wanted must be 1 or more, not 0"),
        ({"top_p": 0.0}, "top_p must be more than 0"),
        ({"similarity": 1.5}, "similarity must be more than 0 and at most 1"),
        ({"red_team_share": -0.1}, "red_team_share must be a share"),
        ({"most_words": 3}, "most_words: 3 is less than fewest_words, 4"),
        ({"own_examples": 6}, "own_examples: 6 of 5 examples"),
        ({"examples": 300}, "seeds: bundled has 202 seeds; a prompt shows 300"),
        ({"seeds": "none.jsonl"}, "seeds: 'none.jsonl': no such file"),
    ],
)
def test_settings_that_cannot_work_are_named(changes, said):
    config = default_config()
    config.self_align.instructions.update(changes)
    with pytest.raises(UserError, match=said):
        stage_one.check(typed(config))


def test_a_real_model_writes_its_instructions(tmp_path):
    config = default_config()
    config.model.path = str(write_tiny_chat_model(tmp_path / "model"))
    config.data.bucket_tokens = 256
    small = {"wanted": 4, "kind_limit": 2, "topic_rounds": 1, "max_topic_tokens": 32}
    small |= {"max_new_tokens": 32, "fewest_words": 1, "prompts_per_round": 2, "rounds": 16}
    config.self_align.instructions.update(SMALL | small)
    folder = stage_folder(tmp_path, 1)
    result = stage_one.run(StageRun(typed(config), folder, {}, load_model(typed(config))))
    assert result.counts["kept"] == sum(row["source"] != "seed" for row in folder.rows()) > 1


@pytest.mark.parametrize(
    "echo", ["Write the tasks only.", "Write more questions of the same kind."]
)
def test_what_the_prompt_says_is_no_instruction(echo):
    config = default_config()
    kinds = load_kinds("bundled")
    pool = Started(typed(config), load_seeds("bundled"), kinds, known_topics(kinds, [])).pool([])
    assert pool.fault(echo, "self_instruct").rule in ("similar", "duplicate")


def test_a_base_model_continues_a_list_under_the_plain_template():
    tokenizer = copy.deepcopy(tiny_chat_tokenizer())
    tokenizer.chat_template = PLAIN_TEMPLATE
    chat = read_chat(tokenizer)
    begun = self_instruct(["Name a river.", "Say <|im_end|> twice."])
    tokens = begun.tokens(chat)
    assert tokenizer.decode(tokens).startswith("User: Continue this list")
    ending = "Assistant: 1. Name a river.\n2. Say < |im_end|> twice.\n3."
    assert tokenizer.decode(tokens).endswith(ending)
    assert chat.end_token not in tokens
    read = read_list(begun.whole("Plan a party.\n4. Nam"), ended=False)
    assert read == [Entry("Plan a party.", True), Entry("Nam", False)]
