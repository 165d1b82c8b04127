"""What people and their devices see of Entra: the sign-in page, the start of a device's sign-in, user realms.

There is no real page: who is said to be present signs in at once. A federation's own service, which checks
passwords by WS-Trust, is here too.
"""

import html
import time
import urllib.parse
import uuid
from collections.abc import Mapping
from xml.sax.saxutils import escape, unescape

from aiohttp import web

from testkit.entra.errors import RequestRefused
from testkit.entra.people import Asked
from testkit.entra.service import Service

_SAML = "urn:oasis:names:tc:SAML:1.0:assertion"
_TRUST = "http://docs.oasis-open.org/ws-sx/ws-trust/200512"


def add_pages(application: web.Application, service: Service) -> None:
    """Give a web application the pages."""
    pages = _Pages(service)
    application.add_routes(
        [
            web.post("/{tenant}/oauth2/v2.0/devicecode", pages.device_code),
            web.get("/{tenant}/oauth2/v2.0/authorize", pages.authorize),
            web.get("/common/userrealm/{username}", pages.user_realm),
            web.post("/federation/services/trust/13/usernamemixed", pages.federation),
        ]
    )


class _Pages:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def device_code(self, request: web.Request) -> web.Response:
        """Begin a device's sign-in (RFC 8628, 3.1 and 3.2)."""
        form = {name: str(value) for name, value in (await request.post()).items()}
        client_id = form.get("client_id", "")
        if not client_id or not form.get("scope"):
            return self._refused(RequestRefused(900144, name="scope" if client_id else "client_id"))
        if not self._service.knows(client_id):
            tenant = request.match_info["tenant"]
            return self._refused(RequestRefused(700016, client_id=client_id, tenant=tenant))
        people = self._service.people
        device_code, begun = people.begin_device(client_id, form["scope"], time.time())
        page = f"{self._service.authority}/devicelogin"
        return web.json_response(
            {
                "device_code": device_code,
                "user_code": begun.user_code,
                "verification_uri": page,
                "expires_in": people.device_code_life,
                "interval": people.interval,
                "message": f"Open {page} and enter the code {begun.user_code} to sign in.",
            }
        )

    async def authorize(self, request: web.Request) -> web.Response:
        """Show the sign-in page (RFC 6749, 4.1.1; RFC 7636, 4.3)."""
        asked = request.query
        people = self._service.people
        if not self._service.knows(asked.get("client_id", "")):
            return web.Response(status=400, text="AADSTS700016: no such application")
        redirect_uri = asked.get("redirect_uri", "")
        if urllib.parse.urlsplit(redirect_uri).hostname not in {"localhost", "127.0.0.1"}:
            return web.Response(status=400, text="AADSTS50011: no such redirect URI")
        if asked.get("response_type") != "code" or asked.get("code_challenge_method") != "S256":
            return web.Response(status=400, text="AADSTS900144: a code with a S256 challenge is wanted")
        account = None if people.present is None else people.account(people.present)
        if account is None:
            return web.Response(text="Nobody is here to sign in.")
        answer = {"state": asked.get("state", "")}
        if people.refuses:
            answer |= {"error": "access_denied", "error_description": "AADSTS65004: The user said no."}
        else:
            code = self._service.sign_ins.code(asked["client_id"], redirect_uri, account.user, time.time())
            people.shown(code, Asked(asked.get("code_challenge", ""), asked.get("nonce", "")))
            answer |= {
                "code": code,
                "client_info": account.user.client_info,
                "session_state": str(uuid.uuid4()),
            }
        return _sent_back(redirect_uri, answer, in_form=asked.get("response_mode") == "form_post")

    async def user_realm(self, request: web.Request) -> web.Response:
        """Tell who checks a user's password."""
        name = request.match_info["username"]
        account = self._service.people.account(name)
        realm = {"ver": "1.0", "domain_name": name.rpartition("@")[2], "cloud_instance_name": "standin"}
        if account is None:
            return web.json_response({**realm, "account_type": "Unknown"})
        if not account.federated:
            return web.json_response({**realm, "account_type": "Managed"})
        place = f"{self._service.authority}/federation/services/trust/13/usernamemixed"
        return web.json_response(
            {
                **realm,
                "account_type": "Federated",
                "federation_protocol": "WSTrust",
                "federation_active_auth_url": place,
                "cloud_audience_urn": "urn:federation:MicrosoftOnline",
            }
        )

    async def federation(self, request: web.Request) -> web.Response:
        """Check a name and a password as a federation does (WS-Trust 1.3), and state who it is."""
        asked = await request.text()
        name = unescape(asked.partition("<wsse:Username>")[2].partition("</wsse:Username>")[0])
        password = unescape(asked.partition("<wsse:Password>")[2].partition("</wsse:Password>")[0])
        kind = "application/soap+xml"
        try:
            self._service.people.signed_in(name, password)
        except RequestRefused:
            return web.Response(status=500, content_type=kind, text=_FAULT)
        return web.Response(content_type=kind, text=_STATED.replace("NAME", escape(name)))

    def _refused(self, refusal: RequestRefused) -> web.Response:
        ids = {"trace_id": str(uuid.uuid4()), "correlation_id": str(uuid.uuid4())}
        body = refusal.body(authority=self._service.authority, now=time.time(), **ids)
        return web.json_response(body, status=refusal.status)


_ENVELOPE = "http://www.w3.org/2003/05/soap-envelope"
_FAULT = (
    f'<s:Envelope xmlns:s="{_ENVELOPE}"><s:Body><s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode>'
    "<s:Value>a:FailedAuthentication</s:Value></s:Subcode></s:Code><s:Reason><s:Text>MSIS3068: who is that?"
    "</s:Text></s:Reason></s:Fault></s:Body></s:Envelope>"
)
_STATED = (
    f'<s:Envelope xmlns:s="{_ENVELOPE}"><s:Body><trust:RequestSecurityTokenResponseCollection'
    f' xmlns:trust="{_TRUST}"><trust:RequestSecurityTokenResponse><trust:RequestedSecurityToken>'
    f'<saml:Assertion xmlns:saml="{_SAML}"><saml:NameIdentifier>NAME</saml:NameIdentifier></saml:Assertion>'
    f"</trust:RequestedSecurityToken><trust:TokenType>{_SAML}</trust:TokenType>"
    "</trust:RequestSecurityTokenResponse></trust:RequestSecurityTokenResponseCollection></s:Body></s:Envelope>"
)


def _sent_back(redirect_uri: str, answer: Mapping[str, str], *, in_form: bool) -> web.Response:
    if not in_form:
        return web.Response(
            status=302, headers={"Location": f"{redirect_uri}?{urllib.parse.urlencode(answer)}"}
        )
    inputs = "".join(
        f'<input type="hidden" name="{name}" value="{html.escape(value)}">' for name, value in answer.items()
    )
    page = f'<form method="POST" action="{html.escape(redirect_uri)}">{inputs}</form>'
    return web.Response(text=f"<!DOCTYPE html><body>{page}</body>", content_type="text/html")
