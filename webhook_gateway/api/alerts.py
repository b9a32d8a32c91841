"""`/api/alerts`: where alerts are sent, and what is not to be sent for a while. Operators only."""

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from churnguard_pipelines.model import Identifier
from churnguard_pipelines.monitoring import channels
from churnguard_pipelines.monitoring.causes import trouble_of
from churnguard_pipelines.monitoring.health import Severity
from churnguard_pipelines.store.control import alert_destinations as store_of
from webhook_gateway.api.access import Reader, TheStore, Writer
from webhook_gateway.dashboard.principal import Principal

router = APIRouter(prefix="/alerts", tags=["alerts"])


class NewDestination(BaseModel):
    """``url``: Apprise's, of e-mail, Slack, Teams, PagerDuty or a webhook; sealed. ``after_seconds``: how long
    something has to last before it is told."""

    model_config = ConfigDict(extra="forbid")
    destination_id: Identifier
    url: SecretStr
    least_severity: Severity = Severity.WARNING
    after_seconds: Annotated[int, Field(ge=0, le=7 * 86_400)] = 0


class Destination(BaseModel):
    """``shown``: what is shown of its URL. ``problem``: why the latest message was not taken."""

    destination_id: str
    shown: str
    least_severity: Severity
    after_seconds: int
    problem: str | None


class NewSilence(BaseModel):
    """``subject``: an integration's or a stream's id, ``trouble``: a kind of alert, with all that is the same trouble;
    any if omitted."""

    model_config = ConfigDict(extra="forbid")
    subject: Identifier | None = None
    trouble: Identifier | None = None
    seconds: Annotated[int, Field(ge=60, le=366 * 86_400)]
    reason: Annotated[str, Field(min_length=1, max_length=500)]


class Silence(BaseModel):
    silence_id: int
    subject: str | None
    trouble: str | None
    until: datetime
    reason: str


def operator(principal: Reader) -> Principal:
    if not principal.is_operator:
        raise HTTPException(403, "Where alerts are sent is for operators.")
    return principal


def writing_operator(principal: Writer) -> Principal:
    return operator(principal)


Operator = Annotated[Principal, Depends(operator)]
WritingOperator = Annotated[Principal, Depends(writing_operator)]
DestinationId = Annotated[Identifier, Path()]


@router.get("/destinations")
def destinations(principal: Operator, store: TheStore) -> list[Destination]:
    """Without what is secret of their URLs."""
    return [Destination.model_validate(each, from_attributes=True) for each in store_of.list_destinations(store)]


@router.post("/destinations", status_code=201)
def add(new: NewDestination, principal: WritingOperator, store: TheStore) -> Destination:
    """It is told from the next look on; nothing is sent to try it."""
    url = new.url.get_secret_value()
    made = store_of.Destination(
        new.destination_id, channels.check(url), new.least_severity.value, new.after_seconds, url=url
    )
    store_of.add_destination(store, made, principal.id)
    return Destination.model_validate(made, from_attributes=True)


@router.delete("/destinations/{destination_id}", status_code=204)
def remove(destination_id: DestinationId, principal: WritingOperator, store: TheStore) -> Response:
    """It is told of nothing more."""
    store_of.remove_destination(store, destination_id, principal.id)
    return Response(status_code=204)


@router.post("/destinations/{destination_id}/test", status_code=204)
def try_out(destination_id: DestinationId, principal: WritingOperator, store: TheStore) -> Response:
    """Sends a message that says that it is a test."""
    channels.send_test(store_of.get_destination(store, destination_id).url)
    return Response(status_code=204)


@router.get("/silences")
def silences(principal: Operator, store: TheStore) -> list[Silence]:
    """Those that hold now."""
    return [Silence.model_validate(each, from_attributes=True) for each in store_of.list_silences(store)]


@router.post("/silences", status_code=201)
def silence(new: NewSilence, principal: WritingOperator, store: TheStore) -> Silence:
    """Nothing of it is sent meanwhile, nor its end."""
    length = timedelta(seconds=new.seconds)
    trouble = None if new.trouble is None else trouble_of(new.trouble)
    number = store_of.silence(store, new.subject, trouble, length, new.reason, principal.id)
    return next(
        Silence.model_validate(each, from_attributes=True)
        for each in store_of.list_silences(store)
        if each.silence_id == number
    )


@router.delete("/silences/{silence_id}", status_code=204)
def end_silence(
    silence_id: Annotated[int, Path(ge=1, le=2**62)], principal: WritingOperator, store: TheStore
) -> Response:
    """What stands is told from the next look on."""
    store_of.end_silence(store, silence_id, principal.id)
    return Response(status_code=204)
