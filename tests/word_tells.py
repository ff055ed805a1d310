"""How far words alone tell the two sides of a scenario apart, on kinds that were left out.

A ridge fit on TF-IDF bags of words, in its dual form: the reader that sees no order and no meaning.
"""

import collections
import re

import numpy as np
from jaxtyping import Float

SIDES = ("harmful", "safe")
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")

# Articles, pronouns, auxiliaries, prepositions, conjunctions, and the adverbs that join or hedge.
FUNCTION_WORDS = frozenset(
    """
    a an the this that these those some any no none every each either neither both all another
    other such much many more most few fewer less least enough several own same
    i me my mine myself you your yours yourself he him his himself she her hers herself it its
    itself we us our ours they them their theirs themselves one ones
    who whom whose which what whatever when whenever where wherever why how
    anybody anyone anything everybody everyone everything nobody nothing somebody someone something
    am is are was were be been being do does did done doing have has had having
    can could may might must shall should will would cannot
    don't doesn't didn't isn't aren't wasn't won't wouldn't can't couldn't shouldn't it's that's
    make makes made keep keeps kept let lets get gets got
    about above across after against along among around as at before behind below beneath beside
    between beyond by down during for from in inside into like near of off on onto out outside
    over past since than through till to toward towards under until up upon with within without
    and but or nor so yet if unless because although though while whether
    not never always often sometimes rarely ever only just even also too very quite rather really
    still already again now then there here first last later soon next once twice instead perhaps
    maybe almost well away back anyway however therefore
    """.split()
)


def words_of(text: str) -> list[str]:
    return WORD.findall(text.casefold().replace("’", "'"))


def tell_apart_by_words(
    rows: list[dict[str, str]], vocabulary: frozenset[str] | None = None
) -> float:
    """The AUC of harmful against safe answers, where each kind is scored by a fit on all others.

    Only words of `vocabulary` count; None: every word.
    """
    answers = [row[side] for row in rows for side in SIDES]
    sides = np.array([side == "harmful" for _ in rows for side in SIDES])
    kinds = np.array([row["kind"] for row in rows for _ in SIDES])
    bags = [
        [word for word in words_of(answer) if vocabulary is None or word in vocabulary]
        for answer in answers
    ]
    features = _tf_idf(bags)
    kernel = features @ features.T + 1.0  # the 1 is an intercept

    # What a ridge fit on all other rows says of a block of rows needs no fit of its own:
    # y_block - (G_block,block)^-1 (G y)_block, with G the inverse of all rows' kernel + identity.
    target = np.where(sides, 1.0, -1.0)
    inverse = np.linalg.inv(kernel + np.eye(len(answers)))
    fitted = inverse @ target
    scores = np.zeros(len(answers))
    for kind in np.unique(kinds):
        inside = kinds == kind
        residual = np.linalg.solve(inverse[np.ix_(inside, inside)], fitted[inside])
        scores[inside] = target[inside] - residual
    return _auc(scores[sides], scores[~sides])


def _tf_idf(bags: list[list[str]]) -> Float[np.ndarray, "answers words"]:
    """Rows of length 1 (0 for an answer with no word that counts)."""
    columns = {word: index for index, word in enumerate(sorted({w for bag in bags for w in bag}))}
    counts = np.zeros((len(bags), len(columns)))
    for index, bag in enumerate(bags):
        for word, count in collections.Counter(bag).items():
            counts[index, columns[word]] = count
    inverse_frequency = np.log((1 + len(bags)) / (1 + (counts > 0).sum(axis=0))) + 1
    weighted = counts * inverse_frequency
    return weighted / np.maximum(np.linalg.norm(weighted, axis=1, keepdims=True), 1e-12)


def _auc(positive: Float[np.ndarray, "p"], negative: Float[np.ndarray, "n"]) -> float:
    """The share of (positive, negative) pairs in the right order; a tie counts half."""
    differences = positive[:, None] - negative[None, :]
    return float((differences > 1e-9).mean() + 0.5 * (np.abs(differences) <= 1e-9).mean())
