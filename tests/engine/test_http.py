"""The HTTP client against a provider on loopback that behaves well and badly."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from threading import Event
from typing import Any

import httpx
import pytest

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.auth import ApiKey, Bearer
from churnguard_pipelines.engine.clock import Clock
from churnguard_pipelines.engine.http import HttpClient, Response
from churnguard_pipelines.engine.retry import RetryPolicy
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    InvalidConfiguration,
    PermissionMissing,
    ProviderError,
    ProviderMisbehaved,
    ProviderUnavailable,
    RateLimited,
    RequestRefused,
    Stopped,
)
from churnguard_pipelines.ports import free_port
from tests.engine.conftest import FakeClock
from tests.engine.loopback import Answer, Api, Asked, as_json, serve

KEY = "rk_live_canary_0123456789"
MakeClient = Callable[..., HttpClient]


@pytest.fixture
def client(clock: FakeClock) -> Iterator[MakeClient]:
    made: list[HttpClient] = []

    def make(**options: Any) -> HttpClient:
        defaults: dict[str, Any] = {
            "provider_title": "Stripe",
            "retry": RetryPolicy(attempts=2, uniform=lambda _low, high: high),
            "clock": clock,
            "timeout": 5.0,
        }
        made.append(HttpClient(AddressGuard("acme-stripe", restricted=False), **defaults | options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def html(status: int = 200) -> Answer:
    page = b"<html><head><title>We'll be back soon</title></head><body>maintenance</body></html>"
    return Answer(status, page, {"Content-Type": "text/html; charset=utf-8"})


class TestAnswers:
    def test_an_answer_arrives_whole_and_parsed(self, api: Api, client: MakeClient) -> None:
        api.answers = [as_json({"object": "list", "data": [1, 2]}, X_Request_Id="req_1")]
        answer = client().request("GET", f"{api.url}/v1/customers", params={"limit": 2}, expect_json=True)
        assert (answer.status, answer.json()) == (200, {"object": "list", "data": [1, 2]})
        assert answer.headers["x-request-id"] == answer.headers["X-Request-ID"] == "req_1"
        assert api.asked[0].query == {"limit": ["2"]}

    def test_connections_are_reused_and_answers_may_be_compressed(self, api: Api, client: MakeClient) -> None:
        body = gzip.compress(b'{"a": "' + b"x" * 10_000 + b'"}')
        api.answers = [Answer(200, body, {"Content-Type": "application/json", "Content-Encoding": "gzip"})]
        http = client()
        sizes = [len(http.request("GET", api.url).json()["a"]) for _ in range(3)]
        assert sizes == [10_000] * 3
        assert "gzip" in api.asked[0].headers["Accept-Encoding"]
        assert len({asked.connection for asked in api.asked}) == 1
        assert (http.metrics.calls, http.metrics.bytes_received) == (3, 3 * len(body))

    def test_many_threads_share_one_client(self, api: Api, client: MakeClient) -> None:
        http = client()
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda number: http.request("GET", f"{api.url}/{number}"), range(40)))
        assert {answer.status for answer in answers} == {200}
        assert sorted(asked.path for asked in api.asked) == sorted(f"/{number}" for number in range(40))
        assert http.metrics.calls == 40
        assert len({asked.connection for asked in api.asked}) <= 8

    def test_statuses_the_caller_allows_are_answers(self, api: Api, client: MakeClient) -> None:
        api.answers = [as_json({"error": {"message": "No such customer"}}, 404)]
        assert client().request("GET", api.url, allow=(404,), expect_json=True).status == 404

    def test_no_content_needs_no_json(self, api: Api, client: MakeClient) -> None:
        api.answers = [Answer(204, b"", {})]
        assert client().request("GET", api.url, expect_json=True).status == 204


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "error", "message"),
        [
            (401, AuthenticationFailed, "Stripe refused the credentials (401 on GET /v1/x: No way)"),
            (403, PermissionMissing, "the credentials may not do this at Stripe (403 on GET /v1/x: No way)"),
            (429, RateLimited, "Stripe refused for its rate limit (429 on GET /v1/x: No way)"),
            (500, ProviderUnavailable, "Stripe is in trouble (500 on GET /v1/x: No way)"),
            (503, ProviderUnavailable, "Stripe is in trouble (503 on GET /v1/x: No way)"),
            (400, RequestRefused, "Stripe refused the request (400 on GET /v1/x: No way)"),
            (404, RequestRefused, "Stripe refused the request (404 on GET /v1/x: No way)"),
            (409, RequestRefused, "Stripe refused the request (409 on GET /v1/x: No way)"),
        ],
    )
    def test_each_status_is_one_error_with_cause_and_remedy(
        self, api: Api, client: MakeClient, status: int, error: type[ProviderError], message: str
    ) -> None:
        api.answers = [as_json({"error": {"message": "No\n way"}}, status)]
        with pytest.raises(error) as raised:
            client().request("GET", f"{api.url}/v1/x?limit=1")
        assert raised.value.message.startswith(message)
        assert (raised.value.integration_id, raised.value.status) == ("acme-stripe", status)
        assert raised.value.remedy
        assert str(raised.value).startswith("acme-stripe: ")

    def test_the_connector_can_say_where_the_provider_puts_its_words(self, api: Api, client: MakeClient) -> None:
        api.answers = [as_json({"errors": {"reason": "Bad cursor"}}, 400)]
        http = client(describe=lambda answer: answer.json()["errors"]["reason"])
        with pytest.raises(RequestRefused, match="Bad cursor"):
            http.request("GET", api.url)

    def test_the_connector_knows_refused_credentials_of_another_status(self, api: Api, client: MakeClient) -> None:
        api.answers = [as_json({"message": "no such token"}, 530)]
        http = client(refused_credentials=lambda answer: answer.status == 530)
        with pytest.raises(AuthenticationFailed, match="refused the credentials"):
            http.request("GET", api.url)
        assert len(api.asked) == 1

    def test_a_pause_that_only_the_body_tells_is_kept(self, api: Api, client: MakeClient, clock: FakeClock) -> None:
        api.answers = [as_json({"retry_after": 9}, 429), Answer()]
        client(retry_after=lambda answer: float(answer.json()["retry_after"])).request("GET", api.url)
        assert clock.waits == [9.0]

    def test_a_secret_is_never_repeated_whoever_echoes_it(
        self, api: Api, client: MakeClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)

        def echo(asked: Asked) -> Answer:
            return as_json({"message": f"Invalid key: {asked.query['key'][0]}"}, 401)

        api.answers = [echo]
        http = client(auth=ApiKey(KEY, param="key"))
        with pytest.raises(AuthenticationFailed, match=r"Invalid key: \*\*\*") as raised:
            http.request("GET", api.url)
        assert KEY not in str(raised.value)
        assert KEY not in caplog.text
        assert KEY not in repr(http.__dict__)

    def test_an_address_that_cannot_be_asked_is_a_matter_of_configuration(self, client: MakeClient) -> None:
        with pytest.raises(InvalidConfiguration, match="base_url"):
            client().request("GET", "ftp://127.0.0.1/")


class TestRetries:
    def test_trouble_that_passes_is_not_seen_by_the_caller(
        self, api: Api, client: MakeClient, clock: FakeClock
    ) -> None:
        api.answers = [Answer(503), Answer(500), as_json({"ok": True})]
        http = client()
        assert http.request("GET", api.url).json() == {"ok": True}
        assert clock.waits == [0.5, 1.0]
        metrics = http.metrics
        assert (metrics.calls, metrics.retries, metrics.waited_seconds) == (3, 2, 1.5)

    def test_trouble_that_lasts_is_reported_after_the_attempts(self, api: Api, client: MakeClient) -> None:
        api.answers = [Answer(503)]
        with pytest.raises(ProviderUnavailable):
            client().request("GET", api.url)
        assert len(api.asked) == 3

    def test_retry_after_is_honoured_in_seconds_and_as_a_date(
        self, api: Api, client: MakeClient, clock: FakeClock
    ) -> None:
        date = formatdate(clock.now() + 37, usegmt=True)
        api.answers = [Answer(429, headers={"Retry-After": "7"}), Answer(503, headers={"Retry-After": date}), Answer()]
        client().request("GET", api.url)
        assert clock.waits == [7.0, 30.0], "the second date lay 37 s after the start, 7 of which had passed"

    def test_a_pause_too_long_for_a_run_ends_it_with_the_reason(self, api: Api, client: MakeClient) -> None:
        api.answers = [Answer(429, headers={"Retry-After": "86400"})]
        with pytest.raises(RateLimited, match="asks for a pause of 86,400 s"):
            client().request("GET", api.url)
        assert len(api.asked) == 1

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 501])
    def test_what_would_not_help_is_not_repeated(self, api: Api, client: MakeClient, status: int) -> None:
        api.answers = [Answer(status)]
        with pytest.raises(ProviderError):
            client().request("GET", api.url)
        assert len(api.asked) == 1

    def test_the_provider_s_own_hint_outranks_the_status(self, api: Api, client: MakeClient) -> None:
        def hint(answer: Response) -> bool | None:
            return {"true": True, "false": False}.get(answer.headers.get("stripe-should-retry", ""))

        api.answers = [Answer(400, headers={"Stripe-Should-Retry": "true"}), Answer()]
        assert client(should_retry=hint).request("GET", api.url).status == 200
        api.answers = [Answer(500, headers={"Stripe-Should-Retry": "false"}), Answer()]
        with pytest.raises(ProviderUnavailable):
            client(should_retry=hint).request("GET", api.url)

    def test_a_refusal_says_in_the_provider_s_own_words_that_the_quota_is_used_up(
        self, api: Api, client: MakeClient
    ) -> None:
        """Salesforce says it with 403, which else means a permission that is missing."""
        api.answers = [Answer(403, b'[{"errorCode": "REQUEST_LIMIT_EXCEEDED"}]')]

        def used_up(answer: Response) -> float | None:
            return 3600.0 if b"REQUEST_LIMIT_EXCEEDED" in answer.content else None

        with pytest.raises(RateLimited, match="quota is used up"):
            client(quota_used_up=used_up).request("GET", api.url, allow=(403,))
        assert len(api.asked) == 1

    def test_a_run_that_is_stopped_does_not_wait_on(self, api: Api, client: MakeClient) -> None:
        stopping = Event()

        def fail_and_stop(_: Asked) -> Answer:
            stopping.set()
            return Answer(503, headers={"Retry-After": "300"})

        api.answers = [fail_and_stop]
        with pytest.raises(Stopped):
            client(clock=Clock(stopping)).request("GET", api.url)


class TestUnusableAnswers:
    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (html(), "text/html instead of JSON, beginning “We'll be back soon”"),
            (as_json({}).__class__(200, b'{"data": [{"email": "a@b.c"'), "cut or damaged JSON (27 bytes"),
            (Answer(200, b""), "an empty body instead of JSON"),
            (Answer(200, b"  OK  ", {"Content-Type": "text/plain"}), "text/plain instead of JSON, beginning “OK”"),
        ],
    )
    def test_an_answer_that_is_not_json_is_asked_for_again_and_then_reported(
        self, api: Api, client: MakeClient, answer: Answer, words: str
    ) -> None:
        api.answers = [answer]
        with pytest.raises(ProviderUnavailable) as raised:
            client().request("GET", api.url, expect_json=True)
        assert len(api.asked) == 3
        assert f"Stripe answered 200 with {words}" in raised.value.message
        assert "a@b.c" not in str(raised.value), "a cut answer may hold customers' data"

        api.answers = [answer, as_json([1])]
        assert client().request("GET", api.url, expect_json=True).json() == [1]

    def test_an_answer_cut_before_its_announced_length_is_asked_for_again(self, api: Api, client: MakeClient) -> None:
        cut = Answer(200, b'{"data": []}', length=5000)
        api.answers = [cut, as_json([1])]
        assert client().request("GET", api.url).json() == [1]
        api.answers = [cut]
        with pytest.raises(ProviderUnavailable, match="Stripe cannot be reached"):
            client().request("GET", api.url)

    def test_a_damaged_compressed_answer_is_asked_for_again(self, api: Api, client: MakeClient) -> None:
        api.answers = [Answer(200, b"not gzip", {"Content-Encoding": "gzip"}), as_json([1])]
        assert client().request("GET", api.url).json() == [1]

    def test_html_with_an_error_status_is_named_by_its_status(self, api: Api, client: MakeClient) -> None:
        api.answers = [html(502)]
        with pytest.raises(ProviderUnavailable, match=r"Stripe is in trouble \(502 on GET /\)"):
            client().request("GET", f"{api.url}/")

    @pytest.mark.parametrize("compressed", [False, True])
    def test_an_answer_beyond_the_limit_is_refused_and_not_asked_for_again(
        self, api: Api, client: MakeClient, compressed: bool
    ) -> None:
        body, headers = b"x" * 300_000, {}
        if compressed:
            body, headers = gzip.compress(body), {"Content-Encoding": "gzip"}
        api.answers = [Answer(200, body, headers)]
        with pytest.raises(ProviderMisbehaved, match=r"more than 0\.25 MiB"):
            client(max_body=1 << 18).request("GET", api.url)
        assert len(api.asked) == 1

    def test_nobody_listens(self, client: MakeClient) -> None:
        with pytest.raises(ProviderUnavailable, match=r"Stripe cannot be reached \(ConnectError: .*refused"):
            client().request("GET", f"http://127.0.0.1:{free_port()}/v1")

    def test_no_answer_in_time(self, api: Api, client: MakeClient) -> None:
        done = Event()

        def hang(_: Asked) -> Answer:
            done.wait(20)
            return Answer()

        api.answers = [hang]
        try:
            with pytest.raises(ProviderUnavailable, match=r"did not answer within 0\.1 s"):
                client(timeout=0.1, retry=RetryPolicy(attempts=0)).request("GET", api.url)
        finally:
            done.set()

    def test_an_answer_that_drips_is_given_up_at_the_deadline(self, client: MakeClient, clock: FakeClock) -> None:
        class Drip(httpx.SyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                while True:
                    clock.time += 1.0
                    yield b"x"

        http = client(
            transport=httpx.MockTransport(lambda _: httpx.Response(200, stream=Drip())),
            retry=RetryPolicy(attempts=0),
        )
        with pytest.raises(ProviderUnavailable, match="did not finish its answer within 5 s"):
            http.request("GET", "http://provider/")


class TestRedirects:
    def test_within_the_provider_they_are_followed(self, api: Api, client: MakeClient) -> None:
        api.answers = [Answer(302, headers={"Location": "/v2/x"}), as_json({"ok": 1})]
        http = client(auth=Bearer(KEY))
        assert http.request("GET", f"{api.url}/v1/x").json() == {"ok": 1}
        assert [asked.path for asked in api.asked] == ["/v1/x", "/v2/x"]

    def test_to_another_host_they_are_refused_and_the_credentials_stay_here(self, api: Api, client: MakeClient) -> None:
        with serve() as elsewhere:
            api.answers = [Answer(302, headers={"Location": f"{elsewhere.url}/steal"})]
            with pytest.raises(ProviderMisbehaved, match="which was not followed"):
                client(auth=Bearer(KEY)).request("GET", f"{api.url}/v1/x")
            assert elsewhere.asked == []

    def test_they_end(self, api: Api, client: MakeClient) -> None:
        api.answers = [Answer(302, headers={"Location": "/again"})]
        with pytest.raises(ProviderMisbehaved, match="redirects without end"):
            client().request("GET", api.url)
