"""Tokenizers of models that know text and no chat: a plain template, and BPE of a corpus."""

from collections.abc import Iterable, Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

# config.model.chat_template that stands for PLAIN_TEMPLATE.
PLAIN = "plain"
PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ m.role | capitalize }}: {{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
END_OF_DOCUMENT = "<|endoftext|>"
# The bytes, the end of a document, and room for the words.
FEWEST_TOKENS = 300
# A word seen this often gets a token of its own: the reviewer's answer words must have one.
_SEEN = 10_000


def train_tokenizer(
    texts: Iterable[str], num_tokens: int, *, words: tuple[str, ...] = ()
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `num_tokens` tokens, with the plain template. Each of
    the `words`, with and without a space before it, becomes a single token."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=num_tokens,
        special_tokens=[END_OF_DOCUMENT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )

    def all_texts() -> Iterator[str]:
        yield from texts
        for word in words:
            yield from (f"{word}\n {word}\n",) * _SEEN

    backend.train_from_iterator(all_texts(), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=END_OF_DOCUMENT, pad_token=END_OF_DOCUMENT
    )
    tokenizer.chat_template = PLAIN_TEMPLATE
    return tokenizer
