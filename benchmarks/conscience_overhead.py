"""What the conscience costs: a plain task step against a whole online step on the real model.

The online step samples the policy's answers, lets the frozen copy read, review and correct them,
and trains on prompt, target, correction and candidate. Two plain task steps take turns with it:
"plain, same tokens" trains on as many tokens as the online step trains on (the prompts, and targets
as long as target, correction and candidate together), "plain" on the prompts and targets alone.
"every=K" is the mean of K steps, of which one samples and reviews, and all train on its pairs.
Beside seconds stands processor time, which other programs disturb less.

example:
  python benchmarks/conscience_overhead.py --layout turn --repeats 5
"""

import argparse
import functools
import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager

import jax
import numpy as np
from arguments import positive
from tables import keep_rows, machine, print_table, ratio_of_pairs, seconds_text
from turns import ThisProcess, quiet_note, quiet_turns

import emergent_alignment as ea
from emergent_alignment.conscience.frozen_hearing import FrozenReviewer
from emergent_alignment.conscience.pairs import review_and_revise
from emergent_alignment.conscience.question import QUESTIONS
from emergent_alignment.conscience.reader import Reader
from emergent_alignment.conscience.review import ReviewSettings
from emergent_alignment.conscience.settings import ConscienceSettings
from emergent_alignment.data.batches import Pair, make_batch
from emergent_alignment.data.chat import read_chat
from emergent_alignment.data.scenarios import load_scenario
from emergent_alignment.generation.sampler import sampler_settings
from emergent_alignment.generation.text import Batching, sample_answers
from emergent_alignment.models.lora import LoraConfig
from emergent_alignment.randomness import Draws, Purpose, key_for
from emergent_alignment.training.objective import Objective
from emergent_alignment.training.optimizer import OptimizerSection, make_optimizer
from emergent_alignment.training.state import initial_state, policy_params
from emergent_alignment.training.step import compiled_step
from emergent_alignment.training.step_settings import StepSettings
from emergent_alignment.training.task_and_pairs import TaskAndPairs, TaskAndPairsView
from emergent_alignment.training.terms import HYBRID

EVERY = (1, 4, 8)
ALL_PROJECTIONS = ("query", "key", "value", "output", "gate", "up", "down")

Times = dict[str, np.ndarray]  # {part: [seconds, processor seconds]}

# The reader's methods that are timed, and what their part is called.
READING = {
    "read_prompts": "frozen copy reads prompts",
    "case": "frozen copy reads candidates",
    "log_probs": "reference log-probs",
    "write": "corrections are written",
}


def main() -> None:
    """Measure both sides in turns, print the table, keep the row."""
    args = parse_arguments()
    work, numbers = prepare(args), itertools.count(1)
    online_step(work, args, no_time(), 0)
    for batch in (work["task"], work["same"]):
        plain_step(work, batch)
    for every in EVERY:
        semi_online_step(work, args, every, 0)

    def turn() -> Times:
        seconds = no_time()
        seconds["online"] = online_step(work, args, seconds, next(numbers))
        for every in EVERY:
            name = f"online, every={every}"
            seconds[name] = semi_online_step(work, args, every, next(numbers))
        seconds["plain"] = plain_step(work, work["task"])
        seconds["plain, same tokens"] = plain_step(work, work["same"])
        seconds["reviews"] = seconds.pop("conscience") - sum(seconds[x] for x in READING.values())
        return seconds

    report(args, quiet_turns(turn, [ThisProcess()], args.repeats, args.patience))


