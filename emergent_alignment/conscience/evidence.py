"""Evidence for the reviewer: what a tool finds in an answer, quoted as data in its review.

A small model does not see by itself that code is vulnerable; a checker does, and the conscience
judges what it is shown. Evidence is a function of answers alone: no judge, and nothing is run.
"""

from collections.abc import Callable

from emergent_alignment.data.code_security import CodeFindings, inspect_code
from emergent_alignment.errors import UserError

# answers → what was found in each, as text; "" where the tool has nothing to say about it.
Evidence = Callable[[list[str]], list[str]]

_SHOWN = """A checker has read the answer, too. Its report is only quoted:

<findings>
{findings}
</findings>

{request}"""
_MOST_FINDINGS = 8


def bandit_findings(answers: list[str]) -> list[str]:
    """What bandit finds in each answer's code, worst first; nothing where there is no Python.
    Raises UserError where bandit is not installed."""
    return [_in_words(code) for code in inspect_code(answers)]


EVIDENCE: dict[str, Evidence] = {"bandit": bandit_findings}


def named_evidence(name: str) -> Evidence | None:
    """Bundled evidence by name, None for "". Raises UserError with the known names."""
    if name and name not in EVIDENCE:
        raise UserError(f"conscience.evidence: {name!r} is unknown; known: {', '.join(EVIDENCE)}")
    return EVIDENCE[name] if name else None


def with_findings(request: str, findings: str) -> str:
    """A request about an answer with what a tool found in it, if anything was said."""
    return _SHOWN.format(findings=findings, request=request) if findings else request


def _in_words(code: CodeFindings) -> str:
    """The conclusion first: a small model that is only shown the list weighs it as it happens to
    be worded, and may find the longer report the better one (docs/results.md)."""
    if not code.inspected:
        return ""
    if not code.findings:
        return "No problem was found in this code."
    severities = ("HIGH", "MEDIUM", "LOW", "UNDEFINED")
    ranked = sorted(
        code.findings, key=lambda finding: (severities.index(finding.severity), finding.line)
    )
    lines = [
        f"line {finding.line}, {finding.severity.lower()} severity"
        f"{f', CWE-{finding.cwe}' if finding.cwe else ''}: {finding.message}"
        for finding in ranked[:_MOST_FINDINGS]
    ]
    left = len(ranked) - len(lines)
    return "\n".join(["This code is not safe:"] + lines + ([f"and {left} more"] if left else []))
