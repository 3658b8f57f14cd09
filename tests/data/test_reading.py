"""What all readers have in common: limits, regular files only, and every failure named in one short line."""

import os
from pathlib import Path

import pytest

from torch_svm_seg.data.errors import LONGEST_MESSAGE, InputError, one_line, reason_of
from torch_svm_seg.data.reading import read_bytes, read_text, reading


@pytest.mark.parametrize(
    "text", ["\x1b[31mred\x07", "two\nlines\r\nthree\u2028four", "\ud800 alone", "a" * 10**7, "\u202eevil"]
)
def test_messages_are_short_lines_without_control_characters(text: str) -> None:
    message = str(InputError(f"file.json: {text}"))
    assert message.isprintable() and len(message) <= LONGEST_MESSAGE
    assert message.startswith("file.json: ")


def test_the_end_of_a_long_message_stays() -> None:
    assert one_line("file: " + "x" * 1000 + "; give --flag").endswith("; give --flag")


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe: not a regular file"):
        read_bytes(tmp_path / "pipe")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_a_device_is_refused() -> None:
    with pytest.raises(InputError, match="/dev/zero: not a regular file"):
        read_bytes("/dev/zero")


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "huge", "wb") as stream:
        stream.truncate(2**40)  # sparse: takes no space
    with pytest.raises(InputError, match=f"{2**40} bytes, more than"):
        read_bytes(tmp_path / "huge")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "not enough memory"),
        (RecursionError("too deep"), "too deep"),
        (KeyError("a\nb"), "a.*b"),
        (OSError(5, "Input/output error"), "Input/output error"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_whatever_fails_names_the_file(error: Exception, reason: str) -> None:
    with pytest.raises(InputError, match=f"^a: .*{reason}") as caught, reading("a"):
        raise error
    assert caught.value.__cause__ is error
    assert reason_of(error) in str(caught.value)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interruption_is_no_failure_of_a_file(error: type[BaseException]) -> None:
    with pytest.raises(error), reading("a"):
        raise error


def test_text_is_utf_8_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfk\xc3\xbcrzer")
    assert read_text(tmp_path / "a") == "kürzer"
    (tmp_path / "b").write_bytes(b"\xff")
    with pytest.raises(InputError, match="b: not a UTF-8 text file"):
        read_text(tmp_path / "b")
