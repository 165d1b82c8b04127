"""Gives the pods of annotated ServiceAccounts an Azure identity without a secret."""

__version__ = "0.1.0"
