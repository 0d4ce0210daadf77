"""Processes that do not find each other, and the error of one that all of them raise."""

from __future__ import annotations

import socket

import pytest
from torch.distributed import HashStore

from kdna_convert.core import joining
from kdna_convert.core.errors import DataError, FolderError, ModelError
from kdna_convert.core.joining import Meeting, meet
from kdna_convert.core.processes import tell_before_joining


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a process whose first process is not there."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))


def test_a_process_without_a_first_one_says_where_it_looked(second_of_two: None) -> None:
    with pytest.raises(DataError, match=r"KD421: the processes do not find each other: nothing answers at 127.0.0.1:"):
        meet(0.5)


def test_a_process_without_the_others_says_how_many_are_missing() -> None:
    with pytest.raises(DataError, match=r"KD421: .*2 of 3 processes did not start"):
        Meeting(HashStore(), 3).wait(0.2)


def test_processes_that_are_all_there_go_on() -> None:
    store = HashStore()
    store.add("kdna/arrived", 2)
    Meeting(store, 3).wait(0.2)


def test_an_error_of_one_process_is_raised_by_those_that_wait() -> None:
    meeting = Meeting(HashStore(), 2)
    meeting.tell(FolderError("KD602", "half is not a folder written by kdna"), 3)
    meeting.tell(ModelError("KD301", "a later error"), 1)
    with pytest.raises(FolderError, match=r"KD602: half is not a folder written by kdna \(process 3, on ") as error:
        meeting.wait(5)
    assert error.value.code == "KD602"


def test_a_lost_connection_is_the_error_of_the_process_that_ended() -> None:
    meeting = Meeting(HashStore(), 2)
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:30124")
    alone = meeting.instead_of(lost)
    assert alone is not None
    assert alone.code == "KD421"
    meeting.tell(FolderError("KD602", "half is not a folder written by kdna"), 1)
    told = meeting.instead_of(lost)
    assert told is not None
    assert told.code == "KD602"
    assert meeting.instead_of(RuntimeError("DataLoader worker (pid 9) is killed by signal: Terminated. ")) is not None
    assert meeting.instead_of(RuntimeError("a bug of ours")) is None
    assert meeting.instead_of(FolderError("KD601", "connection closed")) is None


def test_a_process_that_cannot_reach_the_others_ends_with_its_own_error(
    second_of_two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "_TELL", 0.3)
    tell_before_joining(FolderError("KD602", "half is not a folder written by kdna"))
