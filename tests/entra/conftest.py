"""The stand-in's own tests use the fixtures that it offers to others."""

from testkit.entra.fixtures import ask, client, entra, issuer

__all__ = ["ask", "client", "entra", "issuer"]
