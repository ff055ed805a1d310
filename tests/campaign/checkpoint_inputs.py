"""Broken checkpoints: each is loaded, or refused in one line, quickly and in little memory."""

import json
import random
import resource
import shutil
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tiny_chat_model import write_tiny_chat_model

from campaign.trial import Trial
from emergent_alignment.errors import UserError
from emergent_alignment.models.model import load

TRIALS = 400
SECONDS = 20  # of this process's own: the machine may do other things
MEGABYTES = 600
ODD_NUMBERS = (0, -1, 1, 2, 3, 7, 10**9, 10**12, 2**31, 2**63, 2**64 - 1, 1e308, 0.5, float("nan"))
ODD_VALUES = (
    *ODD_NUMBERS,
    *(float("inf"), None, True, "", "32", "a\nb", [], [[]], {}, {"a": 1}, [1, "2", None]),
    "x" * 10_000,
)
ODD_TEXTS = ("", "{", "[" * 100_000, '{"a": ' * 50_000, "[1]", "null", '{"a": 1' + "0" * 5000 + "}")
GGUF_VALUES = (
    *(0, 1, 3, 2**31, 2**32 - 1, -1.0, 0.0, 1e30, float("nan"), float("inf"), True, None),
    *("", "x", "llama", "yarn", [1, 2], ["a", "b"], [0.5], [True], ["x" * 5000] * 300),
)
GGUF_KEYS = (
    *("context_length", "embedding_length", "block_count", "feed_forward_length"),
    *("attention.head_count", "attention.head_count_kv", "attention.key_length"),
    *("attention.layer_norm_rms_epsilon", "attention.sliding_window", "rope.freq_base"),
    *("rope.dimension_count", "rope.scaling.type", "rope.scaling.factor", "rope.scale_linear"),
    *("rope.scaling.original_context_length", "rope.scaling.attn_factor"),
)
FORMATS = ("F8_E4M3", "F8_E5M2", "F4", "I8", "U16", "BOOL", "C64", "BF16", "F64", "", "nonsense")


def trials(count: int, seed: int, folder: Path) -> Iterator[Trial]:
    """`count` checkpoints, evenly over the kinds of file that are broken."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "whole").is_dir():
        write_tiny_chat_model(folder / "whole")
        write_tiny_gguf(folder / "whole.gguf")
    load(str(folder / "whole"))  # what is imported and compiled once is no trial's memory
    for number in range(count):
        case, (source, broken) = list(CASES.items())[number % len(CASES)]
        draw = random.Random(f"{seed} {number}")
        path = folder / f"broken{Path(source).suffix}"
        _copied(folder / source, path)
        broken(path, draw)
        yield Trial("inputs", case, *_loaded(path))
        _removed(path)


def _loaded(path: Path) -> tuple[str, str]:
    """What loading comes to: (outcome, what was seen where it is a fault)."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with _limited():
            load(str(path))
        outcome, seen = "right", ""
    except UserError as error:
        outcome, seen = "refused", ""
        if "\n" in str(error) or len(str(error)) > 1000:
            outcome, seen = "fault", f"more than a line: {str(error)[:200]!r}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome, seen = "fault", f"{type(error).__name__}: {str(error)[:200]}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    return (outcome, seen) if grown < MEGABYTES else ("fault", f"{grown} MB more memory")


@contextmanager
def _limited() -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError(f"not done after {SECONDS} s")

    former = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, former)


def _bytes_changed(path: Path, draw: random.Random, most: int) -> None:
    """A few bytes of a header, or a whole number of it, or where the file ends."""
    content = bytearray(path.read_bytes())
    most = min(most, len(content))
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(most)
        kind = draw.randrange(4)
        if kind == 0:
            content[place] = draw.randrange(256)
        elif kind == 1:
            content[place] ^= 1 << draw.randrange(8)
        elif kind == 2 and place + 8 <= len(content):
            number = draw.choice((0, 1, 2**16, 2**31, 2**32, 2**48, 2**63, 2**64 - 1))
            struct.pack_into("<Q", content, place, number)
        elif draw.random() < 0.3:
            del content[place : place + draw.randint(1, 64)]
    if draw.random() < 0.1:
        del content[draw.randrange(len(content)) :]
    path.write_bytes(content)


def _gguf_header(path: Path, draw: random.Random) -> None:
    _bytes_changed(path, draw, 12_000)


def _gguf_counts(path: Path, draw: random.Random) -> None:
    """Tensors, fields, a key's length or an array's kind and length that cannot be."""
    content = bytearray(path.read_bytes())
    numbers = (2**20 + 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1)
    place = draw.choice((8, 16, 24, content.index(b"tokenizer.ggml.tokens") + 21 + 8))
    struct.pack_into("<Q", content, place, draw.choice(numbers))
    if draw.random() < 0.5:  # and zeros to read for it, as a file of many gigabytes has
        content += bytes(1 << 22)
    path.write_bytes(content)


