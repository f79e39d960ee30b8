"""/api/openapi.json, and /api/docs: the same for people, as one page without a script. / leads there.

The page is made here, of the OpenAPI document. Nothing in it comes from elsewhere: its style stands in it, allowed by its hash, and
all else is forbidden by its Content-Security-Policy. What is folded is `details`, which every browser opens by mouse and
keyboard; colours follow the reader's choice of light or dark.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from stowkeeper.web.roles import Role
from stowkeeper.web.routes import allow, api_router
from stowkeeper.web.services import WebServices

STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --back: #ffffff; --soft: #f3f4f6; --line: #c9ced6; --link: #0b57d0;
  --get: #0b6e4f; --post: #0b57d0; --put: #7a4b00; --delete: #a8201a; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e8eb; --back: #15181c; --soft: #1f242a; --line: #3b424c;
  --link: #8ab4f8; --get: #6fd3a8; --post: #8ab4f8; --put: #e8b464; --delete: #f28b82; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem; font: 1rem/1.5 system-ui, sans-serif; color: var(--text);
  background: var(--back); }
a { color: var(--link); } h1 { margin: 0; } h2 { margin: 2rem 0 .5rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: 0; list-style: none; }
code, .path { font: .95em ui-monospace, monospace; overflow-wrap: anywhere; }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .4rem 0; background: var(--back); }
summary { padding: .5rem .75rem; cursor: pointer; background: var(--soft); border-radius: .4rem; }
summary:focus-visible, a:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.inside { padding: .25rem .75rem .75rem; }
.method { display: inline-block; min-width: 4.5rem; font-weight: 700; }
.get { color: var(--get); } .post { color: var(--post); } .put { color: var(--put); } .delete { color: var(--delete); }
.role { float: right; font-size: .85rem; }
table { border-collapse: collapse; width: 100%; margin: .25rem 0 .75rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .5rem; border-bottom: 1px solid var(--line); }
th { font-size: .85rem; } .scroll { overflow-x: auto; }
.skip { position: absolute; left: -999rem; } .skip:focus { left: 1rem; top: 1rem; background: var(--back); padding: .5rem; }
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The Content-Security-Policy of the page: its own style and nothing else."""

ROOT_WORDS = (
    "This is Stowkeeper. /api/docs tells people what there is, and /api/openapi.json tells programs.\n"
)

Document = Mapping[str, Any]


def router(_services: WebServices) -> APIRouter:
    """Return the routes."""
    routes = api_router("/api", tag="description")

    @routes.get(
        "/openapi.json",
        operation_id="get_openapi",
        summary="Describe this interface",
        response_description="An OpenAPI 3.1 document.",
    )
    @allow(Role.READ)
    def get_openapi(request: Request) -> dict[str, Any]:
        """Give the OpenAPI document of everything here."""
        document: dict[str, Any] = request.app.openapi()
        return document

    @routes.get(
        "/docs",
        operation_id="get_docs",
        summary="Describe this interface to people",
        response_class=HTMLResponse,
        response_description="A page.",
    )
    @allow(Role.READ, produces=("text/html",))
    def get_docs(request: Request) -> Response:
        """Give the OpenAPI document as a page."""
        headers = {"Content-Security-Policy": POLICY}
        return HTMLResponse(render(request.app.openapi()), headers=headers)

    return routes


def root_router(_services: WebServices) -> APIRouter:
    """Return the route of the root, where people begin who know the address alone."""
    routes = api_router(tag="description")

    @routes.get("/", include_in_schema=False, response_model=None)
    @allow(Role.READ, consumes=(), produces=())
    def get_root() -> Response:
        # Relative, for a proxy that serves this below a path of its own.
        return PlainTextResponse(ROOT_WORDS, status_code=307, headers={"Location": "api/docs"})

    return routes


def render(document: Document) -> str:
    """Return the page of an OpenAPI document."""
    return "".join(_page(document))


