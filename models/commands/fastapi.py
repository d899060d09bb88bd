"""`fastapi …` and `show fastapi …`: NorFab's REST service, whose bearer tokens are managed as those of `fastmcp`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from ..inventory.masking import mask_section
from .auth import CheckToken, CreateToken, DeleteToken, ListTokens
from .base import ANY_WORKER, CommandGroup, JobArguments, Workers, branch
from .fastmcp import Discover
from .show import ShowInventory, ShowVersion

FASTAPI: Final = "fastapi"


class CreateFastapiToken(CreateToken):
    """Store a token for a user; the client generates one that is not given, so that all workers store the same."""

    SERVICE: ClassVar[str] = FASTAPI


class ListFastapiTokens(ListTokens):
    """List the tokens of one user or of all."""

    SERVICE: ClassVar[str] = FASTAPI


class DeleteFastapiToken(DeleteToken):
    """Delete a token, or all tokens of a user."""

    SERVICE: ClassVar[str] = FASTAPI


class CheckFastapiToken(CheckToken):
    """Check whether a token is stored and not expired."""

    SERVICE: ClassVar[str] = FASTAPI


class FastapiAuthCommands(CommandGroup, prompt="nf[fastapi-auth]#"):
    """Token management."""

    create_token: CreateFastapiToken = branch("Create authentication token", alias="create-token")
    list_tokens: ListFastapiTokens = branch("Retrieve authentication tokens", alias="list-tokens")
    delete_token: DeleteFastapiToken = branch("Delete existing authentication token", alias="delete-token")
    check_token: CheckFastapiToken = branch("Check if given token valid", alias="check-token")


class DiscoverFastapi(Discover):
    """Make the workers rediscover the tasks of other services, which they offer as REST endpoints."""

    SERVICE: ClassVar[str] = FASTAPI


class FastapiCommands(CommandGroup, prompt="nf[fastapi]#"):
    """Commands of the FastAPI service."""

    auth: FastapiAuthCommands = branch("Manage auth tokens")
    discover: DiscoverFastapi = branch("Discover tasks of other services")


class ShowFastapiInventory(ShowInventory):
    """Show the workers' inventory, secrets masked."""

    SERVICE: ClassVar[str] = FASTAPI

    def merge(self, values: dict[str, Any]) -> Any:
        """Return each worker's inventory; NorFab's workers leave the masking of secrets to the client."""
        return {worker: mask_section(value) for worker, value in values.items()}


class ShowFastapiVersion(ShowVersion):
    """Show versions of the worker, Python and the libraries."""

    SERVICE: ClassVar[str] = FASTAPI


class ShowOpenapiSchema(JobArguments):
    """Show the OpenAPI schema of the REST endpoints."""

    SERVICE: ClassVar[str] = FASTAPI
    TASK: ClassVar[str] = "get_openapi_schema"

    paths: Annotated[bool, Field(description="Show the paths of the endpoints alone")] = False
    workers: Workers = ANY_WORKER


class ShowFastapiCommands(CommandGroup, prompt="nf[show-fastapi]#"):
    """Commands that show the state of FastAPI workers."""

    inventory: ShowFastapiInventory = branch("Show inventory of the workers, secrets masked")
    version: ShowFastapiVersion = branch("Show versions of the workers and their libraries")
    openapi_schema: ShowOpenapiSchema = branch("Show OpenAPI schema of the endpoints", alias="openapi-schema")
