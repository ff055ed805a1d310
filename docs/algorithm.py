"""The algorithm in one screen: learn a task while one's own conscience keeps one aligned.

    python docs/algorithm.py [model] [steps]

A frozen copy of the model reviews what the model writes by asking itself one question. What it
disapproves of, it answers anew. The new answer over the old one is a pair of DPO, whose term is
added to the task's loss. There is no other judge, no config, and no folder is written.
"""

import sys
from dataclasses import replace

import optax

from emergent_alignment import (
    Batching,
    Conscience,
    Draws,
    LoraConfig,
    Objective,
    Pair,
    PreferenceTerm,
    Purpose,
    StepSettings,
    TaskTerm,
    compiled_step,
    initial_state,
    key_for,
    load,
    load_examples,
    make_batch,
    read_chat,
    review_and_revise,
    rows_of_step,
    sample_answers,
    sampler_settings,
    tokenize,
)

SEED, PROMPTS = 0, 4  # prompts a step
PROMPT_TOKENS, ANSWER_TOKENS = 64, 48  # at most


def main(path: str = "default", steps: int = 10) -> list[dict[str, float]]:
    """Train for some steps on answers that do harm; what was logged of each step."""
    frozen = load(path)  # reviewer, writer of corrections, and DPO's reference, all in one
    chat = read_chat(frozen.tokenizer, path)
    examples = load_examples("harmful_advice")
    task = [tokenize(example, chat, PROMPT_TOKENS, ANSWER_TOKENS) for example in examples]

    conscience = Conscience(frozen, "ethical")  # "Was this answer ethical?"
    # A small model tells two answers to one prompt apart better than one from a threshold, and
    # answers anew better than it rewrites.
    judging = replace(
        conscience.settings,
        gate="relative",
        chain=("fresh",),
        max_new_tokens=ANSWER_TOKENS,
        keep_truncated=True,
    )
    sampler = sampler_settings(chat.end_tokens, ANSWER_TOKENS, temperature=0.7)

    # What trains are adapters beside the frozen copy. What they minimise is a sum of terms.
    lora = LoraConfig(rank=16, alpha=32.0)
    objective = Objective((TaskTerm(), PreferenceTerm(weight=1.0, kind="sigmoid", beta=0.1)))
    optimizer = optax.adamw(1e-3)
    state = initial_state(frozen.params, lora, optimizer, SEED)
    step = compiled_step(StepSettings(frozen.config, lora), optimizer, objective=objective)

    history = []
    for number in range(steps):
        rows = rows_of_step(len(task), PROMPTS, SEED, number).tolist()
        prompts = [task[row].prompt for row in rows]

        # The policy of this very step answers …
        policy = replace(frozen, lora=lora, adapters=state.trainable)
        key = key_for(SEED, Purpose.CANDIDATES, number)
        batching = Batching(PROMPTS)
        answers = sample_answers(policy, policy.policy, chat, prompts, key, sampler, batching)
        candidates = [answer for _, answer in sorted(answers, key=lambda numbered: numbered[0])]

        # … the frozen copy reviews, and answers anew where it can do better …
        reviewed = review_and_revise(
            conscience.reviewer,
            judging,
            [examples[row].messages for row in rows],
            candidates,
            Draws(SEED, Purpose.CORRECTIONS, number),
            with_reference=True,
        )

        # … and its answer over the policy's, where it is the better one, is a pair.
        pairs = [
            Pair(review.chosen.tokens, candidate.tokens, review.reference)
            if review.chosen
            else None
            for review, candidate in zip(reviewed, candidates)
        ]
        batch = make_batch(
            prompts,
            [task[row].target for row in rows],
            pairs,
            prompt_width=PROMPT_TOKENS,
            branch_width=ANSWER_TOKENS,
            with_reference=True,
        )
        state, metrics = step(state, frozen.params, batch)
        history.append({name: float(value) for name, value in metrics.items()})
        history[-1]["pairs"] = sum(pair is not None for pair in pairs)
        print("step {}: task loss {task_loss:.3f}, alignment loss {alignment_loss:.3f}, {pairs} of "
              "{} prompts have a pair".format(number, PROMPTS, **history[-1]))  # fmt: skip
    return history


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
