"""What a page says once after something was done: it travels in a sealed cookie to the page that comes next."""

import json
from dataclasses import asdict, dataclass
from datetime import timedelta

from fastapi import Request
from fastapi.responses import RedirectResponse, Response

from churnguard_pipelines.errors import ChurnGuardError, SecretsUnreadable
from churnguard_pipelines.store.secrets import Vault

COOKIE = "churnguard_said"
LIFETIME = timedelta(minutes=1)
MOST_CHARACTERS = 1_000  # of a cookie, sealed, some 2,000


@dataclass(frozen=True, slots=True)
class Message:
    """``kind``: ``done`` or ``wrong``; ``remedy``: what to do, where something is wrong."""

    kind: str
    text: str
    remedy: str | None = None


def done(request: Request, back: str, text: str) -> Response:
    """Back to a page of ours, which says that it was done."""
    return _redirect(request, back, Message("done", text))


def failed(request: Request, back: str, error: ChurnGuardError) -> Response:
    """Back to a page of ours, which says why not, and what to do."""
    return _redirect(request, back, Message("wrong", error.message, error.remedy))


def told(request: Request) -> Message | None:
    """What was said before; nothing that we did not say."""
    sealed = request.cookies.get(COOKIE)
    if not sealed:
        return None
    try:
        return Message(**json.loads(_vault(request).open(sealed)))
    except SecretsUnreadable:
        return None


def forgotten(request: Request, answer: Response) -> None:
    answer.delete_cookie(COOKIE, secure=request.app.state.secure, httponly=True, samesite="strict")


def _redirect(request: Request, back: str, message: Message) -> Response:
    cut = {name: value and value[:MOST_CHARACTERS] for name, value in asdict(message).items()}
    answer = RedirectResponse(back, status_code=303)
    answer.set_cookie(
        COOKIE, _vault(request).seal(json.dumps(cut)), max_age=int(LIFETIME.total_seconds()), httponly=True,
        samesite="strict", secure=request.app.state.secure,
    )  # fmt: skip
    return answer


def _vault(request: Request) -> Vault:
    vault: Vault = request.app.state.engine.store.vault
    return vault.for_purpose("page")
