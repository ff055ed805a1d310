"""GGUF files of every family, written by the rules of llama.cpp's converter, give the logits of the
model of transformers that they were written from, and of transformers' own reader where it has the
family."""

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import transformers  # noqa: E402 (after the skip)
from gguf_converter import ARCHITECTURES, stated, write_converted  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402
from tokenizers import pre_tokenizers  # noqa: E402

from emergent_alignment.losses import vocabulary_logits  # noqa: E402
from emergent_alignment.models.attention import causal_plan  # noqa: E402
from emergent_alignment.models.checkpoint import read_parameters  # noqa: E402
from emergent_alignment.models.forward import forward, unembedding  # noqa: E402
from emergent_alignment.models.gguf_file import GGUFFile  # noqa: E402
from emergent_alignment.models.gguf_tokenizer import build_tokenizer  # noqa: E402

TOKENS = np.random.default_rng(0).integers(0, 300, (2, 50))
BASES = {"sliding_attention": 1e4, "full_attention": 1e6}
# Where transformers reads a family but not all that its files say: what it takes for granted.
TAKEN_FOR_GRANTED = {
    "gemma2": {"head_dim": 256, "query_pre_attn_scalar": 256}
    | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    "gemma3_text": {"head_dim": 256, "query_pre_attn_scalar": 256}
    | {
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": base} for kind, base in BASES.items()
        }
    },
    "qwen3_moe": {"moe_intermediate_size": 768},
}
COMPILED = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


def write_random(folder, family, **changes):
    """A model of transformers with random weights, and the GGUF file of it."""
    content = stated(family, **changes)
    config = transformers.AutoConfig.for_model(**content, attn_implementation="eager")
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.2)
            if "norm" in name and not family.startswith("gemma"):
                parameter.add_(1.0)
    model.save_pretrained(folder / "model")
    tensors = load_file(folder / "model" / "model.safetensors")
    tokens = {"model": "gpt2", "tokens": [f"w{number}" for number in range(300)]}
    return model, write_converted(folder / "model.gguf", content, tensors, tokens)


def logits_of_file(path):
    """Ours of the tokens."""
    file = GGUFFile(path)
    config = file.config
    positions = jnp.broadcast_to(jnp.arange(TOKENS.shape[1]), TOKENS.shape)

    def computed(params):
        hidden, _ = forward(config, params, TOKENS, positions, causal_plan(positions))
        return vocabulary_logits(hidden, unembedding(params), config.logits_cap)

    return jax.jit(computed, compiler_options=COMPILED)(
        read_parameters(file, config, dtype=jnp.float32)
    )


def assert_close(ours, model):
    """To 1e-4, of the largest number where that is more than 1."""
    with torch.no_grad():
        theirs = model(torch.tensor(TOKENS)).logits.float().numpy()
    assert theirs.std() > 0.1, "logits too much alike to tell anything"
    difference = np.abs(np.asarray(ours) - theirs).max()
    assert difference <= 1e-4 * max(1.0, np.abs(theirs).max()), difference


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_a_file_has_the_logits_of_the_model_it_was_written_from(family, tmp_path):
    model, path = write_random(tmp_path, family)
    assert_close(logits_of_file(path), model)


@pytest.mark.parametrize("family", TAKEN_FOR_GRANTED)
def test_transformers_reads_the_same_model(family, tmp_path):
    _, path = write_random(tmp_path, family, **TAKEN_FOR_GRANTED[family])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    )
    assert_close(logits_of_file(path), theirs.eval())


TEXTS = [
    "  leading, trailing, and   inner spaces  ",
    "I'm, you've, he'LL, don't, x's, IT'S",
    "a\tb\r\n\r\n\n c\u00a0d\u3000e /\n//\n",
    "def camelCase(HTTPServer: XMLHttp) -> int:\n    return x**2 + 1  # comment\n\n",
    "in 1999\n 12\n\n  7, 3.14159, 1,000,000, x1y22z333",
    "Ünïcödé, Straße, naïve e\u0301 ≠ é, İstanbul ΑΒΓαβγ ǅ",
    "Привет, мир! שלום العربية हिन्दी ไทย 日本語のテキスト。中文测试！한국어",
    "١٢٣ ½ Ⅷ ② 😀👩\u200d👩 ♥\ufe0f \u2028\x7f",
]
# Of these transformers knows the names, or they need none (olmo is GPT-2's).
PRE_TOKENIZERS = ("dbrx", "smaug-bpe", "tekken", "gpt-4o", "qwen2", "llama-bpe", "olmo")


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_words_are_cut_out_as_transformers_cuts_them(pre, tmp_path):
    tokens = {"model": "gpt2", "pre": pre, "merges": ["t h"]}
    tokens["tokens"] = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "<|end|>"]
    tokens |= {"token_type": [1] * 257 + [3], "eos_token_id": 257}
    content = stated("qwen3_moe", num_hidden_layers=1, vocab_size=258)
    path = write_converted(tmp_path / "model.gguf", content, {}, tokens)
    metadata = {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}
    ours = build_tokenizer(metadata, where=str(path), max_positions=128)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    random = np.random.default_rng(0)
    joined = ["".join(random.choice(TEXTS, size=4)) for _ in range(200)]
    for text in TEXTS + joined:
        cut = [
            each.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text) for each in (ours, theirs)
        ]
        assert cut[0] == cut[1], repr(text)


def test_gemma_s_tokens_are_those_of_transformers(tmp_path):
    """Runs of spaces and of lines stand before all else, marked as user-defined, and have the worst
    score; the others' scores fall from token to token."""
    random = np.random.default_rng(0)
    runs = [" " * number for number in range(2, 8)] + ["\n" * number for number in range(1, 5)]
    start = ["<pad>", "<eos>", "<bos>", "<unk>", *runs]
    byte = [f"<0x{number:02X}>" for number in range(256)]
    letters = list("▁abcdeé")
    words = list(letters)
    while len(words) < 120:
        longer = "".join(random.choice(words, 2))
        if longer not in words and len(longer) < 9 and "▁▁" not in longer:
            words.append(longer)
    words = [*words[len(letters) :], *letters]
    tokens = {"model": "llama", "pre": "default", "tokens": [*start, *byte, *words]}
    tokens["scores"] = [-1000.0] * (len(start) + 256) + [-float(rank) for rank in range(len(words))]
    tokens["token_type"] = [3] * 4 + [4] * len(runs) + [6] * 256 + [1] * len(words)
    tokens |= {"bos_token_id": 2, "eos_token_id": 1, "padding_token_id": 0, "unknown_token_id": 3}
    tokens |= {"add_space_prefix": False, "add_bos_token": True, "add_eos_token": False}
    content = stated("gemma3_text", num_hidden_layers=1, vocab_size=len(tokens["tokens"]))
    path = write_converted(tmp_path / "model.gguf", content, {}, tokens)
    metadata = {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}
    ours = build_tokenizer(metadata, where=str(path), max_positions=128)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    for length in range(1, 120):
        text = "".join(random.choice(list("abcdeé   \n\nx"), size=length))
        ids = ours(text).input_ids
        assert ids == theirs(text).input_ids, repr(text)
        assert ours.decode(ids, skip_special_tokens=True) == text
