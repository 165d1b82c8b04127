"""Azure Pipelines' OIDC endpoint, where a running job gets tokens for its service connections.

Source: learn.microsoft.com/rest/api/azure/devops/distributedtask/oidctoken/create; for what the tokens state,
learn.microsoft.com/azure/devops/pipelines/release/configure-workload-identity.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme
from aiohttp import web

from testkit import loopback

_VERSION = "7.1"
_SIGN_IN = "<html><body>Azure DevOps Services | Sign In</body></html>"


@dataclass
class Job:
    """A running job.

    Attributes:
        url: What it finds in SYSTEM_OIDCREQUESTURI.
        access_token: Its System.AccessToken.
        connections: For each service connection that it may use, what makes its token.
        ca_file: The authority behind the endpoint's certificate.
        requests: Paths and queries asked for so far.
        answer: In place of the token's, if that is wanted.
    """

    access_token: str
    connections: dict[str, Callable[[], str]]
    ca_file: Path
    url: str = ""
    requests: list[str] = field(default_factory=list)
    answer: Callable[[], web.Response] | None = None

    async def token(self, request: web.Request) -> web.Response:
        """Answer a token of a service connection, if the job may have it."""
        self.requests.append(request.path_qs)
        if self.answer is not None:
            return self.answer()
        if request.headers.get("Authorization") != f"Bearer {self.access_token}":
            if request.headers.get("X-TFS-FedAuthRedirect") == "Suppress":
                return web.Response(status=401, text=_SIGN_IN, content_type="text/html")
            return web.Response(status=302, headers={"Location": "https://signin.example/"})
        if request.method != "POST" or request.query.get("api-version") != _VERSION or await request.read():
            return web.json_response({"message": "An empty POST of a known version is wanted."}, status=400)
        connection = self.connections.get(request.query.get("serviceConnectionId", ""))
        if connection is None:
            return web.json_response({"message": "No such service connection."}, status=404)
        return web.json_response({"oidcToken": connection()})


@contextmanager
def running_job(folder: Path, access_token: str, **connections: Callable[[], str]) -> Iterator[Job]:
    """Run a job's endpoint.

    Args:
        folder: Where `ca_file` is written.
        access_token: The job's.
        connections: What makes the token of each service connection.
    """
    authority = trustme.CA(organization_name="Azure Pipelines stand-in")
    job = Job(access_token, connections, folder / "pipelines-ca.pem")
    authority.cert_pem.write_to_path(job.ca_file)
    application = web.Application()
    application.router.add_route("*", "/organization/project/_apis/oidctoken", job.token)
    with loopback.listening("127.0.0.1", 0) as listener:
        job.url = f"{loopback.address(listener)}/organization/project/_apis/oidctoken"
        with loopback.serving(application, listener, loopback.server_tls(authority, "127.0.0.1")):
            yield job
