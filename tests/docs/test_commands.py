"""The commands that the documents show are accepted by the programs' own parsers."""

import argparse
import re
from functools import cache

import pytest

from tests.docs.documents import DOCUMENTS, ROOT, list_commands, name_document, read_command
from tests.golden.behaviour_data import parser_of

parser = cache(parser_of)
# Words that stand for the reader's own numbers.
STAND_FOR_NUMBERS = {"N": "1", "I": "0"}


def list_flags(of: argparse.ArgumentParser) -> set[str]:
    """Return the flags of a parser and of its subcommands."""
    flags = set(of._option_string_actions)
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            flags |= {flag for sub in action.choices.values() for flag in list_flags(sub)}
    return flags


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_document)
def test_commands_of_code_blocks_are_accepted(document):
    for module, arguments in list_commands(document):
        if "..." in arguments or "RUN..." in arguments:
            continue
        for redirection in ("|", ">", "&"):
            arguments = arguments[: arguments.index(redirection)] if redirection in arguments else arguments
        try:
            parser(module).parse_args([STAND_FOR_NUMBERS.get(word, word) for word in arguments])
        except SystemExit as end:
            pytest.fail(f"{module} {' '.join(arguments)}: exit {end.code}")


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_document)
def test_flags_of_commands_in_sentences_exist(document):
    for span in re.findall(r"`([^`]+)`", document.read_text().replace("```", "")):
        command = read_command(span)
        if command:
            flags = {word for word in command[1] if re.fullmatch(r"--?[a-z][\w-]*", word)}
            assert flags <= list_flags(parser(command[0])) | {"--help"}, span


def test_commands_are_detected():
    assert read_command("vit-jax verify a.pth --against lukemelas  # a comment") == (
        "weights_convert",
        ["verify", "a.pth", "--against", "lukemelas"],
    )
    assert len(list_commands(ROOT / "docs/tutorial.md")) == 6