def prepare(args: argparse.Namespace) -> dict:
    """Model, reader, rows of the asked-for lengths, and the compiled steps."""
    model = ea.load("default")
    chat = read_chat(model.tokenizer)
    review = ReviewSettings(QUESTIONS["advice"], args.layout, batch_size=args.batch)
    lora = None if args.full else LoraConfig(16, 32.0, False, ALL_PROJECTIONS)
    step_settings = StepSettings(model.config, lora, remat=args.remat)
    optimizer = make_optimizer(OptimizerSection(), 1000)
    messages = [message(chat, place, args.prompt) for place in range(args.batch)]
    prompts = [chat.prompt_tokens(prompt)[-args.prompt :] for prompt in messages]
    answers = [row["harmful"] for row in load_scenario("harmful_advice")]
    targets = [
        chat.response_tokens(" ".join(answers[8 * place : 8 * place + 8]))[: args.response]
        for place in range(args.batch)
    ]
    pairs = [Pair(target, target, (-100.0, -101.0)) for target in targets]
    batch = functools.partial(
        make_batch, prompts, targets, prompt_width=args.prompt, branch_width=args.response
    )
    same = make_batch(
        prompts, [t * 3 for t in targets], [],
        prompt_width=args.prompt, branch_width=3 * args.response,
    )  # fmt: skip
    return {
        "model": model,
        "chat": chat,
        "lora": lora,
        "settings": ConscienceSettings(
            review,
            gate="relative",
            chain=(args.link,),
            max_new_tokens=args.response,
            keep_truncated=True,
        ),
        "reader": TimedReader(model, chat, args.layout, args.batch, args.prompt),
        "messages": messages,
        "prompts": prompts,
        "hybrid": lambda pairs: batch(pairs, with_reference=True),
        "task": batch([]),
        "same": same,
        "pairs": pairs,
        "targets": targets,
        "state": initial_state(model.params, lora, optimizer, 0),
        "step": compiled_step(step_settings, optimizer),
        "heard": lambda pairs: make_batch(
            prompts, [[]] * len(prompts), pairs, prompt_width=args.prompt,
            branch_width=args.response, roles="no target", with_reference=True,
        ),
        "step apart": compiled_step(
            step_settings, optimizer, objective=Objective(HYBRID.terms, TaskAndPairsView)
        ),
    }  # fmt: skip


def message(chat, place: int, length: int) -> list[dict]:
    """One user turn of about `length` tokens, template included."""
    rows = load_scenario("harmful_advice")
    text = ""
    for row in rows[7 * place :]:
        longer = f"{text} {row['prompt']}".strip()
        if len(chat.prompt_tokens([{"role": "user", "content": longer}])) > length:
            break
        text = longer
    return [{"role": "user", "content": text}]


def online_step(work: dict, args, seconds: Times, turn: int) -> np.ndarray:
    """One whole online step, as runs/step_inputs.py composes it; its parts in `seconds`."""
    started = clock()
    pairs = pairs_of_policy(work, args, seconds, turn)
    with part(seconds, "training step"):
        take_step(work, work["hybrid"](pairs))
    return clock() - started


def pairs_of_policy(work: dict, args, seconds: Times, turn: int) -> list[Pair | None]:
    """What one round of listening makes of the prompts; its parts in `seconds`."""
    model, chat = work["model"], work["chat"]
    key = key_for(0, Purpose.CANDIDATES, turn)
    sampler = sampler_settings(chat.end_tokens, args.response, temperature=1.0)
    with part(seconds, "candidates are sampled"):
        params = policy_params(work["state"].trainable, model.params, work["lora"])
        sampled = sample_answers(
            model, params, chat, work["prompts"], key, sampler, Batching(args.batch)
        )
        candidates = [answer for _, answer in sorted(sampled, key=lambda numbered: numbered[0])]
    with part(seconds, "conscience"):
        reviewed = review_and_revise(
            FrozenReviewer(work["reader"].start(seconds)),
            work["settings"],
            work["messages"],
            candidates,
            Draws(0, Purpose.CORRECTIONS, turn),
            with_reference=True,
        )
    return [
        Pair(review.chosen.tokens, candidate.tokens, review.reference) if review.chosen else None
        for review, candidate in zip(reviewed, candidates)
    ]


def semi_online_step(work: dict, args, every: int, turn: int) -> np.ndarray:
    """What a step takes on average where one in `every` samples and reviews, and all of them train
    on its pairs, which have rows of their own."""
    started = clock()
    pairs = pairs_of_policy(work, args, no_time(), turn)
    heard = work["heard"](pairs)
    for _ in range(every):
        take_step(work, TaskAndPairs(work["task"], heard), work["step apart"])
    return (clock() - started) / every