def _page(document: Document) -> Iterator[str]:
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    yield (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body>"
        f'<a class="skip" href="#operations">To the operations</a><header><h1>{title}</h1>'
    )
    yield _paragraphs(document["info"].get("description", ""))
    yield '<p>For programs: <a href="/api/openapi.json">/api/openapi.json</a></p></header>'
    by_tag: dict[str, list[tuple[str, str, Document]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            by_tag.setdefault(operation["tags"][0], []).append((path, method, operation))
    yield '<nav aria-label="Subjects"><ul>'
    for tag in by_tag:
        yield f'<li><a href="#{_anchor(tag)}">{escape(tag)}</a></li>'
    yield '<li><a href="#shapes">shapes</a></li></ul></nav><main id="operations">'
    for tag, operations in by_tag.items():
        yield f'<section><h2 id="{_anchor(tag)}">{escape(tag.capitalize())}</h2>'
        for path, method, operation in operations:
            yield from _operation(path, method, operation)
        yield "</section>"
    yield '<section><h2 id="shapes">Shapes</h2>'
    for name, schema in document["components"]["schemas"].items():
        yield from _shape(name, schema)
    yield "</section></main></body></html>"


def _operation(path: str, method: str, operation: Document) -> Iterator[str]:
    asked = operation.get("x-role") or operation.get("x-permission")
    needed = "needs any role" if asked == "none" else f"needs {escape(asked)}" if asked else "for everybody"
    yield (
        f'<details id="{escape(operation["operationId"])}"><summary><span class="role">{needed}</span>'
        f'<span class="method {method}">{method.upper()}</span> <span class="path">{escape(path)}</span> '
        f'&nbsp; {escape(operation["summary"])}</summary><div class="inside">'
    )
    yield _paragraphs(operation.get("description", ""))
    parameters = operation.get("parameters", ())
    if parameters:
        described = (
            (
                _code(parameter["name"]),
                escape(parameter["in"]),
                _type(parameter["schema"]),
                escape(parameter.get("description") or parameter["schema"].get("description", "")),
            )
            for parameter in parameters
        )
        yield from _table("Parameters", ("Name", "In", "Type", "Meaning"), described)
    body = operation.get("requestBody")
    if body:
        for media, content in body["content"].items():
            yield f"<p>Body: {_code(media)}, {_type(content['schema'])}</p>"
    rows = (
        (_code(status), escape(answer["description"]), _media(answer.get("content", {})))
        for status, answer in operation["responses"].items()
    )
    yield from _table("Answers", ("Status", "Meaning", "Content"), rows)
    yield "</div></details>"


def _shape(name: str, schema: Document) -> Iterator[str]:
    yield f'<details id="{_shape_anchor(name)}"><summary>{_code(name)}</summary><div class="inside">'
    yield _paragraphs(schema.get("description", ""))
    properties = schema.get("properties", {})
    if properties:
        required = set(schema.get("required", ()))
        rows = (
            (
                _code(key),
                _type(value),
                "yes" if key in required else "no",
                escape(value.get("description", "")),
            )
            for key, value in properties.items()
        )
        yield from _table("Members", ("Name", "Type", "Always there", "Meaning"), rows)
    else:
        yield f"<p>{_type(schema)}</p>"
    yield "</div></details>"


def _table(caption: str, heads: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield f'<div class="scroll"><table><caption class="skip">{caption}</caption><thead><tr>'
    yield "".join(f'<th scope="col">{head}</th>' for head in heads)
    yield "</tr></thead><tbody>"
    for row in rows:
        yield f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>"
    yield "</tbody></table></div>"


def _media(content: Document) -> str:
    return "<br>".join(f"{_code(media)} {_type(value.get('schema', {}))}" for media, value in content.items())


def _type(schema: Document) -> str:
    """Return a schema in a few words, with a link where it is a shape of its own."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#{_shape_anchor(name)}">{escape(name)}</a>'
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(_type(one) for one in schema[key])
    if "const" in schema:
        return _code(json.dumps(schema["const"]))
    if "enum" in schema:
        return ", ".join(_code(json.dumps(value)) for value in schema["enum"])
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(str(kind)) + _bounds(schema)


_BOUNDS = {
    "minimum": "from {}",
    "maximum": "to {}",
    "minLength": "{} letters or more",
    "maxLength": "{} letters at most",
    "pattern": "like {}",
    "default": "otherwise {}",
}


def _bounds(schema: Document) -> str:
    said = [words.format(schema[key]) for key, words in _BOUNDS.items() if key in schema]
    return f" ({escape(', '.join(said))})" if said else ""


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_with_code(part)}</p>" for part in text.strip().split("\n\n") if part)


def _with_code(text: str) -> str:
    """Return a paragraph whose words between backticks are code."""
    return "".join(_code(part) if number % 2 else escape(part) for number, part in enumerate(text.split("`")))


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _anchor(tag: str) -> str:
    return f"subject-{escape(tag.replace(' ', '-'))}"


def _shape_anchor(name: str) -> str:
    return f"shape-{escape(name)}"
