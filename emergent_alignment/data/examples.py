"""An example, and how one is made of a row in our fields. No field that would change what is learnt
is left out in silence: it is honoured, or the row is refused.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

from emergent_alignment.data.messages import (
    ASKING,
    CONTENT_PARTS,
    Conversation,
    Message,
    is_absent,
    read_conversation,
    read_messages,
)
from emergent_alignment.data.tools import CALLS, read_tools
from emergent_alignment.errors import UserError
from emergent_alignment.storage.json_values import number_said

EXPECTED = (
    'expected {"messages": [{"role": "user", "content": …}, …, {"role": "assistant", …}]} '
    'or {"prompt": …, "chosen": …, "rejected": …} or {"prompt": …, "answer": …} (or completion)'
)
PROMPTS = 'expected {"prompt": …} or {"messages": […]}'
# What files of the field say beside a conversation, and what would be learnt otherwise without it.
# All else (id, source, score, …) informs people, and changes nothing.
TELLING = frozenset(
    "tools functions tool_calls tool_choice function_call parallel_tool_calls documents "
    "chat_template_kwargs enable_thinking system system_prompt system_message developer persona "
    "instruction instructions input inputs prefix suffix context history image images audio audios "
    "video videos reasoning reasoning_content thinking chain_of_thought cot "
    "weight weights loss loss_weight loss_mask assistant_masks completion_mask sample_weight train "
    "training margin label kto_tag mask masks".split()
)
# And what else ends so; an attention mask says what is padding.
_WEIGHING = re.compile(r"(?<!attention)_(?:weights?|masks?)\Z")
_VERDICTS = ("label", "kto_tag")  # false: the answer is a bad one
# What tables write for a field that says nothing.
_NOTHING = ("", "null", "none", "nan", "[]", "{}")


@dataclass(frozen=True)
class Example:
    """One prompt and its known answers.

    prompt    the conversation so far, ending with a user turn
    target    what the task loss learns
    safe      a known good answer, and `harmful` a known bad one, where the row is matched
    kind      the kind of prompt, for holding kinds out
    ended     whether the target ends where it does, or was cut there: then it has no end token
    reasoned  whether the row has reasoning in fields of its own, which a template must show
    tools     descriptions of the tools that it may call, as JSON; "" where there are none
    answer    the target's message, where that is more than a text: it calls tools, or has parts
    where     the place of its row, for errors

    With tools, calls or parts an example has to be written out (written_out.py) before it is used.
    """

    prompt: tuple[Message, ...]
    target: str
    safe: str | None = None
    harmful: str | None = None
    kind: str = ""
    ended: bool = True
    reasoned: bool = False
    tools: str = ""
    answer: tuple[Message, ...] = ()
    where: str = field(default="", compare=False)

    @property
    def messages(self) -> list[Message]:
        return list(self.prompt)


def example_of(row: dict, where: str, *, every_turn: bool = False, whole: bool = False) -> Example:
    """The example of a row in our fields: its last answer, unless other turns are learnt, too; read
    `whole`, with what it says of tools. Raises UserError that says `where` for any other."""
    check_telling(row, where, read=("tools",) if whole else ())
    row = {name: value for name, value in row.items() if value is not None}
    tools = read_tools(row.get("tools"), where) if whole else ""
    kind = str(row.get("kind", ""))
    if "messages" in row:
        read = read_conversation(_listed(row["messages"], where), where, whole=whole)
        _check_learnt(read, where, every_turn)
        _check_said(row, read.messages, where)
        *prompt, last = read.messages
        if last["role"] != "assistant":
            raise UserError(
                f"{where}: the conversation ends in a {last['role']} turn; its last "
                "message must be the assistant's answer"
            )
        _check_prompt(prompt, where)
        ended = _ended(row, where)
        known = {"kind": kind, "ended": ended, "reasoned": read.reasoned, "tools": tools}
        return Example(tuple(prompt), **_target_of(last, where), **known)
    paired = {"prompt", "chosen", "rejected"} <= row.keys()
    if not paired and not {"prompt", "answer"} <= row.keys():
        raise UserError(f"{where}: found the fields {sorted(map(str, row))}; {EXPECTED}")
    read = read_conversation(row["prompt"], f"{where}: prompt", whole=whole)
    _check_learnt(read, where, every_turn, answered=False)
    prompt = read.messages
    _check_prompt(prompt, where)
    ended = _ended(row, where)
    alone = [] if paired else [name for name in ("rejected", "chosen") if name in row]
    if alone and (alone[0], row[alone[0]]) != ("chosen", row["answer"]):
        raise UserError(
            f"{where}: {alone[0]} stands beside answer, and without its other side; remove it, or "
            "name it in config.data.ignored"
        )
    names = ("chosen", "rejected") if paired else ("answer",)
    whole = whole and not paired  # answers that are compared are texts
    finals = [_final(row[name], prompt, f"{where}: {name}", whole) for name in names]
    reasoned = read.reasoned or any(reasoned for _, reasoned in finals)
    known = {"kind": kind, "reasoned": reasoned, "tools": tools}
    if not paired:
        return Example(tuple(prompt), **finals[0][0], ended=ended, **known)
    if not ended:
        raise UserError(f"{where}: one answer of a pair is said not to end; remove the row")
    chosen, rejected = (final["target"] for final, _ in finals)
    if row.get("answer", chosen) != chosen:
        raise UserError(f"{where}: answer stands beside another chosen; remove one of them")
    answers = {"target": chosen, "safe": chosen, "harmful": rejected}
    return Example(tuple(prompt), **answers, **known)


def turns_of(row: dict, where: str, *, whole: bool = False) -> list[Example]:
    """An example for each assistant's turn that is learnt, with the conversation before it as its
    prompt; see `example_of`."""
    # Its mistakes are those of the row.
    last = example_of(row, where, every_turn=True, whole=whole)
    read = read_conversation(row["messages"], where, whole=whole)
    examples = []
    for place, (message, learnt) in enumerate(zip(read.messages, read.learnt)):
        if message["role"] == "assistant" and learnt is not False:
            target = _target_of(message, f"{where}: message {place}")
            _check_prompt(read.messages[:place], f"{where}: message {place}")
            ended = last.ended or place + 1 < len(read.messages)
            prompt = tuple(read.messages[:place])
            examples.append(replace(last, prompt=prompt, ended=ended, **target))
    if not examples:
        raise UserError(f"{where}: the row says that no turn is learnt; remove it")
    return examples


def prompt_of(row: Any, where: str) -> list[Message]:
    """The conversation of a row that waits for an answer. Raises UserError that says `where`."""
    if not isinstance(row, dict) or not {"prompt", "messages"} & row.keys():
        raise UserError(f"{where}: {PROMPTS}")
    check_telling(row, where)
    messages = read_messages(row.get("messages", row.get("prompt")), where)
    if "messages" in row:
        _check_said({"prompt": row.get("prompt")}, messages, where)
    _check_prompt(messages, where)
    return messages


def check_telling(row: dict, where: str, *, read: Collection[str] = ()) -> None:
    """Raise UserError for a field that would change what is asked or learnt, and is not `read`."""
    others = {str(name): value for name, value in row.items() if name not in read}
    told = sorted(name for name, value in others.items() if _tells(name.lower(), value))
    if told:
        raise UserError(
            f"{where}: the field {told[0]!r} is not read, and changes what the row means; remove "
            "it, or name it in config.data.ignored to learn from the row without it"
        )


def _tells(name: str, value: Any) -> bool:
    """Whether a telling field says anything: a weight of 1 does not, nor does a text of blanks, nor
    a label that is no verdict on the answer."""
    if is_absent(value) or not (name in TELLING or _WEIGHING.search(name)):
        return False
    said = value.strip().lower() if isinstance(value, str) else value
    if said in _NOTHING:
        return False
    if name in _VERDICTS:
        return said is False or said == "false"
    neutral = {"tool_choice": "none", "parallel_tool_calls": said, "margin": 0}.get(name, 1)
    if neutral == 1 and said == "true":
        return False
    return neutral not in (said, number_said(said))


def _listed(messages: Any, where: str) -> list:
    """A text is no conversation with an answer."""
    return [] if isinstance(messages, str) else messages


def _check_learnt(
    read: Conversation, where: str, every_turn: bool, *, answered: bool = True
) -> None:
    """Raise UserError where a row says of its turns other than what is learnt of them: the last
    answer alone, or with `every_turn` all but those it says are not."""
    if every_turn and answered:
        return
    if answered and read.learnt[-1] is False:
        raise UserError(f"{where}: the row says that its last answer is not learnt; remove the row")
    more = [i for i, learnt in enumerate(read.learnt[:-1] if answered else read.learnt) if learnt]
    if more:
        raise UserError(
            f"{where}: message {more[0]} is said to be learnt, and only the last answer is; set "
            "config.data.every_turn, or remove its flag"
        )


def _check_said(row: dict, messages: list[Message], where: str) -> None:
    """Raise UserError where other fields of ours say something that the messages do not: a prompt
    or an answer is often there once more, as a text."""
    texts = {message["content"].strip() for message in messages}
    for name in ("prompt", "answer", "chosen", "rejected"):
        value = row.get(name)
        if value is not None and not (isinstance(value, str) and value.strip() in texts):
            raise UserError(
                f"{where}: {name} stands beside messages, and says something else; remove one of "
                "them, or name it in config.data.ignored"
            )


def _check_prompt(prompt: list[Message], where: str) -> None:
    if not prompt or prompt[-1]["role"] not in ASKING:
        raise UserError(f"{where}: the message before the answer must be a user turn")
    if prompt[-1]["role"] == "user" and not prompt[-1]["content"].strip():
        raise UserError(f"{where}: the user's turn is empty")


def _target_of(message: Message, where: str) -> dict[str, Any]:
    """What an example says of the turn that it learns."""
    if CALLS in message:
        return {"target": message["content"], "answer": (message,)}
    target = _answer(message["content"], where)
    return {"target": target, "answer": (message,) if CONTENT_PARTS in message else ()}


def _final(
    answer: Any, prompt: list[Message], where: str, whole: bool
) -> tuple[dict[str, Any], bool]:
    """An answer as `_target_of` gives it, and whether its reasoning had a field of its own: it is a
    text, or a list of messages that ends with it and begins with the prompt, or its end."""
    if isinstance(answer, list):
        read = read_conversation(answer, where, whole=whole)
        *before, last = read.messages
        if last["role"] != "assistant":
            raise UserError(f"{where}: it must end in an assistant turn")
        _check_learnt(read, where, False)
        if before != prompt[len(prompt) - len(before) :]:
            raise UserError(
                f"{where}: what stands before an answer is not the prompt; write the same turns "
                "there, or the answer alone"
            )
        return _target_of(last, where), read.reasoned
    return {"target": _answer(answer, where)}, False


def _answer(answer: Any, where: str) -> str:
    if not isinstance(answer, str):
        raise UserError(f"{where}: the answer must be a text, not {answer!r:.60}; quote it")
    if not answer.strip():
        raise UserError(f"{where}: the answer is empty; remove the row or fill it in")
    return answer


def _ended(row: dict, where: str) -> bool:
    ended = row.get("ended", True)
    if not isinstance(ended, bool):
        raise UserError(f"{where}: ended must be true or false, not {ended!r}")
    return ended
