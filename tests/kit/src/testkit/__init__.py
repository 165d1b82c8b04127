"""The test kit: a real control plane, a token service that verifies, and the demo."""
