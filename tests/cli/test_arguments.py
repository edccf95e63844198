import pytest

from cli.arguments import pairs_of, seconds_of, seconds_within, span_of
from cli.errors import CliError, ExitCode


@pytest.mark.parametrize(("text", "seconds"), [("45s", 45), ("12h", 43200), ("30d", 2592000)])
def test_a_span_is_read_and_shown_alike(text: str, seconds: int) -> None:
    assert (seconds_of(text, "--for"), span_of(seconds)) == (seconds, text)


def test_a_span_is_shown_in_the_largest_unit_that_is_exact() -> None:
    assert [span_of(seconds) for seconds in (0, 59, 60, 90, 7200)] == [
        "0s",
        "59s",
        "1m",
        "90s",
        "2h",
    ]


@pytest.mark.parametrize("text", ["", "30", "d", "0d", "-1d", "1w", "1 d", "1d\n"])
def test_another_span_is_refused_with_the_option_and_an_example(text: str) -> None:
    with pytest.raises(CliError, match=r"--expires-in takes .* for example 30d") as caught:
        seconds_of(text, "--expires-in")
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("text", "option", "least", "most", "example"),
    [
        ("5", "--bake", 0, 7 * 86400, "5m"),
        ("5", "--every", 3600, 366 * 86400, "5h"),
        ("300", "--wrap", 1, 300, "300s"),
        ("soon", "--every", 3600, 366 * 86400, "366d"),
        ("9" * 5000, "--bake", 0, 7 * 86400, "7d"),
    ],
)
def test_a_number_without_a_unit_is_answered_with_what_may_be_meant(
    text: str, option: str, least: int, most: int, example: str
) -> None:
    with pytest.raises(CliError, match=f"{option} takes a number and .* example {example},"):
        seconds_within(text, option, least, most)
    assert least <= seconds_within(example, option, least, most) <= most


def test_a_span_out_of_bounds_is_refused_in_the_units_of_the_option() -> None:
    assert seconds_within("0", "--grace", 0, 3600) == 0
    with pytest.raises(CliError, match="--every is from 1h to 366d, and 1m is not"):
        seconds_within("1m", "--every", 3600, 366 * 86400)


def test_a_pair_ends_its_key_at_the_first_equals_sign() -> None:
    assert pairs_of(["a=b=c", "d="], "--label") == {"a": "b=c", "d": ""}
    for text in ("a", "=b"):
        with pytest.raises(CliError, match="--label takes KEY=VALUE"):
            pairs_of([text], "--label")
