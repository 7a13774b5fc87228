"""Fixtures of the data room's tests."""

from tests.data.fake_clients import clients

__all__ = ["clients"]
