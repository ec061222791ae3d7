"""What others say never brings a secret along."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.errors import ConfigError
from trainer.records import RunFailure
from trainer.redaction import redact

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJvaWQiOiJTRUNSRVQifQ.c2lnbmF0dXJlU0VDUkVU"


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {TOKEN}",
        "{'Authorization': 'Bearer SECRETSECRET', 'Accept': '*/*'}",
        "Proxy-Authorization: Basic dTpTRUNSRVQ6U0VDUkVU-SECRET",
        "Authorization=SharedKey account:SECRET==",
        f"the token {TOKEN} has expired",
        f"cut: {TOKEN[:40]}SECRET",
        "GET https://x.blob.core.windows.net/c/b?sv=2019-02-02&sig=SECRET%3D&se=2026 404",
        "https://x/b?sig=SECRET",
        "redirect=https%3A%2F%2Fx%3Fsig%3DSECRET&x=1",
        "HTTPSConnectionPool(host='127.0.0.1'): Max retries exceeded with url: /msi/SECRET/token?resource=x",
        "POST /oauth2/token client_id=1&client_secret=SECRET&grant_type=client_credentials",
        '{"client_secret": "SECRET", "client_assertion":"SECRET"}',
        "{'access_token': 'SECRET', 'refresh_token': 'SECRET'}",
        "AZUREML_SERVICE_PRINCIPAL_PASSWORD=SECRET",
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=SECRET;EndpointSuffix=core.windows.net",
        "X-IDENTITY-HEADER: SECRET",
        "Cannot connect to proxy http://user:SECRET@proxy.example:8080/",
        "SharedAccessSignature SECRETSECRET",
    ],
)
def test_secrets_are_taken_out_and_the_rest_stays(text: str) -> None:
    clean = redact(text)
    assert "SECRET" not in clean
    assert "[redacted]" in clean
    assert redact(clean) == clean


@pytest.mark.parametrize(
    "text",
    [
        "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent is the value, not the ID.",
        "Set AZUREML_SERVICE_PRINCIPAL_PASSWORD, or run: az login",
        "The token of key 'l1/W' is unknown; signal=9",
        "authorization failed for the workspace; ask for the role Contributor.",
        "mail me@example.com or see https://ml.azure.com/a/b?c=d",
    ],
)
def test_plain_words_stay(text: str) -> None:
    assert redact(text) == text


def test_the_values_of_this_processs_credentials_are_taken_out() -> None:
    assert redact("bad value q1w2e3r4t5", {"AZURE_CLIENT_SECRET": "q1w2e3r4t5"}) == "bad value [redacted]"
    assert redact("bad value abc", {"AZURE_CLIENT_SECRET": "abc"}) == "bad value abc"


def test_every_error_and_every_recorded_failure_passes_through() -> None:
    error = ConfigError("no answer from /msi/SECRET/token", "ask with sig=SECRET")
    assert "SECRET" not in f"{error} {error.args} {error.message} {error.hint}"
    assert RunFailure(message="/msi/SECRET/token").message == "/msi/[redacted]/token"


@given(st.text())
def test_any_text_can_be_redacted_twice(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "unit", ["a", "a-", "sig=", "://", "/msi/", "eyJ.", "secret ", 'password" ', "Bearer ", "A=\"'"]
)
@pytest.mark.timeout(600)
def test_a_long_text_takes_no_more_than_its_length(unit: str) -> None:
    redact(unit * (1_000_000 // len(unit)))
