"""Where a file holds the model: the dotted prefix under which its names fit a layout.

Training scripts save a model's arrays under a key ("state_dict", "model_ema") next to optimizer states and counters,
wrappers put "module." or "backbone." before every name, and a file may hold two models, raw and averaged. The names of
a file are seen as one flat list: "state_dict_ema.module.blocks.0.norm1.weight" is "blocks.0.norm1.weight" under the
prefix "state_dict_ema.module".
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from vit_jax import InputError
from weights_convert.formats import Contents, LazyArray
from weights_convert.layouts import Layout
from weights_convert.rules import Rule

Array = TypeVar("Array")

# Wrappers of torch (compile, FSDP, activation checkpointing) insert a component anywhere in a name.
WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Of several models in one file, the first of these is taken; then any other; an averaged copy last.
PREFERRED = ("target_encoder", "teacher", "state_dict", "model_state_dict", "model", "net", "module")
AVERAGED = re.compile(r"(?:^|_)(?:ema|averaged?|swa|shadow)(?:_|$)", re.IGNORECASE)
UNLIKELY = re.compile(r"student|predictor|discriminator", re.IGNORECASE)
MAX_SHOWN = 5
MIN_ARRAYS = 4  # fewer are no model


@dataclass(frozen=True)
class Selection:
    """A model within a file.

    layout:         of its names.
    reason:         why this layout was chosen.
    prefix:         what comes before its names in the file, without the last dot; "" for nothing.
    names:          name in the layout -> name in the file.
    unrelated:      the file's other arrays.
    other_prefixes: the prefixes of other complete models in the file.
    """

    layout: Layout
    reason: str
    prefix: str
    names: Mapping[str, str]
    unrelated: tuple[str, ...]
    other_prefixes: tuple[str, ...]

    def relative(self, file_name: str) -> str:
        """Return a file's name without the prefix, or for an array next to it without what they share."""
        parent = self.prefix.rpartition(".")[0]
        cleaned = WRAPPERS.sub("", file_name)
        return _strip(cleaned, self.prefix if _is_under(cleaned, self.prefix) else parent)

    def describe(self) -> list[str]:
        """Return, as lines to print, where the model was in the file and what else the file holds."""
        lines = [f'the model is under "{self.prefix}."'] if self.prefix else []
        if self.other_prefixes:
            keys = ", ".join(other or "the top level" for other in self.other_prefixes)
            lines.append(f"the file holds other models too: {keys}; --weights-key takes another one")
        elif self.unrelated:
            groups = count_groups(self.unrelated, self.prefix)
            lines.append(f"arrays that are no part of the model: {groups}")
        return lines


@dataclass(frozen=True)
class _Candidate:
    """A layout at a prefix, and the signature keys that it has there."""

    layout: Layout
    prefix: str
    matched: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        return len(self.matched) == len(self.layout.signature_keys)

    @property
    def score(self) -> tuple[float, int]:
        fraction = len(self.matched) / len(self.layout.signature_keys)
        return fraction, len(self.matched)


def select_model(
    file_names: Collection[str], layouts: Sequence[Layout], *, requested: bool = False, weights_key: str | None = None
) -> Selection:
    """Return the model in a file with these array names, in one of the layouts.

    requested:   the user chose the layout, which may then lack signature keys.
    weights_key: a prefix that the model must be under.

    Raises InputError if the file holds no model under weights_key, if it holds several and none is preferred, and if
    two arrays have one name in the layout.
    """
    cleaned = _unique({name: WRAPPERS.sub("", name) for name in file_names})
    inside = [name for name in cleaned if _is_under(name, weights_key or "")]
    if not inside:
        raise InputError(f"no arrays under {weights_key!r}; the file has {count_groups(cleaned, '')}")
    candidates = list(_list_candidates(inside, layouts))
    candidate = _choose_candidate(candidates)
    complete = {other.prefix for other in candidates if other.is_complete}
    names, unrelated = _map_names(candidate, list(cleaned))
    partly = "" if candidate.is_complete else f" of {', '.join(candidate.layout.signature_keys)}"
    return Selection(
        layout=candidate.layout,
        reason="as requested" if requested else f"it has {', '.join(candidate.matched) or 'none'}{partly}",
        prefix=candidate.prefix,
        names={name: cleaned[file_name] for name, file_name in names.items()},
        unrelated=tuple(cleaned[name] for name in unrelated),
        other_prefixes=tuple(sorted(complete - {candidate.prefix})),
    )


def find_arrays(contents: Contents, layouts: Sequence[Layout]) -> dict[str, LazyArray]:
    """Return the model's arrays without a prefix: those of a complete model in one of the layouts, else of any model.

    Of any other model, these are the arrays under the keys, one within another, in which training scripts nest one.
    """
    if any(candidate.is_complete for candidate in _list_candidates(list(contents.arrays), layouts)):
        return select_arrays(select_model(contents.arrays, layouts), contents.arrays)
    keys, depth = contents.keys, 0
    while True:
        nested = {path[depth] for path in keys.values() if len(path) > depth + 1}
        wrapper = next((key for key in (*PREFERRED, "student") if key in nested), None)
        if wrapper is None:
            return {".".join(path[depth:]): contents.arrays[name] for name, path in keys.items()}
        keys = {name: path for name, path in keys.items() if len(path) > depth + 1 and path[depth] == wrapper}
        depth += 1


