"""What a button's form says: which of the things on its page are meant."""

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import Depends, HTTPException, Request

LARGEST = 2**63


@dataclass(frozen=True, slots=True)
class Choice:
    """``ids``: as they were given; ``numbers``: the same where they are numbers. Empty for all."""

    ids: list[str]

    @property
    def numbers(self) -> list[int]:
        if any(not (each.isascii() and each.isdigit() and len(each) < 20 and int(each) < LARGEST) for each in self.ids):
            raise HTTPException(422, "An id here is a number.")
        return [int(each) for each in self.ids]


async def _chosen(request: Request) -> Choice:
    try:
        given = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=100)
    except ValueError:
        raise HTTPException(422, "A form here has at most 100 fields.") from None
    return Choice(given.get("id", []))


Chosen = Annotated[Choice, Depends(_chosen)]
