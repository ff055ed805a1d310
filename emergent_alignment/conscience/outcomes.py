"""The names of what may become of a candidate. Each ends in exactly one of them."""

DROPPED = (
    "empty",
    "identical",
    "form",
    "disapproved",
    "truncated",
    "too_long",
    "not_finite",
    "reviewer_failed",
)
OUTCOMES = (
    "approved",
    "revised_rewrite",
    "revised_fresh",
    "revised_self",
    "revised_best",
    "revised_fork",
    "revised_amend",
    *(f"dropped_{reason}" for reason in DROPPED),
)
