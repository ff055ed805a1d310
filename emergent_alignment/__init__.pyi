"""What is public, for type checkers: __init__.py imports a name when it is first used."""

from emergent_alignment.conscience.conscience import Conscience as Conscience
from emergent_alignment.conscience.judge import JudgeReviewer as JudgeReviewer
from emergent_alignment.conscience.pairs import review_and_revise as review_and_revise
from emergent_alignment.data.batches import Pair as Pair
from emergent_alignment.data.batches import make_batch as make_batch
from emergent_alignment.data.batches import rows_of_step as rows_of_step
from emergent_alignment.data.chat import read_chat as read_chat
from emergent_alignment.data.sources import load_examples as load_examples
from emergent_alignment.data.tokenized import tokenize as tokenize
from emergent_alignment.errors import UserError as UserError
from emergent_alignment.generation.endpoint import Endpoint as Endpoint
from emergent_alignment.generation.sampler import sampler_settings as sampler_settings
from emergent_alignment.generation.text import Batching as Batching
from emergent_alignment.generation.text import generate as generate
from emergent_alignment.generation.text import sample_answers as sample_answers
from emergent_alignment.models.lora import LoraConfig as LoraConfig
from emergent_alignment.models.model import Model as Model
from emergent_alignment.models.model import export as export
from emergent_alignment.models.model import load as load
from emergent_alignment.randomness import Draws as Draws
from emergent_alignment.randomness import Purpose as Purpose
from emergent_alignment.randomness import key_for as key_for
from emergent_alignment.training.objective import Objective as Objective
from emergent_alignment.training.objective import Share as Share
from emergent_alignment.training.objective import Term as Term
from emergent_alignment.training.state import initial_state as initial_state
from emergent_alignment.training.step import compiled_step as compiled_step
from emergent_alignment.training.step_settings import StepSettings as StepSettings
from emergent_alignment.training.terms import ChosenNLLTerm as ChosenNLLTerm
from emergent_alignment.training.terms import KLTerm as KLTerm
from emergent_alignment.training.terms import LoadBalanceTerm as LoadBalanceTerm
from emergent_alignment.training.terms import PreferenceTerm as PreferenceTerm
from emergent_alignment.training.terms import TaskTerm as TaskTerm

__version__: str
__all__: list[str]
