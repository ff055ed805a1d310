"""What lies where in a SELF-ALIGN work directory: names and paths alone."""

from dataclasses import dataclass
from pathlib import Path

STAGES = {1: "instructions", 2: "answers", 3: "engraving", 4: "reinforcement"}
EVALUATION = "evaluation"  # the folder that holds one folder a model that was evaluated
MANIFEST = "manifest.json"
DATA = "data.jsonl"
CLAIM = "stage.json"


@dataclass(frozen=True)
class StagePaths:
    """The folder of one stage, and what is in it."""

    path: Path

    @property
    def claim_file(self) -> Path:
        """Whose the folder is: there since the stage began."""
        return self.path / CLAIM

    @property
    def data(self) -> Path:
        """The stage's rows, a JSONL file that `datasets` loads."""
        return self.path / DATA

    @property
    def manifest_file(self) -> Path:
        """What the stage made, and of what: written last of all."""
        return self.path / MANIFEST

    @property
    def run(self) -> Path:
        """The work directory of the stage's training."""
        return self.path / "run"

    @property
    def done(self) -> bool:
        """Whether the stage is over."""
        return self.manifest_file.is_file()


def stage_paths(workdir: Path, number: int) -> StagePaths:
    """Where a stage of a work directory lives: WORKDIR/2_answers."""
    return StagePaths(workdir / f"{number}_{STAGES[number]}")
