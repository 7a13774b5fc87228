"""What every connector of the folder promises."""

import importlib
import pkgutil

import pytest
import torch

from diptych.core.config import from_json, to_json
from diptych.models import connectors
from diptych.models.connectors.connector import ConnectorConfig, Given

NAMES = [m.name for m in pkgutil.iter_modules(connectors.__path__) if m.name != "connector"]
GIVEN = Given(tokens=16, width=12, side=4)


def config_of(name: str) -> ConnectorConfig:
    module = importlib.import_module(f"diptych.models.connectors.{name}")
    found = [
        c
        for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, ConnectorConfig) and c.__module__ == module.__name__ and not c.abstract
    ]
    assert len(found) == 1, f"{name} must hold one ConnectorConfig"
    return found[0]()


@pytest.mark.parametrize("name", NAMES)
def test_promises(name):
    config = config_of(name)
    assert from_json(to_json(config)) == config
    connector = config.build(GIVEN, 24).train()
    x = torch.randn(3, 16, 12, requires_grad=True)
    out = connector(x)
    assert out.shape == (3, connector.tokens, 24)
    (out * torch.randn_like(out)).sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None for p in connector.parameters())
    assert connector.decay_free() <= dict(connector.named_parameters()).keys()
    alone = connector.eval()(x[:1])
    torch.testing.assert_close(alone, connector(x)[:1], atol=1e-5, rtol=1e-5)
