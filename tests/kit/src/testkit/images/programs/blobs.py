"""A user's program: writes a blob with its pod's identity, reads it again, and tells what its token says.

Variables: BLOBS, the URL of the storage account's blobs; BLOBS_CA, what its certificate is trusted by; BLOB,
what the blob is called after the pod's name; EVERY, in seconds: do it again so often until SIGTERM comes.
"""

import base64
import json
import os
import signal
import sys
import threading
import uuid

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient

from workload_identity import WorkloadIdentityCredential

ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())  # as the first process nothing else ends it
name = f"{os.environ['HOSTNAME']}-{os.environ['BLOB']}"
every = float(os.environ.get("EVERY", "0"))

with (
    WorkloadIdentityCredential() as credential,
    BlobServiceClient(os.environ["BLOBS"], credential, connection_verify=os.environ["BLOBS_CA"]) as storage,
):
    while not ended.is_set():
        token = credential.get_token("https://storage.azure.com/.default").token
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        try:
            container = storage.create_container("pods")
        except ResourceExistsError:
            container = storage.get_container_client("pods")
        written = uuid.uuid4().hex
        container.upload_blob(name, written, overwrite=True)
        read = container.download_blob(name).readall().decode()
        told = {"blob": f"pods/{name}", "same": read == written, "credential": type(credential).__module__}
        print(json.dumps(told | claims), flush=True)
        if not every:
            sys.exit(0 if read == written else 1)
        ended.wait(every)
