"""Gives the pods of annotated ServiceAccounts an Azure identity without a secret."""
