"""Frozen, checked settings: one base class, its JSON form, and `a.b.c=value` overrides that say "did you mean".

A config is a value: it can be printed, compared, written to a run and read back equal. Where a field may hold any of
a family (an image tower, an objective, an eval), its type is the family's base class, and the JSON form names the
class that was meant under the key "kind". Nothing is registered: the kind is the class's import path, and only
packages that the user trusts are ever imported (`diptych` and those named in ``$DIPTYCH_TRUST``).
"""

import difflib
import importlib
import json
import os
import pkgutil
import types
import typing
from typing import Any, ClassVar, TypeVar

import pydantic
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from diptych.core.errors import ConfigError

ConfigType = TypeVar("ConfigType", bound="Config")


class Config(BaseModel):
    """Base of every settings class: frozen, closed to unknown fields, never holding code."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=False, protected_namespaces=(), validate_default=True
    )

    abstract: ClassVar[bool] = False
    """True in the base class of a family (declare it in the class body): such a config is named but never made."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_explain(type(self), error)) from None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "abstract" not in cls.__dict__:
            cls.abstract = False

    def replace(self: ConfigType, **values: Any) -> ConfigType:
        """A copy with some fields set, checked anew."""
        return type(self)(**{**{k: getattr(self, k) for k in type(self).model_fields}, **values})

    @classmethod
    def kind(cls) -> str:
        """The import path that names this class in a file."""
        return f"{cls.__module__}.{cls.__qualname__}"


def to_dict(value: Any) -> Any:
    """The JSON form of a config: every nested config is a dictionary with its "kind" first. Fields that are declared
    with exclude=True are not part of it, being kept elsewhere."""
    if isinstance(value, Config):
        kept = [k for k, field in type(value).model_fields.items() if not field.exclude]
        return {"kind": value.kind(), **{k: to_dict(getattr(value, k)) for k in kept}}
    if isinstance(value, dict):
        return {str(k): to_dict(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_dict(v) for v in value]
    return value


def to_json(config: Config) -> str:
    """`to_dict` as indented JSON text."""
    return json.dumps(to_dict(config), indent=2, ensure_ascii=False) + "\n"


def from_dict(value: Any) -> Any:
    """The config that `to_dict` wrote. Refuses unknown fields and kinds outside the trusted packages."""
    if isinstance(value, list):
        return tuple(from_dict(v) for v in value)
    if isinstance(value, dict):
        if "kind" not in value:
            return {k: from_dict(v) for k, v in value.items()}
        cls = find_kind(value["kind"])
        return cls(**{k: from_dict(v) for k, v in value.items() if k != "kind"})
    return value


def from_json(text: str) -> Any:
    """The config that `to_json` wrote."""
    try:
        return from_dict(json.loads(text))
    except json.JSONDecodeError as error:
        raise ConfigError(f"a config file must be JSON; got {error}. Write it with diptych, or mend it.") from None


def find_kind(kind: str) -> type[Config]:
    """The config class that an import path names, if its package is trusted."""
    trusted = {"diptych", *filter(None, os.environ.get("DIPTYCH_TRUST", "").split(","))}
    module, _, name = kind.rpartition(".")
    if module.split(".")[0] not in trusted:
        raise ConfigError(
            f"a config's kind must come from a trusted package ({', '.join(sorted(trusted))}); got {kind!r}. "
            f"If you trust it, set DIPTYCH_TRUST={module.split('.')[0]}."
        )
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise ConfigError(f"a config's kind must name a class; got {kind!r}, which is not there.") from None
    if not (isinstance(cls, type) and issubclass(cls, Config)):
        raise ConfigError(f"a config's kind must name a Config; got {kind!r}.")
    return cls


def override(config: Config, assignments: list[str]) -> Config:
    """`config` with ``path.to.field=value`` assignments applied in order, each checked against the field's type.

    What fields demand of each other is checked once all are set, so that a width and its heads can change together.

    A value is read as JSON where that parses and as plain text where it does not. A field that holds a family of
    configs (``model.image=modified_resnet``) takes the name of a sibling module and becomes that class's default;
    KIND:PATH (``model.image=hf:FOLDER``) is the one of a module KIND_* that reads PATH. A field that holds several
    takes a list of names (``evals=["retrieval","zero_shot"]``); fields of these have numbers: ``evals.1.split=test``.
    """
    for text in assignments:
        path, eq, raw = text.partition("=")
        if not eq or not path:
            raise ConfigError(f"an override must be field.sub=value; got {text!r}. Example: train.lr=3e-4")
        config = _set(config, path.split("."), raw, path)
    checked = _checked(config)
    assert isinstance(checked, Config)
    return checked


def flatten(config: Config, prefix: str = "") -> dict[str, Any]:
    """Every leaf of a config by its dotted path, as golden files and the report print it."""
    leaves: dict[str, Any] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Config):
            leaves[f"{prefix}{name}"] = value.kind().removeprefix("diptych.")
            leaves |= flatten(value, f"{prefix}{name}.")
        else:
            leaves[f"{prefix}{name}"] = to_dict(value)
    return leaves


