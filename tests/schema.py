"""JSON Schema, as much of it as our own schemas use; a keyword not known here is an error."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

Schema: TypeAlias = Mapping[str, Any]

SILENT = {
    "$defs", "$schema", "default", "description", "discriminator", "format", "title",
}  # fmt: skip
TYPES: Mapping[str, object] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def problems(value: object, schema: Schema, root: Schema | None = None, at: str = "") -> list[str]:
    """What the schema has against the JSON value; empty if it fits."""
    return list(_problems(value, schema, schema if root is None else root, at))


def _problems(value: Any, schema: Schema, root: Schema, at: str) -> Iterator[str]:
    for keyword, rule in schema.items():
        match keyword:
            case "$ref":
                yield from _problems(value, _definition(root, rule), root, at)
            case "type":
                names = [rule] if isinstance(rule, str) else rule
                if not any(_is(value, name) for name in names):
                    yield f"{at}: {value!r} is not of type {rule}"
            case "const" if value != rule:
                yield f"{at}: {value!r} is not {rule!r}"
            case "enum" if value not in rule:
                yield f"{at}: {value!r} is not one of {rule}"
            case "anyOf" | "oneOf":
                found = [problems(value, each, root, at) for each in rule]
                fitting = sum(not each for each in found)
                if fitting == 0 or (keyword == "oneOf" and fitting > 1):
                    yield f"{at}: {value!r} fits {fitting} of {keyword}: {found}"
            case "properties" if isinstance(value, dict):
                for name in rule.keys() & value:
                    yield from _problems(value[name], rule[name], root, f"{at}.{name}")
            case "required" if isinstance(value, dict):
                yield from (f"{at}: no {name}" for name in rule if name not in value)
            case "additionalProperties" if isinstance(value, dict):
                for name in value.keys() - schema.get("properties", {}).keys():
                    if any(re.search(form, name) for form in schema.get("patternProperties", ())):
                        continue
                    if rule is False:
                        yield f"{at}: {name} is not allowed"
                    elif rule is not True:
                        yield from _problems(value[name], rule, root, f"{at}.{name}")
            case "patternProperties" if isinstance(value, dict):
                for form, own in rule.items():
                    for name in filter(re.compile(form).search, value):
                        yield from _problems(value[name], own, root, f"{at}.{name}")
            case "propertyNames" if isinstance(value, dict):
                for name in value:
                    yield from _problems(name, rule, root, f"{at}.{name}")
            case "items" if isinstance(value, list):
                for index, each in enumerate(value[len(schema.get("prefixItems", ())) :]):
                    yield from _problems(each, rule, root, f"{at}[{index}]")
            case "prefixItems" if isinstance(value, list):
                for index, (each, own) in enumerate(zip(value, rule, strict=False)):
                    yield from _problems(each, own, root, f"{at}[{index}]")
            case "minItems" if isinstance(value, list) and len(value) < rule:
                yield f"{at}: fewer than {rule}"
            case "maxItems" if isinstance(value, list) and len(value) > rule:
                yield f"{at}: more than {rule}"
            case "minLength" if isinstance(value, str) and len(value) < rule:
                yield f"{at}: shorter than {rule}"
            case "pattern" if isinstance(value, str) and not re.search(rule, value):
                yield f"{at}: {value!r} is not like {rule}"
            case "minimum" if _is(value, "number") and value < rule:
                yield f"{at}: {value!r} is below {rule}"
            case "maximum" if _is(value, "number") and value > rule:
                yield f"{at}: {value!r} is above {rule}"
            case "exclusiveMinimum" if _is(value, "number") and value <= rule:
                yield f"{at}: {value!r} is not above {rule}"
            case _ if keyword not in SILENT | CHECKED:
                raise NotImplementedError(keyword)
            case _:
                pass


CHECKED = {
    "const", "enum", "properties", "required", "additionalProperties", "patternProperties",
    "propertyNames", "items", "prefixItems", "minItems", "maxItems", "minLength", "pattern",
    "minimum", "maximum", "exclusiveMinimum",
}  # fmt: skip


def _definition(root: Schema, reference: str) -> Schema:
    found = root
    for name in reference.removeprefix("#/").split("/"):
        found = found[name]
    return found


def _is(value: object, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, TYPES[name])  # type: ignore[arg-type]
