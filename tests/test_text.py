"""Numbers and words as people read them."""

from __future__ import annotations

import math

import pytest

from record.text import (
    count,
    duration,
    finite,
    full_stop,
    gist,
    interval,
    number,
    printable,
    seen,
    share,
    short,
    value_text,
    words,
)


@pytest.mark.parametrize(("value", "text"), [
    (None, "–"), (math.nan, "–"), (math.inf, "–"), (0.0, "0"), (12.0, "12"), (1234.0, "1,234"), (0.41234, "0.412"),
    (7.7, "7.70"), (11.04, "11.0"), (123.4, "123"), (0.013, "0.0130"), (0.00001, "1.00e-05"), (-0.365, "-0.365"),
    (2.5e6, "2.50e+06"),
])
def test_numbers_have_three_significant_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_small_texts() -> None:
    assert interval(None, 1.0) == ""
    assert interval(0.1, 0.2) == "[0.100, 0.200]"
    assert (share(1, 8), share(None, 8), share(1, None)) == ("12 %", "–", "–")
    assert (count(1, "trial"), count(2, "trial")) == ("1 trial", "2 trials")
    assert [value_text(value) for value in (True, None, 3, 0.25, "ema")] == ["true", "–", "3", "0.250", "ema"]
    assert printable("a\x1b[31m\nb") == "a\ufffd[31m\ufffdb"
    assert [finite(value) for value in (True, "1", math.nan, 2)] == [None, None, None, 2.0]


@pytest.mark.parametrize(("value", "text"), [
    (None, "not finite"), (math.nan, "not finite"), (math.inf, "inf"), (12345.0, "1.234e+04"), (0.5, "0.5"),
    (0.0003, "0.0003"), (1 / 3, "0.3333"),
])
def test_short_numbers_have_four_digits_and_no_needless_ones(value: float | None, text: str) -> None:
    assert short(value) == text


def test_what_a_rule_saw_is_a_word_or_a_number() -> None:
    assert [seen(value) for value in ("up", 0.25, None, math.nan)] == ["up", "0.25", "not defined", "not defined"]


def test_a_share_has_as_many_decimals_as_asked_for() -> None:
    assert (share(0.1234), share(0.1234, digits=1), share(1, 3, digits=2)) == ("12 %", "12.3 %", "33.33 %")


@pytest.mark.parametrize(("seconds", "text"), [(89.4, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h")])
def test_a_duration_is_in_the_unit_that_a_person_would_choose(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sentences_and_names() -> None:
    assert [full_stop(text) for text in ("Done", "Done.", "Why?")] == ["Done.", "Done.", "Why?"]
    assert words("actions_ignored") == "actions ignored"


def test_the_gist_of_an_error_is_its_first_line() -> None:
    assert gist(ValueError("\nfirst\nsecond")) == "first"
    assert gist(ValueError()) == "no message"
    assert len(gist(ValueError("x" * 999))) == 200