def select_arrays(selection: Selection, file_arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the model's arrays under their names in the file, without the prefix."""
    unrelated = set(selection.unrelated)
    return {selection.relative(name): array for name, array in file_arrays.items() if name not in unrelated}


def count_groups(names: Collection[str], prefix: str) -> str:
    """Return the first components of names after the dotted prefix they share with it, with counts, in one phrase."""
    parent = prefix.rpartition(".")[0]
    relative = [_strip(name, parent) if _is_under(name, parent) else name for name in names]
    counts: dict[str, int] = {}
    for name in relative:
        head, dot, _ = name.partition(".")
        counts[head + (".*" if dot else "")] = counts.get(head + (".*" if dot else ""), 0) + 1
    shown = [f"{head} ({count})" if count > 1 else head for head, count in counts.items()]
    return ", ".join(shown[:MAX_SHOWN]) + (", ..." if len(shown) > MAX_SHOWN else "")


def _is_under(name: str, prefix: str) -> bool:
    return not prefix or name.startswith(prefix + ".")


def _strip(name: str, prefix: str) -> str:
    return name.removeprefix(prefix + ".") if prefix else name


def _unique(names: Mapping[str, str]) -> dict[str, str]:
    """Return {new name: old name} of {old: new}. Raises InputError if two old names become one."""
    inverse: dict[str, str] = {}
    for old, new in names.items():
        if new in inverse:
            lost = sorted({inverse[new], *(other for other, name in names.items() if name == new)})
            raise InputError(f"{' and '.join(lost)} both become {new}; only one of them can be kept")
        inverse[new] = old
    return inverse


def _list_prefixes(names: Collection[str]) -> list[str]:
    """Return every dotted prefix before the first component with a digit, shortest first.

    Numbered components are layers, except for a leading index: {name: array} in a list or tuple.
    """
    prefixes = {""}
    for name in names:
        parts = name.split(".")[:-1]
        stop = next(
            (i for i, part in enumerate(parts) if re.search(r"\d", part) and not (i == 0 and part.isdecimal())),
            len(parts),
        )
        prefixes |= {".".join(parts[: i + 1]) for i in range(stop)}
    return sorted(prefixes, key=lambda prefix: (prefix.count("."), prefix))


def _list_candidates(names: Sequence[str], layouts: Sequence[Layout]) -> Iterator[_Candidate]:
    """Yield each layout at each prefix where it has at least one signature key.

    A complete model under "a" is not listed again under "a.b", where a layout may know it by shorter names too.
    """
    complete: list[str] = []
    for prefix in _list_prefixes(names):
        stripped = {_strip(name, prefix) for name in names if _is_under(name, prefix)}
        if (prefix and len(stripped) < MIN_ARRAYS) or any(_is_under(prefix, outer) for outer in complete):
            continue
        for layout in layouts:
            renamed = {layout.rename_key(name) for name in stripped}
            matched = layout.match_signature(renamed)
            if matched or not prefix:
                yield (candidate := _Candidate(layout, prefix, matched))
                if candidate.is_complete:
                    complete.append(prefix)


def _choose_candidate(candidates: Sequence[_Candidate]) -> _Candidate:
    """Return the preferred complete model, or the closest match. Raises InputError if two are equally preferred."""
    best_by_prefix: dict[str, _Candidate] = {}
    for candidate in candidates:
        if candidate.prefix not in best_by_prefix or candidate.score > best_by_prefix[candidate.prefix].score:
            best_by_prefix[candidate.prefix] = candidate
    complete = [candidate for candidate in best_by_prefix.values() if candidate.is_complete]
    if not complete:
        return max(candidates, key=lambda candidate: candidate.score)
    ranks = {candidate.prefix: _rank(candidate.prefix) for candidate in complete}
    first = min(ranks.values())
    chosen = [candidate for candidate in complete if ranks[candidate.prefix] == first]
    if len(chosen) > 1:
        keys = ", ".join(candidate.prefix for candidate in chosen)
        raise InputError(f"the file holds several models: {keys}; choose one with --weights-key (weights_key=)")
    return chosen[0]


def _rank(prefix: str) -> tuple[bool, bool, int]:
    parts = prefix.split(".")
    preferred = [PREFERRED.index(part) for part in parts if part in PREFERRED]
    is_unlikely = any(UNLIKELY.search(part) for part in parts)
    return any(AVERAGED.search(part) for part in parts), is_unlikely, min(preferred, default=len(PREFERRED))


def _map_names(candidate: _Candidate, names: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return {name in the layout: name} of the model's arrays, and the other names.

    An array next to the prefix belongs to the model if a rule of the layout takes its name and no array under the
    prefix has it: a head next to a backbone ("backbone.norm.weight" and "head.weight").
    """
    layout, prefix = candidate.layout, candidate.prefix
    under = {name: layout.rename_key(_strip(name, prefix)) for name in names if _is_under(name, prefix)}
    parent = prefix.rpartition(".")[0]
    siblings = {
        name: layout.rename_key(_strip(name, parent)) for name in names if name not in under and _is_under(name, parent)
    }
    taken = set(under.values())
    pattern = _compile_sources(layout.rules)
    heads = {name: new for name, new in siblings.items() if prefix and new not in taken and pattern.fullmatch(new)}
    members = _unique(under | heads)
    return members, [name for name in names if name not in under and name not in heads]


def _compile_sources(rules: Sequence[Rule]) -> re.Pattern:
    """Return a pattern of the names that any rule takes."""
    sources = {source for rule in rules for source in rule.sources}
    return re.compile("|".join(re.escape(source).replace(r"\{i\}", r"\d+") for source in sorted(sources)))
