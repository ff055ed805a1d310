"""A result in words: rows for tables, and sentences that say what to make of the figures."""

from emergent_alignment.evaluation.misalignment.judging import REASONS
from emergent_alignment.evaluation.misalignment.questions import MEASURES
from emergent_alignment.evaluation.misalignment.summary import DENOMINATORS
from emergent_alignment.intervals import Interval

UNKNOWN = "—"
TABLE_HEADER = ("", "n", "misaligned of scored", "aligned", "coherent", "scored")


def overall_lines(result: dict) -> list[str]:
    """The figures over all answers, a line each."""
    overall, limits = result["overall"], result["limits"]
    lines = [
        f"{result['arm']}, judged by {result['judge']['name']} (95% intervals)",
        f"misaligned: aligned < {limits['misaligned_below']:g} and coherent > "
        f"{limits['coherent_above']:g}",
    ]
    lines.append(
        f"{overall['num_answers']} answers, {overall['num_scored']} with both scores, "
        f"{overall['num_coherent']} of these coherent"
    )
    for name, words in DENOMINATORS.items():
        share = overall["misaligned_share"][name]
        lines.append(f"  {percent(share)}{_number(share)} {words}")
    for measure in MEASURES:
        mean = overall[measure]
        lines.append(f"{measure}, mean: {mean_text(mean)}{_number(mean)}")
    return lines


def table_row(figures: dict) -> list[str]:
    """Answers, misaligned share and mean scores, and the share that has scores."""
    means = [figures[measure] for measure in MEASURES]
    return [
        str(figures["num_answers"]),
        percent(figures["misaligned_share"]["of_scored"]),
        *(UNKNOWN if mean is None else f"{mean['value']:.1f}" for mean in means),
        f"{figures['num_scored'] / figures['num_answers']:.0%}",
    ]


def percent(share: dict | None) -> str:
    """A share with its interval, in percent."""
    if share is None:
        return UNKNOWN
    value, low, high = (100 * share[name] for name in ("value", "low", "high"))
    return f"{value:.1f}% [{low:.1f}, {high:.1f}]"


def mean_text(mean: dict | None) -> str:
    """A mean score with its interval."""
    return UNKNOWN if mean is None else Interval(**mean).text(1)


def _number(interval: dict | None) -> str:
    return "" if interval is None else f" (n={interval['n']})"


def notes_on(result: dict) -> list[str]:
    """What a reader of the table must know, each in a sentence or two."""
    return [
        *_check(result),
        *_coverage(result),
        *_cut(result),
        *result["judge"]["notes"],
        *_other_judge(result),
        *([power_note(result["comparison"])] if "comparison" in result else ()),
    ]


def _check(result: dict) -> list[str]:
    """What the judge made of known answers."""
    check = result["judge"].get("check")
    if check is None:
        return []
    start = f"Tried on {check['pairs']} pairs of known safe and harmful advice, the judge"
    if not check["scored"]:
        return [f"{start} gives none of them scores."]
    limit = result["limits"]["misaligned_below"]
    safe, harmful = (percent(check[f"{side}_below"]) for side in ("safe", "harmful"))
    said = (
        f"{start} scores {check['scored']}: AUC {Interval(**check['auc']).text()}; below {limit:g} "
        f"it puts {harmful} of the harmful and {safe} of the safe answers."
    )
    if not check["tells_apart"]:
        return [f"{said} It does not tell them apart, so these figures say little about the model."]
    if check["harmful_below"]["value"] < 0.5:
        return [f"{said} It tells them apart, and the limit still misses most of the harmful ones."]
    return [said]


def _coverage(result: dict) -> list[str]:
    overall, notes = result["overall"], []
    for measure, missing in result["not_scored"].items():
        if not missing["reasons"]:
            continue
        share, n = missing["share"]["value"], missing["share"]["n"]
        reasons = "; ".join(
            f"{count} × {REASONS[name]}{_shown(missing['replies'][name])}"
            for name, count in missing["reasons"].items()
        )
        notes.append(f"No {measure} score for {share:.0%} of {n} answers: {reasons}.")
    if not overall["num_scored"]:
        notes.append(
            "No answer has both scores: the misaligned share is not known (it is not 0). Choose "
            "another judge in config.misalignment.judge."
        )
    elif not overall["num_coherent"]:
        notes.append(
            "No answer is coherent, so none can count as misaligned: the share says nothing about "
            "alignment."
        )
    elif overall["num_scored"] < overall["num_answers"]:
        notes.append(
            f"If every answer without scores were misaligned, the share of all answers would be "
            f"{overall['at_most']:.1%}."
        )
    return notes


def _shown(replies: list[str]) -> str:
    shown = [repr(reply) for reply in replies if reply]
    return f" ({', '.join(shown)})" if shown else ""


def _cut(result: dict) -> list[str]:
    share = result["cut"]["value"]
    limit = result["sampling"]["max_new_tokens"]
    return [f"{share:.0%} of the answers ran into the limit of {limit} tokens."] if share else []


def _other_judge(result: dict) -> list[str]:
    named = result["judges_named_there"]
    if not named:
        return []
    return [f"The questions' file names {', '.join(named)} as its judge; config decides, not it."]


def power_note(comparison: dict, denominator: str = "of_scored") -> str:
    """The comparison over one denominator, in a sentence."""
    row, start = comparison["shares"][denominator], f"Misaligned {DENOMINATORS[denominator]}"
    if row is None:
        return f"{start}: not known for both, so there is nothing to compare."
    ours, theirs = Interval(**row["ours"]), Interval(**row["theirs"])
    difference, needed = Interval(**row["difference"]), row["answers_needed"]
    said = (
        f"{start}: {ours.value:.2%} against {theirs.value:.2%} ({comparison['against']}), "
        f"difference {100 * difference.value:+.2f} points "
        f"[{100 * difference.low:+.2f}, {100 * difference.high:+.2f}]"
    )
    if needed is None:
        return f"{said}: none, which no number of answers would show."
    enough = "there are" if min(ours.n, theirs.n) >= needed else "there are only"
    return (
        f"{said}. To find a difference of this size ({comparison['power']:.0%} power, two-sided "
        f"{comparison['level']:.0%}) takes {needed:,} answers an arm; {enough} {ours.n:,} and "
        f"{theirs.n:,}."
    )
