"""The page's files: served as they are, under a policy that they keep to."""

import re
from html.parser import HTMLParser

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from producer.gateway import page, problems
from tests.node import PAGE

NAMES = sorted(path.name for path in PAGE.iterdir() if not path.name.startswith("_"))


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    problems.install(app)
    app.include_router(page.router)
    return TestClient(app)


def path_of(name: str) -> str:
    return "/" if name == "index.html" else f"/page/{name}"


@pytest.mark.parametrize("name", NAMES)
def test_given_a_file_then_it_is_served_with_its_type_its_policy_and_its_hash(
    client: TestClient, name: str
) -> None:
    answer = client.get(path_of(name))

    assert answer.content == (PAGE / name).read_bytes()
    kinds = {
        "html": "text/html",
        "css": "text/css",
        "js": "text/javascript",
        "svg": "image/svg+xml",
    }
    assert answer.headers["content-type"].startswith(kinds[name.rpartition(".")[2]])
    for header, value in page.HEADERS.items():
        assert answer.headers[header] == value
    head = client.head(path_of(name))
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(answer.content))

    for known in (answer.headers["etag"], f'"x", W/{answer.headers["etag"]}'):
        again = client.get(path_of(name), headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == answer.headers["etag"]
    assert client.get(path_of(name), headers={"If-None-Match": '"x"'}).status_code == 200


@pytest.mark.parametrize("name", ["nothing.js", "..%2f__init__.py", "%2e%2e/cli.py", "__init__.py"])
def test_given_any_other_name_then_there_is_nothing(client: TestClient, name: str) -> None:
    answer = client.get(f"/page/{name}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_given_the_policy_then_only_this_origin_may_be_asked_and_nothing_inline_runs() -> None:
    rules = dict(rule.split(" ", 1) for rule in page.POLICY.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert rules["img-src"] == "'self' data: blob:"
    assert rules["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in page.POLICY


class Links(HTMLParser):
    """What a page's markup refers to, and what of it would run or style in place."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.inline: list[str] = []
        self.ids: list[str] = []
        self.refers: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        self.links |= {str(said[name]) for name in ("src", "href") if name in said}
        self.inline += [name for name in said if name.startswith("on") or name == "style"]
        if tag == "style" or (tag == "script" and "src" not in said):
            self.inline.append(tag)
        self.ids += [str(said["id"])] if "id" in said else []
        for name in ("aria-labelledby", "aria-describedby", "for"):
            self.refers |= set(str(said.get(name) or "").split())


def test_given_its_markup_then_nothing_is_inline_and_all_it_names_is_there() -> None:
    found = Links((PAGE / "index.html").read_text())

    assert found.inline == []
    assert len(found.ids) == len(set(found.ids))
    assert found.refers <= set(found.ids)
    local = {link.removeprefix("page/") for link in found.links if not link.startswith("#")}
    assert local <= set(NAMES)
    assert {link.removeprefix("#") for link in found.links if link.startswith("#")} <= set(
        found.ids
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".js")])
def test_given_a_script_then_it_makes_no_markup_of_strings_and_names_what_is_there(
    name: str,
) -> None:
    text = (PAGE / name).read_text()
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(", text
    )
    assert "http://" not in text.replace("http://www.w3.org", "").replace("http:// ", "")
    imported = set(re.findall(r'from "\./([\w.]+)"', text))
    assert imported <= set(NAMES)
    ids = set(Links((PAGE / "index.html").read_text()).ids)
    assert set(re.findall(r'\bget\("([\w-]+)"\)', text)) <= ids
