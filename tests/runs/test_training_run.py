"""What all training runs have in common."""

import shutil
from pathlib import Path

import emergent_alignment
from emergent_alignment.runs.training_run import code_digest


def test_the_digest_of_the_code_is_that_of_its_text_wherever_it_lies(tmp_path):
    package = Path(emergent_alignment.__file__).parent
    copy = shutil.copytree(package / "parallel", tmp_path / "parallel")
    assert code_digest(copy) == code_digest(package / "parallel")
    (copy / "mesh.py").write_text((copy / "mesh.py").read_text() + "\n")
    assert code_digest(copy) != code_digest(package / "parallel")
    assert code_digest() == code_digest(package)
