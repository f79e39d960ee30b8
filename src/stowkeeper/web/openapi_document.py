"""The OpenAPI document: what FastAPI makes of the routes, and what it cannot know: credentials, roles, errors."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from stowkeeper.web import studies_openapi
from stowkeeper.web.native_models import Page
from stowkeeper.web.problems import PROBLEM_JSON, phrase_of
from stowkeeper.web.roles import EVERYBODY
from stowkeeper.web.routes import STORE_PERMISSION, RouteRules, rules_of

DESCRIPTION = """\
The native interface of Stowkeeper, a DICOM storage server whose Success means kept.

Objects have the names of the rows of the archive's database. Times are UTC in ISO 8601. A list comes in pages: `next` of a page
is the address of the one that follows, null at the end. Errors are application/problem+json (RFC 9457).

Once a credential is set up, every request needs one: a bearer token, or name and password by basic authentication. Its role
is `none`, `read`, `operate` or `admin`; each may what the one before may, and each operation says which it needs. Whether it
may `store` instances by HTTP is said apart.
"""

_PROBLEM_SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "type": "object",
    "description": "What went wrong (RFC 9457). Other members may say more of it.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "about:blank: the status says what kind of problem it is."},
        "title": {"type": "string", "description": "The phrase of the status."},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What happened, to which thing, and what to do."},
        "errors": {
            "type": "array",
            "description": "Of a request that does not fit: each part that does not.",
            "items": {
                "type": "object",
                "required": ["where", "what"],
                "properties": {"where": {"type": "string"}, "what": {"type": "string"}},
            },
        },
    },
    "additionalProperties": True,
}
_SECURITY = {
    "token": {"type": "http", "scheme": "bearer", "description": "A token of `stowkeeper token add NAME`."},
    "password": {"type": "http", "scheme": "basic", "description": "A name and its password."},
}
_PAGE = "Page_"
"""How the names of the shapes of pages begin: their class is one for all, and so are its words."""

_WITH_BODY = frozenset({"post", "put", "patch", "delete"})


def install(application: FastAPI, routes: Sequence[APIRoute], base_path: str) -> None:
    """Let an application give its OpenAPI document, made when it is asked for first. `base_path` is that of DICOMweb."""

    def document() -> dict[str, Any]:
        if application.openapi_schema is None:
            application.openapi_schema = make_document(application, routes, base_path)
        return application.openapi_schema

    application.openapi = document  # type: ignore[method-assign]  # FastAPI's own way to extend it


def make_document(application: FastAPI, routes: Sequence[APIRoute], base_path: str) -> dict[str, Any]:
    """Return the OpenAPI document of some routes."""
    document = get_openapi(
        title=application.title, version=application.version, description=DESCRIPTION, routes=list(routes)
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    schemas["Problem"] = _PROBLEM_SCHEMA
    for name, schema in schemas.items():
        if name.startswith(_PAGE):
            schema.setdefault("description", Page.__doc__)
    studies_openapi.complete(document, base_path)
    components["schemas"] = dict(sorted(schemas.items()))
    components["securitySchemes"] = _SECURITY
    for route in routes:
        rules = rules_of(route.endpoint)
        if rules is None or not route.include_in_schema:
            continue
        for method in route.methods or ():
            operation = document["paths"][route.path_format].get(method.lower())
            if operation is not None:
                _complete(operation, method.lower(), rules, has_path=bool(route.param_convertors))
    return document


def _complete(operation: dict[str, Any], method: str, rules: RouteRules, *, has_path: bool) -> None:
    """Add to an operation who may use it, and the problems that every one can have."""
    if rules.role is not EVERYBODY:
        operation["security"] = [{name: []} for name in _SECURITY]
        text = operation.get("description", "").strip()
        if rules.stores:
            operation["x-permission"] = STORE_PERMISSION
            needed = f"Needs the permission `{STORE_PERMISSION}`, whatever the role."
        else:
            operation["x-role"] = rules.role.value
            needed = f"Needs the role `{rules.role}`."
        operation["description"] = f"{text}\n\n{needed}".strip()
    responses = operation["responses"]
    if "Validation" in responses.get("422", {}).get("description", ""):
        del responses["422"]  # FastAPI's own words
    has_input = "requestBody" in operation or bool(operation.get("parameters"))
    statuses = {"400", "403", "406", "429", "500", "503"}
    statuses |= {"401"} if rules.role is not EVERYBODY else set()
    if not rules.streams:  # what streams looks at its input itself
        statuses |= {"422"} if has_input else set()
        statuses |= {"404"} if has_path else set()
    statuses |= {"408", "413", "415"} if method in _WITH_BODY else set()
    for status in statuses:
        responses.setdefault(status, {"description": phrase_of(int(status))})
    for status, told in responses.items():
        if status.startswith(("4", "5")):
            told.setdefault("content", {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}})
    operation["responses"] = dict(sorted(responses.items()))
