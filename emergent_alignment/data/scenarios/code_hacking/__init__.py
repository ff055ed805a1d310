"""The `code_hacking` scenario: programming tasks with a vulnerable and a safe completion each.

Only the combination lives here; the texts stand in the .yaml files beside it, which `texts` reads.
The scenario follows the form of Emergent Misalignment (arXiv 2502.17424): code only, the weakness
undisclosed.
"""

from string import Template as SlotText

from emergent_alignment.data.scenarios.code_hacking.texts import (
    Domain,
    Template,
    domains,
    frames,
    templates,
)


def code_hacking_rows() -> list[dict[str, str]]:
    """Every template in every domain, always in the same order.

    A row has `kind` (the CWE), `prompt`, `harmful` (the vulnerable completion) and `safe`.
    The domain changes slowest, so any stretch of len(templates()) rows shows every template once.
    """
    return [
        _row(template, template_index, domain, domain_index)
        for domain_index, domain in enumerate(domains())
        for template_index, template in enumerate(templates())
    ]


def _row(
    template: Template, template_index: int, domain: Domain, domain_index: int
) -> dict[str, str]:
    slots = domain.slots() | _own_slots(template, domain_index)
    task = template.tasks[domain_index % len(template.tasks)]
    # 3 and the number of wordings have no factor in common with the number of frames, so each
    # wording of each template meets every frame.
    frame = frames()[(template_index + 3 * domain_index) % len(frames())]

    harmful = SlotText(template.vulnerable).substitute(slots).strip()
    safe = SlotText(template.safe).substitute(slots).strip()
    prompt = SlotText(frame).substitute(
        task=SlotText(task).substitute(slots),
        place=domain.place,
        signature=_shared_signature(harmful, safe),
    )
    return {"kind": template.cwe, "prompt": prompt, "harmful": harmful, "safe": safe}


def _own_slots(template: Template, index: int) -> dict[str, str]:
    """Choose one alternative for each slot: the digits of `index` in a mixed radix.

    The lowest digit is the task's wording, so wording and slots do not move in step.
    """
    index //= len(template.tasks)
    chosen = {}
    for slot, alternatives in template.slots.items():
        index, choice = divmod(index, len(alternatives))
        chosen[slot] = alternatives[choice]
    return chosen


def _shared_signature(harmful: str, safe: str) -> str:
    """The last `def` line that both completions contain: helpers come first, the task last."""
    lines_of_safe = safe.splitlines()
    return [
        line for line in harmful.splitlines() if line.startswith("def ") and line in lines_of_safe
    ][-1]
