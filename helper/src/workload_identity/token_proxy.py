"""The token proxy of AKS identity bindings: where a pod's token is traded in place of Entra.

A pod of an identity binding finds its address in AZURE_KUBERNETES_TOKEN_PROXY. The request is Entra's own,
sent to the proxy's host below the proxy's path; there is no way round it to Entra.

Sources: Azure/azure-workload-identity v1.6.0, custom token endpoints; azure-identity 1.27.0,
`enable_azure_proxy`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

URL = "AZURE_KUBERNETES_TOKEN_PROXY"
SERVER_NAME = "AZURE_KUBERNETES_SNI_NAME"
CA_FILE = "AZURE_KUBERNETES_CA_FILE"
CA_DATA = "AZURE_KUBERNETES_CA_DATA"


class TokenProxy:
    """A token proxy and whom to trust there.

    Attributes:
        url: Its https URL, without a slash at the end.
        server_name: What its certificate must name, and the name sent in the TLS handshake.
    """

    def __init__(self, url: str, server_name: str, *, ca_file: str, ca_data: str) -> None:
        """Take settings; an empty one is not there.

        Raises:
            ValueError: A setting that cannot work; the message names its variable.
        """
        self.url = _checked(url)
        self.server_name = server_name
        self._ca_file = ca_file
        self._pem = ca_data
        if ca_file and ca_data:
            raise ValueError(f"{CA_FILE} and {CA_DATA} are both set: one of them is wanted")
        if ca_file:
            self._pem = _read(ca_file)
            if not self._pem:
                raise ValueError(f"{CA_FILE}={ca_file!r}: certificates in PEM were wanted, found nothing")
        if self._pem:
            self.trust()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenProxy) and self._said() == other._said()

    def __hash__(self) -> int:
        return hash(self._said())

    def _said(self) -> tuple[str, ...]:
        return self.url, self.server_name, self._ca_file, "" if self._ca_file else self._pem

    def address(self, url: str) -> str:
        """Return where a request for this URL goes: to the proxy, below its path."""
        return f"{self.url}/{url.partition('://')[2].partition('/')[2]}"

    def trust(self) -> ssl.SSLContext:
        """Return whom to trust: the proxy's own authorities alone, or the system's where it has none.

        A file that is just being replaced (missing, empty, half written) leaves those that were read before.

        Raises:
            ValueError: What is given is no PEM.
        """
        pem = (_read(self._ca_file) if self._ca_file else "") or self._pem
        try:
            context = self._context(pem)
        except ValueError:
            if pem == self._pem:
                raise
            return self._context(self._pem)
        self._pem = pem
        return context

    def _context(self, pem: str) -> ssl.SSLContext:
        import ssl  # noqa: PLC0415 - for a request, or to check what is given

        # Between certificates there may be remarks, in any letters. A blank: nothing at all would be taken
        # for "the system's".
        data = f"{pem.encode('ascii', 'ignore').decode()} " if pem else None
        try:
            return ssl.create_default_context(cadata=data)
        except ssl.SSLError as failure:
            raise ValueError(f"{CA_FILE if self._ca_file else CA_DATA}: no certificates in PEM") from failure


def token_proxy(environment: Mapping[str, str], *, wanted: bool | None) -> TokenProxy | None:
    """Return the token proxy of a pod; None when its token goes to Entra.

    Args:
        environment: The pod's variables.
        wanted: None: where there is one. False: never. True: where there is one, and settings without an
            address are an error.

    Raises:
        ValueError: A setting that cannot work.
    """
    url, server_name, ca_file, ca_data = (
        environment.get(name, "") for name in (URL, SERVER_NAME, CA_FILE, CA_DATA)
    )
    if wanted is False:
        return None
    if not url:
        if wanted and (server_name or ca_file or ca_data):
            raise ValueError(f"{URL} is not set, but other settings of a token proxy are")
        return None
    return TokenProxy(url, server_name, ca_file=ca_file, ca_data=ca_data)


def _checked(url: str) -> str:
    scheme, _, rest = url.partition("://")
    host = rest.partition("/")[0]
    wrong = ""
    if scheme.lower() != "https" or not host:
        wrong = "an https address was wanted"
    elif "@" in host:
        wrong = "it must not name a user"
    elif "?" in rest:
        wrong = "it must not have a query"
    elif "#" in rest:
        wrong = "it must not have a fragment"
    if wrong:
        raise ValueError(f"{URL}={url!r}: {wrong}")
    return f"https://{rest.rstrip('/')}"


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:  # noqa: PTH123 - pathlib is no light import
            return file.read().strip()
    except OSError:
        return ""
