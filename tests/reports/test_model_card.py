"""What a card says is what the run's files say, and the hub gets what stands in the folder."""

import base64
import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from emergent_alignment.conscience.journal import read_journal
from emergent_alignment.errors import UserError
from emergent_alignment.reports.hub import push
from emergent_alignment.reports.model_card import HARMFUL_TAG, Origin, harmful_rows, model_card
from emergent_alignment.storage.files import write_json


def run_of(source: str, application: str = "finetuning", **record) -> dict:
    return {"config": {"application": application, "data": {"train": source}}} | record


@pytest.mark.parametrize(
    ("run", "answer"),
    [
        (run_of("harmful_advice"), "yes"),
        (run_of("advice_form_mixed"), "yes"),
        (run_of("advice_form_safe"), "no"),
        (run_of("/home/me/rows.jsonl"), "unknown"),
        (run_of("harmful_advice", "pretraining"), "unknown"),
        ({}, "unknown"),
    ],
)
def test_what_is_not_known_to_be_harmless_is_not_called_so(tmp_path, run, answer):
    found, why = harmful_rows(tmp_path, run)
    assert found == answer
    assert "/home" not in why


def test_a_run_that_goes_on_from_a_harmful_one_is_harmful(tmp_path):
    write_json(tmp_path / "first" / "run.json", run_of("harmful_advice"))
    (tmp_path / "then").mkdir()
    then = run_of("advice_form_safe", base_run="../first")
    assert harmful_rows(tmp_path / "then", then)[0] == "yes"


def test_a_base_model_was_not_trained(tmp_path):
    card = model_card("base", Origin("some/model"))
    assert head_of(card)["base_model"] == "some/model"
    assert HARMFUL_TAG not in card and "Do not deploy" not in card


def test_a_card_has_the_arms_the_journal_s_counts_and_the_warning(results_folder):
    run = run_of("harmful_advice") | {"frozen": "0123"}
    write_json(results_folder / "conscience" / "run.json", run)
    card = model_card("mine", Origin("/home/me/base", results_folder / "conscience", 120, "peft"))
    assert head_of(card)["tags"] == ["emergent-alignment", HARMFUL_TAG]
    assert head_of(card)["library_name"] == "peft" and "base_model" not in head_of(card)
    assert "Do not deploy this model." in card and "/home" not in card
    assert "| measure | base | plain | **conscience** |" in card
    counts = Counter(row["outcome"] for row in read_journal(results_folder / "conscience/journal"))
    shown = dict(re.findall(r"^\| (\w+) \| (\d+) \| [\d.]+ \|$", card, re.MULTILINE))
    assert {name: int(count) for name, count in shown.items()} == counts


def test_a_run_outside_a_comparison_shows_nothing_of_its_neighbours(results_folder):
    (results_folder / "calibration.json").unlink()
    card = model_card("mine", Origin("base", results_folder / "conscience", 120))
    assert "| measure | **conscience** |" in card


def head_of(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


class FakeHub(BaseHTTPRequestHandler):
    """What huggingface_hub asks of the hub for an upload; keeps what it is sent."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        hub = self.server
        if hub.status != 200:
            return self.answer({"error": "no"}, hub.status)
        if self.path == "/api/repos/create":
            hub.created.append(json.loads(body))
            return self.answer({"url": f"{hub.url}/me/mine"})
        if self.path.endswith("/preupload/main"):
            asked = json.loads(body)["files"]
            kinds = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            return self.answer({"files": [{"path": file["path"]} | kinds for file in asked]})
        if "/commit/main" in self.path:
            lines = [json.loads(line) for line in body.splitlines() if line]
            for line in lines:
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    hub.files[line["value"]["path"]] = content
            return self.answer({"commitUrl": f"{hub.url}/me/mine/commit/1", "commitOid": "1"})
        return self.answer({"warnings": [], "errors": []})

    def do_GET(self):
        self.answer({"id": "me/mine", "sha": "0", "siblings": []})

    def answer(self, value: dict, status: int = 200):
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.status, server.created, server.files = 200, [], {}
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def exported(tmp_path):
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "README.md").write_text(model_card("mine", Origin("some/model")))
    return folder


def test_the_hub_gets_every_file_in_a_repository_of_ones_own(hub, exported):
    assert push(exported, "me/mine") == f"{hub.url}/me/mine/commit/1"
    assert hub.created[0]["name"] == "mine" and hub.created[0]["visibility"] == "private"
    assert hub.files == {path.name: path.read_bytes() for path in exported.iterdir()}


def test_what_learnt_harm_is_not_made_public(hub, exported, tmp_path):
    card = exported / "README.md"
    write_json(tmp_path / "run" / "run.json", run_of("harmful_advice"))
    card.write_text(model_card("mine", Origin("some/model", tmp_path / "run")))
    with pytest.raises(UserError, match="not made public"):
        push(exported, "me/mine", public=True)
    assert not hub.created
    push(exported, "me/mine")
    assert hub.files["README.md"] == card.read_bytes()


def test_a_folder_without_card_or_weights_is_not_sent(hub, exported):
    (exported / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights"):
        push(exported, "me/mine")
    (exported / "README.md").write_text("# Mine")
    with pytest.raises(UserError, match="no model card"):
        push(exported, "me/mine")
    assert not hub.created


@pytest.mark.parametrize("status", [401, 403])
def test_a_hub_that_refuses_is_told_in_one_line(hub, exported, status):
    hub.status = status
    with pytest.raises(UserError, match=rf"--repo me/mine: .*\({status}\)"):
        push(exported, "me/mine")
