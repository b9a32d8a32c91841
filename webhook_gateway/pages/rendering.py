"""How a page is made: templates in which everything is text, bounded, and the headers that hold a browser to it."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from churnguard_pipelines.foreign_text import on_one_line
from churnguard_pipelines.monitoring.health import every, span
from webhook_gateway.api.dashboard import alerts
from webhook_gateway.dashboard.principal import SCOPE, Principal
from webhook_gateway.pages.messages import forgotten, told

STATIC = Path(__file__).with_name("static")
MOST_SHOWN = 2_000
"""Characters of a text on one line, whoever wrote it."""
MOST_OF_A_PAYLOAD, DEEPEST_INDENTED = 8_000, 12
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
}


def rendered(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page of ours, for whoever asks. ``values``: for the template; ``as_of`` among them where its numbers are not of
    this moment."""
    principal: Principal = request.scope[SCOPE]
    now = datetime.now(UTC)
    message = told(request)
    values = {
        "principal": principal,
        "path": request.url.path,
        "here": f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path,
        "now": now,
        "as_of": now,
        "message": message,
    } | values
    if "raised" not in values:
        values["raised"] = alerts(principal, request)
    answer = HTMLResponse(_environment().get_template(template).render(values), status, HEADERS)
    if message is not None:
        forgotten(request, answer)
    return answer


def compile_templates() -> None:
    """So that the first who asks for a page does not wait for it."""
    for name in _environment().list_templates():
        _environment().get_template(name)


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("webhook_gateway.pages"),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": number,
        "ago": ago,
        "moment": moment,
        "span": lambda seconds: span(timedelta(seconds=seconds)),
        "every": lambda seconds: every(timedelta(seconds=seconds)),
        "size": size,
        "percent": lambda share: "–" if share is None else f"{share:.1%}",
        "payload": payload,
        "marked": marked,
        "said": said,
        "hue": lambda name: f"hue-{sum(name.encode()) % 4}",
        "words": lambda name: str(name).replace("_", " "),
    }
    made.globals |= {"static": static, "query": query}
    return made


def _shown(value: Any) -> Any:
    """Of every expression of every template: what is no markup of ours is one bounded line without control signs, and
    what is not there is a dash."""
    if value is None:
        return "–"
    return on_one_line(value, MOST_SHOWN) if isinstance(value, str) and not isinstance(value, Markup) else value


def number(value: float | None, most: int | None = None) -> str:
    """``most``: as far as it is counted; beyond that nobody looked."""
    if value is None:
        return "–"
    return f"{value:,.0f}+" if most is not None and value >= most else f"{value:,.0f}"


def size(value: float | None) -> str:
    """Bytes, for people."""
    if value is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:,.0f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def ago(moment: datetime | None, now: datetime) -> Markup:
    """How long ago, or until when; the moment itself on demand."""
    if moment is None:
        return Markup("–")
    passed = now - moment
    words = "just now" if abs(passed) < timedelta(seconds=2) else f"{span(abs(passed))} ago"
    return _time(moment, f"in {span(-passed)}" if passed < timedelta(seconds=-2) else words)


def moment(value: datetime | None) -> Markup:
    return Markup("–") if value is None else _time(value, f"{value.astimezone(UTC):%d %b %H:%M:%S}")


def _time(value: datetime, words: str) -> Markup:
    exactly = value.astimezone(UTC)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        f"{exactly:%Y-%m-%dT%H:%M:%SZ}", f"{exactly:%Y-%m-%d %H:%M:%S} UTC", words
    )


def payload(text: str, length: int | None = None) -> Markup:
    """What a source or a sender wrote, on lines of their own. ``length``: how many characters it has where ``text`` is
    only its beginning."""
    length = len(text) if length is None else length
    lines = (on_one_line(line, MOST_OF_A_PAYLOAD) for line in _indented(text[:MOST_OF_A_PAYLOAD]).split("\n"))
    cut = length > MOST_OF_A_PAYLOAD
    rest = Markup('<p class="quiet">The first {} of {} characters.</p>').format(MOST_OF_A_PAYLOAD, f"{length:,}")
    return Markup('<pre class="payload" tabindex="0">{}</pre>{}').format(
        escape("\n".join(lines)[: 2 * MOST_OF_A_PAYLOAD]), rest if cut else ""
    )


_PART = re.compile(r'"(?:\\.|[^"\\])*"?|[{}\[\],:]|[^ \t\r\n{}\[\],:"]+', re.DOTALL)


def _indented(text: str) -> str:
    """JSON, or its beginning, with each member on a line of its own and not a character of its values changed."""
    if not text.startswith(("{", "[")):
        return text
    lines, depth, line = [], 0, ""
    for part in _PART.findall(text):
        if part in "}]":
            lines.append(line)
            depth = max(0, depth - 1)
            line = "  " * min(depth, DEEPEST_INDENTED) + part
        elif part in "{[,":
            depth += part != ","
            lines.append(line + part)
            line = "  " * min(depth, DEEPEST_INDENTED)
        else:
            line += ": " if part == ":" else part
    return "\n".join(each for each in (*lines, line) if each.strip(" "))


def marked(text: str) -> Markup:
    """A sentence of ours, which may quote others: what stands between backticks is code."""
    parts = re.split("`([^`]+)`", on_one_line(text, MOST_SHOWN))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part) for place, part in enumerate(parts)
    )


def said(text: str | None, kind: str) -> Markup:
    """The same as a paragraph of this class; nothing where nothing is said."""
    return Markup('<p class="{}">{}</p>').format(kind, marked(text)) if text else Markup("")


@cache
def static(name: str) -> str:
    """The path of a file of ours; another one once its content is."""
    digest = sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?{digest}"


def query(path: str, values: Mapping[str, Any], **changed: Any) -> str:
    """A path with its query: ``values``, some of them changed, without those that are empty."""
    kept = {name: value for name, value in {**values, **changed}.items() if value not in (None, "")}
    return f"{path}?{urlencode(kept)}" if kept else path
