"""What pydantic finds wrong with a field, for whoever wrote it. Never repeats a value, which may be a secret."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

_MEMBER = re.compile(r"<\w+\.\w+: ('[^']*')>")
"""How pydantic writes an enumeration's member."""


def problem(item: ErrorDetails, known: Iterable[str]) -> str:
    """Without its place. ``known``: the fields that are where it is."""
    if item["type"] == "string_type":
        return "Input should be a valid string, in quotation marks"
    if item["type"] != "extra_forbidden":
        return _MEMBER.sub(r"\1", item["msg"].removeprefix("Value error, "))
    near = get_close_matches(str(item["loc"][-1]), [*known], n=1)
    return f"there is no such field{f' (`{near[0]}` is one)' if near else ''}"


def described(model: type[BaseModel], error: ValidationError) -> str:
    """All that is wrong with a model's fields, each with its place."""
    return "; ".join(
        f"{'.'.join(map(str, item['loc']))}: {problem(item, fields_at(model, item['loc']))}"
        for item in error.errors(include_input=False)
    )


def fields_at(model: type[BaseModel], place: Iterable[int | str]) -> list[str]:
    """Of the model in which this place is, which is empty where the whole is wrong; none if that is no model."""
    above = list(place)[:-1]
    found: type[BaseModel] | None = model
    for step in above:
        if found is not None and isinstance(step, str):
            field = found.model_fields.get(step)
            found = None if field is None else _model_in(field.annotation)
    return [] if found is None else list(found.model_fields)


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
