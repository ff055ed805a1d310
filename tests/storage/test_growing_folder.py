"""A part of a folder grows for what it was claimed for, and for nothing else."""

import json

import pytest

from emergent_alignment.errors import UserError
from emergent_alignment.storage.growing_folder import SETTINGS_FILE, GrowingFolder
from emergent_alignment.storage.json_lines import append_json_lines

IDENTITY = {"model": "tiny", "sampling": (0.7, 16)}


@pytest.fixture
def folder(tmp_path):
    """One with a part that belongs to IDENTITY and holds two records, the second one torn."""
    folder = GrowingFolder(tmp_path / "folder")
    folder.claim("answers", IDENTITY, overwrite=False)
    with folder.appending("answers") as file:
        append_json_lines(file, [{"number": 1}])
        file.write(b'{"num')
    return folder


def test_claimed_again_it_goes_on_behind_its_last_whole_line(folder):
    folder.claim("answers", dict(IDENTITY), overwrite=False)
    with folder.appending("answers") as file:
        append_json_lines(file, [{"number": 2}])
    assert list(folder.records("answers")) == [{"number": 1}, {"number": 2}]


def test_another_identity_is_refused_with_what_differs_or_overwrites(folder):
    other = IDENTITY | {"model": "large"}
    assert folder.is_others("answers", other) and not folder.is_others("answers", IDENTITY)
    with pytest.raises(UserError, match="model was 'tiny', and is 'large' now"):
        folder.claim("answers", other, overwrite=False)
    assert list(folder.records("answers")) == [{"number": 1}]
    folder.claim("answers", other, overwrite=True)
    assert not list(folder.records("answers"))


def test_one_part_says_nothing_of_another(folder):
    folder.claim("scores", {"judge": "frozen"}, overwrite=False)
    found = json.loads((folder.path / SETTINGS_FILE).read_text())
    assert found == {"answers": {**IDENTITY, "sampling": [0.7, 16]}, "scores": {"judge": "frozen"}}


def test_files_of_the_users_own_are_not_touched(tmp_path):
    folder = GrowingFolder(tmp_path)
    folder.part_file("answers").write_text("mine\n")
    with pytest.raises(UserError, match="not a file of ours"):
        folder.claim("answers", IDENTITY, overwrite=False)
    (tmp_path / SETTINGS_FILE).write_text("[]")
    with pytest.raises(UserError, match="settings.json: it must be an object, not "):
        folder.claim("scores", IDENTITY, overwrite=False)
    assert folder.part_file("answers").read_text() == "mine\n"