def _set(config: Config, path: list[str], raw: str, whole: str) -> Config:
    name, rest = path[0], path[1:]
    known = type(config).model_fields
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"It has: {', '.join(known)}."
        raise ConfigError(f"{whole} must name a field of {type(config).__name__}; got {name!r}. {hint}")
    current = getattr(config, name)
    if len(rest) > 1 and isinstance(current, tuple) and rest[0].isdigit():
        place = int(rest[0])
        if place >= len(current) or not isinstance(current[place], Config):
            raise ConfigError(f"{whole} must name one of the {len(current)} of {name}, counted from 0; got {place}.")
        item = _set(current[place], rest[1:], raw, whole)
        return config.model_copy(update={name: (*current[:place], item, *current[place + 1 :])})
    if rest:
        if current is None:  # a field of what is not there yet makes it
            kinds = [t for t in _members(known[name].annotation) if isinstance(t, type) and issubclass(t, Config)]
            current = kinds[0]() if len(kinds) == 1 and not kinds[0].abstract else None
        if not isinstance(current, Config):
            raise ConfigError(
                f"{whole} must name a field of a config; but {name} is {current!r}. Set {name} itself first."
            )
        return config.model_copy(update={name: _set(current, rest, raw, whole)})
    return config.model_copy(update={name: _parse(known[name], current, raw, whole)})


def _checked(value: Any) -> Any:
    if isinstance(value, Config):
        return type(value)(**{k: _checked(getattr(value, k)) for k in type(value).model_fields})
    return tuple(_checked(v) for v in value) if isinstance(value, tuple) else value


def _parse(field: FieldInfo, current: Any, raw: str, whole: str) -> Any:
    annotation = field.annotation
    families = [t for t in _members(annotation) if isinstance(t, type) and issubclass(t, Config)]
    if families and not (raw == "null" and type(None) in _members(annotation)):
        if raw.lstrip().startswith("{"):
            return from_json(raw)
        return _by_name(families[0], current, raw, whole)
    try:
        value = json.loads(raw)
    except json.JSONDecodeError:
        value = raw
    members = [t for t in typing.get_args(annotation) if isinstance(t, type) and issubclass(t, Config)]
    if typing.get_origin(annotation) is tuple and members and isinstance(value, list):
        value = tuple(_by_name(members[0], None, v, whole) if isinstance(v, str) else from_dict(v) for v in value)
    if typing.get_origin(annotation) is tuple and not members and isinstance(value, str):
        value = (value,)  # one word needs no brackets: train.freeze=image
    adapter: TypeAdapter[Any] = TypeAdapter(typing.Annotated[annotation, field])  # type: ignore[arg-type]
    try:
        return adapter.validate_python(value)
    except ValidationError as first:
        try:
            return adapter.validate_python(raw)  # a path or a name that happens to look like a number
        except ValidationError:
            raise ConfigError(f"{whole} must be {_constraint(first)}; got {raw!r}.") from None


def _by_name(family: type[Config], current: Any, raw: str, whole: str) -> Config:
    package = (type(current).__module__ if isinstance(current, Config) else family.__module__).rpartition(".")[0]
    names = [m.name for m in pkgutil.iter_modules(importlib.import_module(package).__path__)]
    kind, colon, path = raw.partition(":")
    found = [n for n in names if n.startswith(f"{kind}_")] if colon else [n for n in names if n == raw]
    if not found:
        close = difflib.get_close_matches(raw, names, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(names)}."
        raise ConfigError(f"{whole} must name a module of {package}; got {raw!r}. {hint}")
    for name in found:
        module = importlib.import_module(f"{package}.{name}")
        for cls in vars(module).values():
            own = isinstance(cls, type) and issubclass(cls, family) and cls.__module__ == module.__name__
            if own and not cls.abstract:
                return cls(path=path) if colon else cls()
    raise ConfigError(f"{whole} must name a module that holds a {family.__name__}; {raw!r} holds none.")


def _members(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _constraint(error: ValidationError) -> str:
    message = error.errors()[0]["msg"]
    return message.removeprefix("Input should be ").removeprefix("Value error, ")


def _explain(cls: type[Config], error: ValidationError) -> str:
    lines = []
    for e in error.errors():
        path = ".".join(str(p) for p in e["loc"])
        if e["type"] == "extra_forbidden":
            close = difflib.get_close_matches(str(e["loc"][-1]), cls.model_fields, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else f" It has: {', '.join(cls.model_fields)}."
            lines.append(f"{cls.__name__} must have only fields that it knows; got {path!r}.{hint}")
        elif e["type"] == "value_error":  # a validator of ours that speaks in whole sentences
            lines.append(str(e["msg"]).removeprefix("Value error, "))
        else:
            got = "nothing" if e["type"] == "missing" else repr(e["input"])
            what = str(e["msg"]).removeprefix("Input should be ")
            lines.append(f"{cls.__name__}.{path} must be {what}; got {got}.")
    return "\n".join(lines)


__all__ = ["Config", "find_kind", "flatten", "from_dict", "from_json", "override", "pydantic", "to_dict", "to_json"]
