"""docs/health.md: the shipped profiles as tables, and the rules of the engine and of the trajectory words."""

from __future__ import annotations

from record.health import engine, expressions, profile, trends
from record.health.profile import Profile, Rule
from record.text import words


def health_page() -> str:
    """The page as Markdown."""
    parts = [
        "# Health", "", "Generated from `record/health/profiles/` and `record/health/` by `make docs`.", "",
        "A profile lists rules. The same engine applies them in training (`health.jsonl`; with `health.abort` the run",
        "ends, exit 1, checkpoint kept), in a sweep's scheduler (collapse), in reports and in `lam monitor`.", "",
        "## When a rule fires and clears", "", *_prose(engine.__doc__), "", "## Trajectory words", "",
        *_prose(trends.__doc__),
    ]
    for name in profile.shipped():
        parts += ["", *_profile(profile.load(name))]
    return "\n".join(parts) + "\n"


def _prose(text: str | None) -> list[str]:
    """A module docstring without its first line; indented lines as code."""
    lines = (text or "").strip().splitlines()[1:]
    shown, inside = [], False
    for line in lines:
        indented = line.startswith("    ")
        if indented != inside and line:
            shown.append("```")
            inside = indented
        shown.append(line.removeprefix("    ") if indented else line)
    return [line for line in [*shown, *(["```"] if inside else [])] if line is not None]


def _profile(known: Profile) -> list[str]:
    rows = [f"| `{rule.name}` | {_condition(rule)} | {_phase(rule)} | {rule.severity} | {rule.meaning} {rule.remedy} |"
            for rule in known.rules if not rule.quiet]
    quiet = [f"| `{rule.name}` | {_condition(rule)} | {_phase(rule)} | {rule.meaning} |"
             for rule in known.rules if rule.quiet]
    causes = [f"- {item.cause} {item.remedy} (needs {', '.join(item.needs)}"
              + (f"; also speaks for it: {', '.join(item.supports)}" if item.supports else "") + ")"
              for item in known.diagnoses]
    return [f"## Profile `{known.name}`", "", known.about, "",
            "| rule | fires where | phase | severity | meaning, remedy |", "|---|---|---|---|---|",
            *rows, *(["", "Quiet rules: evidence for others and for diagnoses, never listed by themselves.", "",
                      "| rule | holds where | phase | meaning |", "|---|---|---|---|", *quiet] if quiet else []),
            "", "Diagnoses:", "", *causes, *_gates(known)]


def _gates(known: Profile) -> list[str]:
    """What its runs must show before promotion, where the profile has codes to judge."""
    if known.name != "lam":
        return []
    rows = [f"| `{name}` | {getattr(known.gates, name):g} | {field.description} |"
            for name, field in type(known.gates).model_fields.items()]
    return ["", "What a run must show before it is promoted (`gates` of a profile; one's own may state others):", "",
            "| limit | | meaning |", "|---|---|---|", *rows]


def _condition(rule: Rule) -> str:
    if rule.count is not None:
        return rule.condition
    shown = list(rule.threshold) if isinstance(rule.threshold, tuple) else expressions.text(rule.threshold)
    times = f", {rule.patience} records in a row" if rule.patience != 1 else ""
    return f"{rule.condition} {words(rule.comparison)} {shown}{times}".replace("|", "\\|")


def _phase(rule: Rule) -> str:
    after = "" if rule.after_epoch == 0 else f"after epoch {expressions.text(rule.after_epoch)}"
    until = "" if rule.until_epoch is None else f"until epoch {rule.until_epoch:g}"
    return " ".join(part for part in (after, until) if part) or "always"
