"""Plans of installs, as a diff that people read."""

import difflib
import json
from collections.abc import Iterator, Sequence

from cli.client import JsonObject
from cli.output import Output
from cli.text import age, clean, moment, plural

# A line: parts with their styles.
Line = tuple[str | tuple[str, str], ...]

_SIGNS = {
    "added": ("+", "green"),
    "changed": ("~", "yellow"),
    "replaced": ("±", "magenta"),
    "deleted": ("-", "red"),
    "kept": ("=", "cyan"),
}
_ASCII_SIGNS = {"±": "!"}

_NEEDS = {
    "approval": "an approval",
    "storage_class": "a storage class",
    "custom_resource_definition": "the CustomResourceDefinition",
}
_LINE_STYLES = {"+": "green", "-": "red", "@": "dim"}
# A value longer than this is shown on lines of its own.
_SHORT = 60
# Of one changed text; the whole of it is in --json.
_MOST_LINES = 40


# Which renders a plan is history of; of the others it says what will be done.
_PAST = {
    "deployed": "It was applied {when}: this is what that did.",
    "failed": "It failed {when}.",
    "skipped": "It rendered to what was there already ({when}).",
}


def standing_of(render: JsonObject) -> str:
    """Return what became of the render of a plan, as a sentence; empty while it is under way."""
    at = render.get("updated_at")
    told = _PAST.get(str(render.get("state")), "").format(when=f"{age(at)} ago, at {moment(at)}")
    why = clean(render.get("message")) if render.get("state") == "failed" else ""
    return f"{told} {why}".rstrip()


def show_plan(output: Output, plan: JsonObject, title: str, standing: str = "") -> None:
    """Print what applying a render does, or did, and what it needs for that.

    Args:
        output: where to.
        plan: as the API gave it.
        title: what it is a plan of.
        standing: what became of it; empty while it is still to be applied.
    """
    ascii_only = not output.progress_console.encoding.lower().startswith("utf")
    output.say((title, "bold"))
    if standing:
        output.say((f"  {standing}", "cyan"))
    changes = plan.get("changes") or []
    for change in changes:
        for line in lines_of(change, ascii_only=ascii_only):
            output.say(*line, copied=True)
    if not changes:
        output.say(("  nothing changes", "dim"))
    for hook in plan.get("hooks") or ():
        output.say("  ", ("*", "cyan"), f" {_hook_text(hook)}")
    output.say(_counts(plan.get("counts") or {}))
    for need in plan.get("needs") or ():
        what = _NEEDS.get(need.get("what"), clean(need.get("what")).replace("_", " "))
        name = f" {clean(need['name'])}" if need.get("name") else ""
        output.say("  ", ("needs ", "bold"), f"{what}{name}: {clean(need.get('why'))}")
    if plan.get("plan_digest"):
        output.say(("  digest: ", "dim"), clean(plan["plan_digest"]), copied=True)


def lines_of(change: JsonObject, *, ascii_only: bool = False) -> Iterator[Line]:
    """Return the lines of one object's change."""
    kind = str(change.get("change"))
    sign, style = _SIGNS.get(kind, ("?", ""))
    if ascii_only:
        sign = _ASCII_SIGNS.get(sign, sign)
    scope = ", of the whole cluster" if change.get("scope") == "cluster" else ""
    why = ": a field of it cannot be changed" if kind == "replaced" else ""
    note = f": {clean(change['note'])}" if change.get("note") else ""
    named = f"{clean(change.get('kind'))}/{clean(change.get('name'))}"
    yield "  ", (f"{sign} {named}", style), (f"  {kind}{why}{scope}{note}", "dim")
    for difference in change.get("diff") or ():
        yield from _difference(difference)


def show_unified(output: Output, text: str) -> None:
    """Print a unified diff of objects."""
    for line in text.splitlines():
        style = "bold" if line.startswith(("+++", "---")) else _LINE_STYLES.get(line[:1], "")
        output.say((_readable(line), style), copied=True)


def show_drift_of(output: Output, differences: Sequence[JsonObject]) -> None:
    """Print how a live object differs from its render."""
    for difference in differences:
        if difference.get("path"):
            for line in _difference(difference):
                output.say(*line, copied=True)
        elif difference.get("before") is None:
            output.say("      ", ("not in the cluster: somebody or something removed it", "red"))
        else:
            for line in _difference({**difference, "path": "the whole object"}):
                output.say(*line, copied=True)


def _difference(difference: JsonObject) -> Iterator[Line]:
    path = clean(difference.get("path"))
    before, after = difference.get("before"), difference.get("after")
    if _is_text(before) and _is_text(after):
        yield "      ", ("~ ", "yellow"), f"{path}:"
        yield from _text_difference(str(before), str(after))
    elif before is None:
        yield "      ", ("+ ", "green"), f"{path}: ", (_shown(after), "green")
    elif after is None:
        yield "      ", ("- ", "red"), f"{path}: ", (_shown(before), "red")
    elif len(_shown(before)) + len(_shown(after)) <= 2 * _SHORT:
        values = (_shown(before), "red"), (" -> ", "dim"), (_shown(after), "green")
        yield "      ", ("~ ", "yellow"), f"{path}: ", *values
    else:
        yield "      ", ("~ ", "yellow"), f"{path}:"
        yield "          ", (f"- {_shown(before)}", "red")
        yield "          ", (f"+ {_shown(after)}", "green")


def _text_difference(before: str, after: str) -> Iterator[Line]:
    compared = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=1)
    lines = list(compared)[2:]
    for line in lines[:_MOST_LINES]:
        yield "          ", (_readable(line), _LINE_STYLES.get(line[:1], ""))
    if len(lines) > _MOST_LINES:
        yield "          ", (f"... {plural(len(lines) - _MOST_LINES, 'more line')}", "dim")


def _readable(line: str) -> str:
    """Return a line of a diff without what could control a terminal; its blanks stay."""
    rest = line[1:].lstrip(" ")
    return line[: len(line) - len(rest)] + clean(rest)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\n" in value


def _shown(value: object) -> str:
    if isinstance(value, str) and value == "(hidden)":
        return value
    return clean(json.dumps(value, ensure_ascii=False))


def _hook_text(hook: object) -> str:
    if not isinstance(hook, dict):
        return f"{clean(hook)}  hook"
    group_kind_name = clean(hook.get("key")).split("/")
    named = "/".join(part for part in (group_kind_name[1:2] + group_kind_name[-1:]) if part)
    when = ", ".join(clean(one) for one in hook.get("hooks") or ())
    return f"{named}  hook, run by helm: {when}"


def _counts(counts: JsonObject) -> str:
    told = [f"{counts[kind]} {kind}" for kind in (*_SIGNS, "unchanged") if counts.get(kind)]
    return f"  {', '.join(told) or 'nothing to do'}"
