"""The log's two forms."""

from __future__ import annotations

import json
import logging
import sys
from typing import Literal

import pytest

from app.api.logs import Logs


def line(form: Literal["console", "json"] | None, level: str = "info") -> str:
    """Return how an error with a traceback is written."""
    configured = Logs(format=form, level=level).as_dict()
    settings = configured["formatters"]["shadow"]
    formatter = settings.pop("()")(**settings)

    def fail(token: str) -> None:
        raise KeyError("gone")

    try:
        fail("sesame")
    except KeyError:
        record = logging.LogRecord("app.x", logging.ERROR, __file__, 1, "it broke: %s", ("why",), sys.exc_info())
    record.sub = "ada"
    return str(formatter.format(record))


def test_json_is_one_line_with_time_level_and_traceback() -> None:
    text = line("json")
    assert "\n" not in text
    told = json.loads(text)
    assert (told["event"], told["level"], told["logger"], told["sub"]) == ("it broke: why", "error", "app.x", "ada")
    assert told["timestamp"].endswith("Z")
    assert "KeyError: 'gone'" in told["exception"]


def test_console_is_for_a_person() -> None:
    text = line("console")
    assert "it broke: why" in text
    assert "KeyError: 'gone'" in text


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_shows_no_local_variables(form: Literal["json", "console"]) -> None:
    text = line(form)
    assert "fail(" in text
    assert text.count("sesame") == text.count('fail("sesame")') + text.count('fail(\\"sesame\\")')


def test_without_a_terminal_it_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert line(None).startswith("{")


def test_the_provider_s_addresses_are_not_logged() -> None:
    loggers = Logs(level="debug").as_dict()["loggers"]
    assert loggers["httpx"] == loggers["httpcore"] == {"level": "WARNING"}
