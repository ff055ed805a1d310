"""The page of a whole journal in a real browser: found, filtered, turned, kept in the address, and
quick with 100,000 reviews. Where there is no Chromium these are skipped."""

import json
import time

import pytest
from browser import CHROMIUM, Browser

from emergent_alignment.reports.journal_page import write_journal_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")
MANY = 100_000
WORDS = "river stone paper lantern window garden copper winter ladder music".split()


def review(number: int) -> dict:
    """A review of about a thousand letters; one in three was corrected."""
    said = " ".join(WORDS[(number * k) % 10] for k in range(1, 60))
    corrected = number % 3 == 0
    attempt = {"link": "fresh", "text": f"Better {number}: {said}", "score": 2.0, "reason": ""}
    return {
        "step": number // 8,
        "place": number % 8,
        "row": number % 500,
        "prompt": [{"role": "user", "content": f"Question {number}? {said}"}],
        "candidate": f"Answer {number}. <b>{said}</b>",
        "candidate_score": (number % 400) / 100 - 2,
        "outcome": "revised_fresh" if corrected else "approved",
        "revision": attempt["text"] if corrected else "",
        "revision_score": 2.0 if corrected else None,
        "link": "fresh" if corrected else "",
        "attempts": [attempt] if corrected else [],
    }


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    shard = folder / "plain" / "journal" / "step-00000000.host-000.jsonl"
    shard.parent.mkdir(parents=True)
    with shard.open("w") as file:
        file.writelines(json.dumps(review(number)) + "\n" for number in range(MANY))
    return write_journal_page(folder)


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as tab:
        tab.open(page.as_uri())
        tab.wait("document.body && document.body.dataset.ready")
        yield tab


def choose(browser, **values) -> str:
    """Set fields as a person does, and wait for what is said of it."""
    for name, value in values.items():
        browser.value(f"at({name!r}).value = {value!r}")
    browser.value("at('form').dispatchEvent(new Event('input', {bubbles: true}))")
    time.sleep(0.5)  # longer than the page waits for more letters
    return browser.value("at('state').textContent")


def test_all_are_there_and_a_page_of_them_is_shown(browser):
    assert browser.value("at('state').textContent") == f"{MANY} of {MANY} reviews"
    assert browser.value("document.querySelectorAll('.record').length") == 25
    assert not browser.value("at('form').hidden")


def test_words_outcome_and_score_narrow_it_down_and_the_address_keeps_them(browser):
    assert choose(browser, search="answer 77124.") == f"1 of {MANY} reviews"
    sides = browser.value(
        "[...document.querySelectorAll('.sides .said')].map((s) => s.textContent)"
    )
    assert sides[0].startswith("Answer 77124. <b>") and sides[1].startswith("Better 77124: ")
    assert browser.value("document.querySelector('.sides mark').textContent") == "Answer"
    corrected = [n for n in range(MANY) if n % 3 == 0]
    low = [n for n in corrected if (n % 400) / 100 - 2 <= -1.5]
    chosen = choose(browser, search="", outcome="revised_fresh", high="-1.5")
    assert chosen == f"{len(low)} of {MANY} reviews"
    address = browser.value("location.href")
    choose(browser, outcome="", high="")
    browser.open(address)
    browser.wait(f"at('state').textContent === '{len(low)} of {MANY} reviews'")
    choose(browser, outcome="", high="", order="lowest")
    assert browser.value("document.querySelector('summary').textContent").endswith(
        "step 0, row 0: score -2.00, corrected 2.00"
    )
    choose(browser, order="")


def test_pages_are_turned(browser):
    choose(browser, search="")
    first = browser.value("document.querySelector('.sides .said').textContent")
    browser.value("at('next').click()")
    assert browser.value("at('page').textContent") == f"page 2 of {MANY // 25}"
    assert browser.value("document.querySelector('.sides .said').textContent") != first


def test_a_search_through_all_is_quick(browser):
    """Under half a second of the browser's own time, on a machine that has other work."""
    times = []
    for word in ("garden question", "nowhere to be found", "copper 99999"):
        choose(browser, search=word)
        times.append(int(browser.value("at('state').dataset.milliseconds")))
    assert min(times) < 500, times


def test_nothing_of_a_record_is_taken_for_markup(browser):
    choose(browser, search="answer 5.")
    assert browser.value("document.querySelectorAll('.record b').length") == 0
