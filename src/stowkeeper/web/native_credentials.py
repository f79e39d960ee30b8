"""/api/credentials: who may use this interface."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi import Path as InPath
from pydantic import Field

from stowkeeper.web.credentials import (
    NAME_PATTERN,
    CredentialBook,
    CredentialError,
    CredentialExistsError,
    CredentialKind,
    CredentialNotFoundError,
    CredentialsFullError,
    add_credential,
    find_credential,
    list_credentials,
    make_credential,
    remove_credential,
)
from stowkeeper.web.limits import PASSWORD_BYTES_MAX, PASSWORD_LETTERS_MIN
from stowkeeper.web.native_models import Shape, Wanted
from stowkeeper.web.problems import ProblemError, not_found
from stowkeeper.web.roles import Role
from stowkeeper.web.routes import Asker, allow, api_router
from stowkeeper.web.services import WebServices

Name = Annotated[str, InPath(pattern=NAME_PATTERN, description="Name of the credential.")]


class CredentialShape(Shape):
    """A credential, without its secret."""

    name: str
    kind: CredentialKind = Field(description="token: a bearer token; password: basic authentication.")
    role: Role
    may_store: bool = Field(description="Whether it may store instances by HTTP, whatever its role.")
    created_at: str
    created_by: str


class Credentials(Shape):
    """All credentials, by name."""

    items: list[CredentialShape]


class NewCredential(Wanted):
    """A credential that is to be added: a token, unless a password is given."""

    name: str = Field(pattern=NAME_PATTERN)
    role: Role = Field(strict=False, description="none: may nothing but what is permitted apart.")
    may_store: bool | None = Field(
        None,
        description="Whether it may store instances by HTTP. Null or not given: operate and admin may, the others not.",
    )
    password: str | None = Field(None, min_length=PASSWORD_LETTERS_MIN, max_length=PASSWORD_BYTES_MAX)


class AddedCredential(CredentialShape):
    """A credential that was added."""

    token: str | None = Field(
        description="The token. It is not shown again. Null where a password was given."
    )


def router(services: WebServices) -> APIRouter:
    """Return the routes."""
    routes = api_router("/api/credentials", tag="credentials")

    @routes.get("", operation_id="list_credentials", summary="List credentials", response_model=Credentials)
    @allow(Role.ADMIN)
    def get_credentials() -> dict[str, object]:
        """List all credentials, by name."""
        with services.database.read() as connection:
            return {"items": list_credentials(connection)}

    @routes.post(
        "",
        operation_id="add_credential",
        summary="Add a credential",
        status_code=201,
        response_model=AddedCredential,
        responses={409: {"description": "There is a credential of this name, or as many as there may be."}},
    )
    @allow(Role.ADMIN)
    def post_credential(
        wanted: NewCredential, asker: Asker, request: Request, response: Response
    ) -> dict[str, object]:
        """Make a token, or take a password. With the first credential, every request needs one."""
        try:
            new = make_credential(
                wanted.name, wanted.role, may_store=wanted.may_store, password=wanted.password
            )
            with services.database.write() as transaction:
                add_credential(transaction, new, who=asker.who)
                added = find_credential(transaction.connection, wanted.name)
        except (CredentialExistsError, CredentialsFullError) as error:
            raise ProblemError(409, str(error)) from error
        except CredentialError as error:
            raise ProblemError(422, str(error), errors=[{"where": "body", "what": str(error)}]) from error
        _book(request).forget()
        if added is None:
            raise RuntimeError("what was added is not there")
        response.headers["Location"] = f"/api/credentials/{wanted.name}"
        shown = {name: getattr(added, name) for name in CredentialShape.model_fields}
        return {**shown, "token": new.secret if wanted.password is None else None}

    @routes.delete(
        "/{name}",
        operation_id="delete_credential",
        summary="Remove a credential",
        status_code=204,
        responses={
            409: {"description": "It is the last one, and without any the server would serve nobody."}
        },
    )
    @allow(Role.ADMIN)
    def delete_credential(name: Name, asker: Asker, request: Request) -> None:
        """Remove a credential: what it opened is closed within a second, in every process."""
        is_exposed = not request.app.state.serves_this_machine_alone
        try:
            with services.database.write() as transaction:
                remove_credential(transaction, name, who=asker.who)
                if is_exposed and not list_credentials(transaction.connection):
                    raise ProblemError(
                        409,
                        "it is the last credential, and without any the server would serve nobody: add another first",
                    )
        except CredentialNotFoundError as error:
            raise not_found("credential of this name") from error
        _book(request).forget()

    return routes


def _book(request: Request) -> CredentialBook:
    book: CredentialBook = request.app.state.credential_book
    return book
