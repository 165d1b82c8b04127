"""Azure credentials for pods."""