def _gguf_fields(path: Path, draw: random.Random) -> None:
    """Metadata of other types and values than the model's."""
    write_tiny_gguf(path, draw)


def _safetensors_bytes(path: Path, draw: random.Random) -> None:
    _bytes_changed(path / "model.safetensors", draw, 3000)


def _safetensors_header(path: Path, draw: random.Random) -> None:
    file = path / "model.safetensors"
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, rest = json.loads(content[8 : 8 + size]), content[8 + size :]
    name = draw.choice([key for key in header if key != "__metadata__"])
    field = draw.choice(("dtype", "shape", "data_offsets", "entry", "twice"))
    entry = header[name]
    if field == "dtype":
        entry["dtype"] = draw.choice(FORMATS)
    elif field == "shape":
        entry["shape"] = [draw.choice((0, 1, 32, 2**31, 2**62)) for _ in range(draw.randrange(4))]
    elif field == "data_offsets":
        entry["data_offsets"] = [draw.choice((0, 1, 2**40, 2**63)) for _ in range(2)]
    elif field == "entry":
        header[name] = draw.choice(ODD_VALUES)
    else:
        header[f"{name}.more"] = entry
    text = json.dumps(header).encode()
    length = len(text) if draw.random() < 0.9 else draw.choice((0, 7, 10**8, 2**40, 2**63))
    file.write_bytes(length.to_bytes(8, "little") + text + rest)


def _json_field(name: str) -> Callable[[Path, random.Random], None]:
    """Breaks one or two fields of a JSON file, or the whole file."""

    def broken(path: Path, draw: random.Random) -> None:
        file = path / name
        if draw.random() < 0.15:
            file.write_text(draw.choice(ODD_TEXTS))
            return
        content = json.loads(file.read_text())
        more = ["rope_scaling", "sliding_window", "layer_types", "quantization_config"]
        for _ in range(draw.randint(1, 2)):
            field = draw.choice([*content, *more, "eos_token_id"])
            content[field] = _odd_value(field, draw)
        if draw.random() < 0.3:
            content["model_type"] = draw.choice(("mistral", "qwen2", "qwen3"))
        file.write_text(json.dumps(content))

    return broken


def _odd_value(field: str, draw: random.Random) -> object:
    if field != "rope_scaling" or draw.random() < 0.2:
        return draw.choice(ODD_VALUES)
    scaling = {"rope_type": draw.choice(("linear", "dynamic", "llama3", "yarn", "longrope", 3))}
    names = ("factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
    for name in (*names, "beta_fast", "beta_slow", "attention_factor", "mscale", "truncate"):
        if draw.random() < 0.6:
            scaling[name] = draw.choice((*ODD_NUMBERS, 4.0, 8192, "4"))
    return scaling


def _tokenizer_file(path: Path, draw: random.Random) -> None:
    file = path / draw.choice(("tokenizer.json", "tokenizer_config.json"))
    if draw.random() < 0.5:
        _bytes_changed(file, draw, 100_000)
    elif draw.random() < 0.2:
        file.write_text(draw.choice(ODD_TEXTS))
    else:
        content = json.loads(file.read_text())
        content[draw.choice(list(content))] = draw.choice(ODD_VALUES)
        file.write_text(json.dumps(content))


def write_tiny_gguf(path: Path, draw: random.Random | None = None) -> None:
    """A tiny GGUF file; with `draw`, some of its metadata are others."""
    sys.path.append(str(Path(__file__).parents[1] / "models"))
    import tiny_models

    sys.path.pop()
    config, tokenizer, metadata = tiny_models.LLAMA, tiny_models.byte_tokenizer_metadata(), {}
    if draw is not None:
        for _ in range(draw.randint(1, 3)):
            value = draw.choice(GGUF_VALUES)
            if draw.random() < 0.5:
                metadata[f"llama.{draw.choice(GGUF_KEYS)}"] = value
            else:
                tokenizer[draw.choice([*tokenizer, "model", "scores", "eot_token_id"])] = value
    tiny_models.write_gguf(path, config, tokenizer=tokenizer, metadata=metadata)


def _copied(source: Path, path: Path) -> None:
    _removed(path)
    shutil.copytree(source, path) if source.is_dir() else shutil.copy(source, path)


def _removed(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


Break = Callable[[Path, random.Random], None]
CASES: dict[str, tuple[str, Break]] = {
    "GGUF header": ("whole.gguf", _gguf_header),
    "GGUF counts": ("whole.gguf", _gguf_counts),
    "GGUF metadata": ("whole.gguf", _gguf_fields),
    "safetensors header": ("whole", _safetensors_header),
    "safetensors bytes": ("whole", _safetensors_bytes),
    "config.json": ("whole", _json_field("config.json")),
    "generation_config.json": ("whole", _json_field("generation_config.json")),
    "tokenizer files": ("whole", _tokenizer_file),
}
