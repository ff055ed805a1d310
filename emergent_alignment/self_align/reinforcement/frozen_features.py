"""A reward head on a frozen backbone: every answer is read once, and the head is trained on the
hidden states at the answers' ends, epoch after epoch, in no time."""

import io
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from emergent_alignment.data.batches import rows_of_step
from emergent_alignment.errors import UserError
from emergent_alignment.parallel.hosts import is_first
from emergent_alignment.parallel.rows import own_rows
from emergent_alignment.progress import progress
from emergent_alignment.runs.training_run import Run
from emergent_alignment.self_align.reinforcement.reward_terms import BradleyTerryTerm
from emergent_alignment.storage.files import write_whole
from emergent_alignment.training.heads import Headed, head_values
from emergent_alignment.training.loop import MakeInput, StepInput
from emergent_alignment.training.objective import Objective
from emergent_alignment.training.step_settings import StepSettings
from emergent_alignment.training.views import Counts

_PART = 128  # pairs of a file: what a kill loses at most


@dataclass(frozen=True)
class FeaturePairs:
    """Standardised hidden states at the ends of both answers, float32[batch, width] each."""

    chosen: np.ndarray
    rejected: np.ndarray

    def row_lengths(self) -> np.ndarray:
        """One position an answer."""
        return np.ones((len(self.chosen), 2), np.int32)

    def padding_share(self, lengths: np.ndarray | None = None) -> float:
        """Nothing is padded."""
        return 0.0

    def branch_columns(self) -> dict[str, int]:
        """Features have no branches."""
        return {}

    def computed_layouts(self, rows: int) -> list:
        """The backbone is not read again."""
        return []


jax.tree_util.register_dataclass(FeaturePairs)


@dataclass(frozen=True)
class FeatureView:
    """Pairs of features under the head (ScoredPairs, see reward_terms.py)."""

    settings: StepSettings
    trainable: Headed
    frozen: dict
    batch: FeaturePairs

    @staticmethod
    def counts(batch: FeaturePairs) -> Counts:
        """Of a whole batch: pairs."""
        return {"pairs": jnp.float32(batch.chosen.shape[0])}

    @cached_property
    def chosen(self) -> Float[Array, "batch"]:
        """The chosen answers' scores."""
        return head_values(self.trainable, self.batch.chosen)

    @cached_property
    def rejected(self) -> Float[Array, "batch"]:
        """The rejected answers'."""
        return head_values(self.trainable, self.batch.rejected)

    @property
    def mask(self) -> Bool[Array, "batch"]:
        """Every row is a pair."""
        return jnp.ones(self.batch.chosen.shape[0], bool)


FEATURES = Objective((BradleyTerryTerm(watches_scores=False),), FeatureView)


@dataclass(frozen=True)
class Standardised:
    """The features of all pairs to train on, [pairs, 2, width], with their mean and deviation."""

    features: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    def folded(self, head: Headed) -> Headed:
        """The head for hidden states as they are: w · (x − mean) / deviation + b."""
        weight = head.weight / self.deviation
        return Headed({}, weight, head.bias - weight @ self.mean)


def standardised(features: Float[np.ndarray, "pairs 2 width"]) -> Standardised:
    """Features of mean 0 and deviation 1 over all answers: some channels of hidden states are
    hundreds of times larger than others."""
    flat = features.reshape(-1, features.shape[-1]).astype(np.float64)
    mean, deviation = flat.mean(0), flat.std(0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    return Standardised(
        ((features - mean) / deviation).astype(np.float32),
        mean.astype(np.float32),
        deviation.astype(np.float32),
    )


def feature_inputs(run: Run, standard: Standardised) -> MakeInput:
    """Pairs in an order that (seed, step) decide."""
    size = run.config.training.batch_size

    def make_input(step: int, trainable: Headed) -> StepInput:
        rows = rows_of_step(len(standard.features), size, run.config.seed, step)
        shown = standard.features[rows[own_rows(size)]]
        return StepInput(FeaturePairs(shown[:, 0], shown[:, 1]), [], {})

    return make_input


def kept_features(folder: Path, digest: str, num_pairs: int, read) -> np.ndarray:
    """float32[pairs, 2, width]: what `read(start, stop)` gives of the pairs, part by part, of which
    each is kept in a file of `folder` as it is made; `digest` says which pairs they are."""
    parts = []
    with progress("reading answers", shown=is_first()) as meter:
        for start in range(0, num_pairs, _PART):
            stop = min(start + _PART, num_pairs)
            path = folder / digest / f"{start:07d}.npy"
            if not path.exists():
                write_whole(path, _checked(read(start, stop)))
            parts.append(_read_part(path, stop - start))
            meter(stop, num_pairs)
    return np.concatenate(parts)


def _checked(array: np.ndarray) -> bytes:
    """A .npy file, with a check of its bytes behind them, which NumPy does not read."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue() + _check(file.getvalue())


def _read_part(path: Path, size: int) -> np.ndarray:
    """The array of a file; one of a former version has no check. Raises UserError where it is not
    what was written."""
    content = path.read_bytes()
    try:
        file = io.BytesIO(content)
        array = np.load(file, allow_pickle=False)
        rest = content[file.tell() :]
        fits = array.shape[:2] == (size, 2) and rest in (b"", _check(content[: file.tell()]))
    except Exception:  # whatever NumPy says of a damaged file
        fits = False
    if not fits:
        raise UserError(f"{path}: damaged: not what was written; remove it, and it is made again")
    return array


def _check(content: bytes) -> bytes:
    return f"crc32 {zlib.crc32(content):08x}".encode()
