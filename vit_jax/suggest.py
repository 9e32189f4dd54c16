"""Names that resemble a mistyped one, for error messages."""

import difflib
from collections.abc import Iterable

LIMIT = 3


def find_similar(name: str, known: Iterable[str], *, limit: int = LIMIT) -> list[str]:
    """Return at most `limit` of the known names that resemble `name`, the closest first; case does not count."""
    by_folded: dict[str, str] = {}
    for each in known:
        by_folded.setdefault(each.casefold(), each)
    return [by_folded[folded] for folded in difflib.get_close_matches(name.casefold(), by_folded, n=limit)]


def did_you_mean(name: str, known: Iterable[str], *, prefix: str = "") -> str:
    """Return "; did you mean X?" for the end of an error message, or an empty text if no known name is similar.

    prefix: of the known names that are compared, which does not make them similar, as "--".
    """
    rests = [each.removeprefix(prefix) for each in known if each.startswith(prefix)]
    similar = [prefix + rest for rest in find_similar(name.removeprefix(prefix), rests)]
    return f"; did you mean {' or '.join(similar)}?" if similar else ""


def describe_unknown(kind: str, name: object, known: Iterable[str], *, more: str = "") -> str:
    """Return the error message for a name that is none of the known ones: all of them, and the similar ones.

    kind: what the names are, as "model". name: of any type, since it may come from a file.
    more: what else is possible, as ", or all".
    """
    names = list(known)
    return f"unknown {kind} {name!r}: one of {', '.join(names)}{more}{did_you_mean(str(name), names)}"