def no_time() -> Times:
    return defaultdict(lambda: np.zeros(2))


def clock() -> np.ndarray:
    """Now: [seconds, seconds of all threads of this process]."""
    return np.array([time.perf_counter(), time.process_time()])


def plain_step(work: dict, batch) -> np.ndarray:
    """What one step on the task alone takes."""
    started = clock()
    take_step(work, batch)
    return clock() - started


def take_step(work: dict, batch, step: Callable | None = None) -> None:
    step = step or work["step"]
    work["state"], metrics = step(work["state"], work["model"].params, batch)
    jax.block_until_ready((work["state"], metrics))


@contextmanager
def part(seconds: Times, name: str):
    """Add what a part takes."""
    started = clock()
    yield
    seconds[name] = seconds[name] + clock() - started


def timed(name: str, method: Callable) -> Callable:
    """A method of the reader that is waited for, and whose time is added to the part `name`."""

    @functools.wraps(method)
    def waited(self, *inputs):
        with part(self.seconds, name):
            result = method(self, *inputs)
            # What was read stays on the device; everything else has arrived.
            jax.block_until_ready(getattr(result, "held", None))
        return result

    return waited


class TimedReader(Reader):
    """A reader whose parts are timed, from one `start` to the next."""

    def start(self, seconds: Times) -> "TimedReader":
        """Add what parts take to `seconds` from now on."""
        object.__setattr__(self, "seconds", seconds)
        for name in READING.values():
            seconds[name] = np.zeros(2)  # a part that is never asked for has a row too
        return self

    read_prompts, case, log_probs, write = (
        timed(name, getattr(Reader, method)) for method, name in READING.items()
    )


def report(args: argparse.Namespace, turns: list[tuple[Times, float | None]]) -> None:
    """The table and the kept row."""
    wall, processor = (
        {name: [float(seconds[name][place]) for seconds, _ in turns] for name in turns[0][0]}
        for place in range(2)
    )
    shares = [share for _, share in turns]
    online = statistics.median(wall["online"])
    rows = [
        [
            name,
            seconds_text(wall[name]),
            f"{statistics.median(wall[name]) / online:.0%}",
            seconds_text(processor[name]),
        ]
        for name in wall
    ]
    title = (
        f"{'full' if args.full else 'LoRA'}, layout {args.layout}, {args.link}, batch "
        f"{args.batch}, prompt {args.prompt}, answers {args.response}"
    )
    print_table(title, ["part", "seconds", "of the online step", "processor time"], rows)
    row = vars(args) | {"seconds": wall, "processor_seconds": processor}
    row |= {"others_share": shares, "machine": machine(), "ratios": {}}
    for name in ("plain, same tokens", "plain", *(f"online, every={every}" for every in EVERY)):
        ratios = [ratio_of_pairs(took[name], took["online"]) for took in (wall, processor)]
        print(f"online / {name}: {ratios[0]}, by processor time {ratios[1]}")
        row["ratios"][name] = [vars(ratio) for ratio in ratios]
    print(quiet_note([row]))
    key = ("layout", "link", "full", "batch", "prompt", "response")
    print(f"Kept in {keep_rows('conscience_overhead', [row], key)}")


def parse_arguments() -> argparse.Namespace:
    """--help teaches."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--batch", type=positive, default=8, help="prompts a step (default 8)")
    add("--prompt", type=positive, default=128, help="tokens of a prompt (default 128)")
    add("--response", type=positive, default=64, help="tokens of an answer (default 64)")
    add("--layout", choices=("quote", "turn"), default="quote", help="how the question is put")
    add("--link", choices=("fresh", "rewrite"), default="fresh", help="how answers are corrected")
    add("--remat", choices=("none", "dots", "full"), default="none")
    add("--full", action="store_true", help="train all parameters instead of LoRA")
    add("--repeats", type=positive, default=5, help="turns of each side (default 5)")
    add("--patience", type=float, default=0, help="minutes to wait for quiet turns (0)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
