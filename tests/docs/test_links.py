"""Links of the documents lead to files and headings that exist, on GitHub and on the site."""

import re

import pytest

from tests.docs.documents import DOCUMENTS, ROOT, list_anchors, list_links, name_document

DOCS = ROOT / "docs"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_document)
def test_links_lead_to_files_and_headings(document):
    for link in list_links(document):
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert not document.is_relative_to(DOCS) or target.is_relative_to(DOCS), f"{link}: the site has only docs/"
        assert not anchor or anchor in list_anchors(target), link


def test_what_a_page_of_the_site_includes_has_no_links():
    """A link that leads somewhere from the file does not from the page, which is in another folder."""
    pages = "".join(page.read_text() for page in DOCS.rglob("*.md"))
    included = re.findall(r'^--8<-- "(.+)"$', pages, re.MULTILINE)
    assert included
    for name in included:
        assert not list_links(ROOT / name), name


def test_the_site_lists_every_page_and_no_other():
    listed = re.findall(r"[\w/-]+\.(?:md|ipynb)", (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2])
    pages = (path for suffix in ("md", "ipynb") for path in DOCS.rglob(f"*.{suffix}"))
    assert sorted(listed) == sorted(path.relative_to(DOCS).as_posix() for path in pages)


def test_every_picture_is_shown_by_a_document():
    shown = {(document.parent / link).resolve() for document in DOCUMENTS for link in list_links(document)}
    code = "".join(document.read_text() for document in DOCUMENTS)
    for picture in DOCS.rglob("*.png"):
        assert picture in shown or picture.relative_to(ROOT).as_posix() in code, picture.name
