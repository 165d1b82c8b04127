"""A user's program in ten lines: get a token, show what is in it."""

import base64
import json

from workload_identity import WorkloadIdentityCredential

with WorkloadIdentityCredential() as credential:
    token = credential.get_token("https://storage.azure.com/.default").token
claims = token.split(".")[1]
print(json.dumps(json.loads(base64.urlsafe_b64decode(claims + "==")), indent=2))
