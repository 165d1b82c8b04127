"""A program for azure-identity: writes a blob with the pod's identity."""

import os

from azure.core.credentials import TokenCredential
from azure.core.exceptions import ClientAuthenticationError, ResourceExistsError
from azure.identity import ChainedTokenCredential, CredentialUnavailableError, WorkloadIdentityCredential
from azure.storage.blob import BlobServiceClient, ContainerClient


def credential_of_pod() -> TokenCredential:
    """Return what gives tokens in this pod."""
    return ChainedTokenCredential(
        WorkloadIdentityCredential(
            tenant_id=os.environ["AZURE_TENANT_ID"], authority=os.environ["AZURE_AUTHORITY_HOST"]
        )
    )


def container(client: BlobServiceClient) -> ContainerClient:
    """Return the container of this program, made when it is not there."""
    try:
        return client.create_container("of-a-program")
    except ResourceExistsError:
        return client.get_container_client("of-a-program")


def main() -> None:
    """Write and read."""
    with BlobServiceClient(
        os.environ["BLOBS"], credential_of_pod(), connection_verify=os.environ["BLOBS_CA"]
    ) as client:
        place = container(client)
        place.upload_blob("greeting", b"hello", overwrite=True)
        print(place.download_blob("greeting").readall().decode())
    try:
        WorkloadIdentityCredential(token_file_path="/nowhere").get_token("https://storage.azure.com/.default")
    except (CredentialUnavailableError, ClientAuthenticationError, FileNotFoundError) as failure:
        print("refused", isinstance(failure, Exception))


if __name__ == "__main__":
    main()
