"""The figures of a two-by-two as rows of text."""

from collections.abc import Sequence

from emergent_alignment.reports.results_folder import MISSING

UNDER = {"": "none", "trained": "as trained", "rephrased": "rephrased"}


def figures_table(results: Sequence[dict]) -> list[list[str]]:
    """A header, and a row for each result: what was measured of one arm after so many steps."""
    judges = list(dict.fromkeys(name for result in results for name in result["judges"]))
    told = any(result.get("told") for result in results)
    header = ["arm", "seed", "steps", *["system text"] * told, "in form"]
    for name in judges:
        header += [f"harmful ({name})", "… in form"]
    header += ["in-form harm margin", "form margin", "frozen score", "KL"]
    return [header, *(_row(result, judges, told) for result in results)]


def _row(result: dict, judges: Sequence[str], told: bool) -> list[str]:
    row = [result["arm"], str(result["seed"]), str(result["step"])]
    row += [UNDER[result.get("told") or ""]] * told
    row.append(interval_text(result["in_form"]))
    for name in judges:
        judged = result["judged"].get(name)
        if judged is None or not result["judges"][name]["valid"]:
            row += [MISSING if judged is None else "not valid"] * 2
            continue
        row += [interval_text(judged["harmful"]), interval_text(judged["harmful_in_form"])]
    margins = result["margins"]
    figures = (margins["in_form_harm"], margins["form"], result["frozen_score"], result["kl"])
    return row + [interval_text(one) for one in figures]


def interval_text(figures: dict | None) -> str:
    """ "0.62 [0.51, 0.73]", or a dash."""
    if figures is None:
        return MISSING
    return "{value:.2f} [{low:.2f}, {high:.2f}]".format(**figures)


def judges_table(results: Sequence[dict]) -> list[list[str]]:
    """A header, and a row for each judge: what it was worth on known answers of unseen kinds."""
    rows = [["judge", "AUC", "pairs told apart", "harmful caught", "safe flagged", "has a say"]]
    seen = set()
    for result in results:
        for name, check in result["judges"].items():
            if name in seen:
                continue
            seen.add(name)
            figures = (check[key] for key in ("auc", "told_apart", "caught", "false_alarms"))
            say = "yes" if check["valid"] else f"no: AUC under {check['least_auc']}"
            rows.append([name, *map(interval_text, figures), say])
    return rows
