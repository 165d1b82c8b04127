"""The Azure SDK's own client of blob storage, with our credentials, at Microsoft's emulator."""

import asyncio
import uuid

import azure.core.exceptions
import azure.storage.blob
import azure.storage.blob.aio
import pytest

import workload_identity
import workload_identity.aio
from testkit.azurite import Azurite
from testkit.entra import EntraStandIn

pytestmark = pytest.mark.usefixtures("pod")


@pytest.fixture
def entra(entra_of_azure: EntraStandIn) -> EntraStandIn:
    """The stand-in that storage trusts."""
    return entra_of_azure


def test_a_blob_is_written_and_read(storage: Azurite, entra: EntraStandIn) -> None:
    """A pod writes a blob, reads it and asks for one token; no secret anywhere."""
    name = f"blocking-{uuid.uuid4()}"
    with (
        workload_identity.WorkloadIdentityCredential() as credential,
        azure.storage.blob.BlobServiceClient(
            storage.blobs, credential, connection_verify=str(storage.ca_file)
        ) as client,
    ):
        container = client.create_container(name)
        container.upload_blob("greeting", b"hello from a pod")

        assert container.download_blob("greeting").readall() == b"hello from a pod"
    assert len(entra.requests) == 1


def test_a_blob_is_written_and_read_awaiting(storage: Azurite, entra: EntraStandIn) -> None:
    """The same from an event loop."""

    async def write_and_read() -> bytes:
        async with (
            workload_identity.aio.WorkloadIdentityCredential() as credential,
            azure.storage.blob.aio.BlobServiceClient(
                storage.blobs, credential, connection_verify=str(storage.ca_file)
            ) as client,
        ):
            container = await client.create_container(f"awaiting-{uuid.uuid4()}")
            await container.upload_blob("greeting", b"hello from a pod")
            return bytes(await (await container.download_blob("greeting")).readall())

    assert asyncio.run(write_and_read()) == b"hello from a pod"
    assert len(entra.requests) == 1


def test_a_token_for_something_else_is_refused(storage: Azurite) -> None:
    """The emulator looks at the audience: what passes above is no accident."""
    client = azure.storage.blob.BlobServiceClient(
        storage.blobs,
        workload_identity.WorkloadIdentityCredential(),
        audience="https://vault.azure.net/",
        connection_verify=str(storage.ca_file),
        retry_total=0,
    )
    with client, pytest.raises(azure.core.exceptions.ClientAuthenticationError, match="audience"):
        client.create_container(f"refused-{uuid.uuid4()}")


def test_a_token_that_has_ended_is_refused(storage: Azurite, entra: EntraStandIn) -> None:
    """Nor does one that is over pass."""
    entra.lifetime = -100
    client = azure.storage.blob.BlobServiceClient(
        storage.blobs,
        workload_identity.WorkloadIdentityCredential(),
        connection_verify=str(storage.ca_file),
        retry_total=0,
    )
    with client, pytest.raises(azure.core.exceptions.ClientAuthenticationError):
        client.create_container(f"refused-{uuid.uuid4()}")
