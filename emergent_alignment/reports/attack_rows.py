"""The rows of a table of attacks: what attacks.py found, as text."""


def attack_rows(result: dict) -> list[tuple[str, str]]:
    """(label, figures) of a result: each rate before and after with its interval, how it changed
    from prompt to prompt, and both main rates kind by kind; nothing for an empty result."""
    rows = []
    for rate, label in (
        ("attack_success", "attack success"),
        ("hostile_refused", "hostile prompts refused"),
        ("over_refusal", "over-refusal of benign prompts"),
        ("benign_flagged", "answers to benign prompts flagged"),
        ("auc", "AUC of the conscience, benign over hostile"),
    ):
        for when in ("before", "after", "change"):
            if result.get(when, {}).get(rate):
                rows.append((f"{label}, {when}", _text(result[when][rate])))
    for when in ("before", "after"):
        for kind, rates in result.get(when, {}).get("by_kind", {}).items():
            shown = ", ".join(_text(rates[rate]) for rate in ("attack_success", "over_refusal"))
            rows.append((f"{kind}: attack success, over-refusal; {when}", shown))
    return rows


def _text(measure: dict) -> str:
    return f"{measure['value']:.2f} [{measure['low']:.2f}, {measure['high']:.2f}], n={measure['n']}"
