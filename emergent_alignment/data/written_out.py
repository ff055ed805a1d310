"""Examples whose tools, calls and parts of contents are text, as a model's own chat template writes
them. From then on a conversation is texts alone: it is learnt as the template has it, and reviews,
journals and judges read in it what was called.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from emergent_alignment.data.chat import Chat
from emergent_alignment.data.examples import Example
from emergent_alignment.data.messages import CONTENT_PARTS, Message
from emergent_alignment.data.reasoning import with_reasoning
from emergent_alignment.data.rendering import is_said, letters, render
from emergent_alignment.data.tools import CALLS, OF_REPLIES
from emergent_alignment.errors import UserError

_REMEDY = "name a template that does in config.model.chat_template, or write it into the contents"


def written_out(examples: list[Example], chat: Chat) -> list[Example]:
    """The examples, each turn a text: what the model's template makes of tools, calls and parts
    stands in the turn where the template writes it (a description of tools in the system's).

    Raises UserError with the row's place where the template does not show them, or writes a turn's
    text between marks that no text can have.
    """
    return [_written_out(example, chat) if _is_more(example) else example for example in examples]


def _is_more(example: Example) -> bool:
    fields = (CALLS, CONTENT_PARTS, *OF_REPLIES)
    return bool(example.tools or example.answer) or any(
        name in message for message in example.prompt for name in fields
    )


def _written_out(example: Example, chat: Chat) -> Example:
    answer = example.answer or ({"role": "assistant", "content": example.target},)
    try:
        *prompt, last = _texts([*example.prompt, *answer], example.tools, chat)
    except UserError as error:
        raise UserError(f"{example.where}: {error}" if example.where else str(error)) from None
    target = last["content"] if example.answer else example.target
    return replace(example, prompt=tuple(prompt), target=target, tools="", answer=())


def _texts(messages: list[Message], tools: str, chat: Chat) -> list[Message]:
    """Messages of role and content alone that the template writes as it writes these."""
    options = {"tools": json.loads(tools)} if tools else {}
    said = [value for message in messages for value in _said(message)]
    said += [tool.get("function", tool).get("name", "") for tool in options.get("tools", ())]
    problem = "the model's chat template leaves out"
    for parted in (True, False):
        if parted and not any(CONTENT_PARTS in message for message in messages):
            continue
        try:
            whole = render(chat.tokenizer, [_shown(m, parted, chat) for m in messages], **options)
        except UserError as error:
            problem = str(error)
            continue
        if parted and _spelled_out(messages, whole):
            continue
        missing = [one for one in said if letters(one) not in letters(whole)]
        if missing:
            problem = f"the model's chat template shows no {missing[0]!r:.60}"
            continue
        for form in _forms(messages, parted):
            if (texts := _aligned(whole, form, chat)) is not None:
                return texts
        problem = "the model's chat template writes tools or their calls in no turn's text"
    raise UserError(f"{problem}; {_REMEDY}")


def _said(message: Message) -> Iterator[str]:
    """What a rendering must show of a message beside its content."""
    for call in json.loads(message.get(CALLS, "[]")):
        yield call["function"]["name"]
    for part in json.loads(message.get(CONTENT_PARTS, "[]")):
        yield part["text"]


def _spelled_out(messages: list[Message], whole: str) -> bool:
    """Whether a template that knows texts alone wrote parts as Python or JSON spells them."""
    parts = [part for message in messages for part in json.loads(message.get(CONTENT_PARTS, "[]"))]
    return any(form in whole for part in parts for form in (str(part), json.dumps(part)))


def _shown(message: Message, parted: bool, chat: Chat) -> dict[str, Any]:
    """The message as templates take it."""
    fields: dict[str, Any] = dict(
        chat.fields({k: v for k, v in message.items() if k != CONTENT_PARTS})
    )
    if CALLS in message:
        fields[CALLS] = json.loads(message[CALLS])
    if parted and CONTENT_PARTS in message:
        fields["content"] = json.loads(message[CONTENT_PARTS])
    return fields


def _forms(messages: list[Message], parted: bool) -> Iterator[list[Message]]:
    """The conversation, and where it has no system text, with one; what is shown in parts says
    nothing else."""
    plain = [
        {"role": m["role"], "content": "" if parted and CONTENT_PARTS in m else m["content"]}
        for m in messages
    ]
    yield plain
    if plain[0]["role"] != "system":
        yield [{"role": "system", "content": ""}, *plain]


def _aligned(whole: str, form: list[Message], chat: Chat) -> list[Message] | None:
    """The messages of a form whose contents are what stands in `whole` between what the template
    writes around turns; None where no such contents lead to `whole`, token by token."""
    probes = [f"Zq{place}probe" for place in range(len(form))]
    fields = [chat.fields(message) for message in form]
    try:
        around = render(chat.tokenizer, [f | {"content": p} for f, p in zip(fields, probes)])
    except UserError:
        return None
    between = []
    for probe in probes:
        before, met, around = around.partition(probe)
        if not met:
            return None
        between.append(before)
    if not (whole.startswith(between[0]) and whole.endswith(around) and all(between[1:])):
        return None
    rest, texts = whole[len(between[0]) : len(whole) - len(around)], []
    for mark in between[1:]:
        text, met, rest = rest.partition(mark)
        if not met:
            return None
        texts.append(text)
    texts.append(rest)
    if not all(is_said(one["content"], letters(text)) for one, text in zip(fields, texts)):
        return None
    thoughts = [one.get(chat.reasoning, "") for one in fields]
    written = [
        message | {"content": with_reasoning(thought, text)}
        for message, thought, text in zip(form, thoughts, texts)
    ]
    return written if _is_same(written, whole, chat) else None


def _is_same(written: list[Message], whole: str, chat: Chat) -> bool:
    """Whether the texts are rendered as the whole, and no special token of it is among them, where
    it would be letters."""
    if any(control in m["content"] for m in written for control in chat.control_texts):
        return False
    try:
        return render(chat.tokenizer, [chat.fields(message) for message in written]) == whole
    except UserError:
        return False
