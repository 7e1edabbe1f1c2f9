from hashlib import sha256
from pathlib import Path

from lab.inputs import recorded


def test_the_files_as_they_lay_there_and_a_command_that_a_shell_reads(tmp_path: Path) -> None:
    file = tmp_path / "a case.json"
    file.write_bytes(b"{}")
    made = recorded(["--case", str(file), "--seed", "0"], [("--case", file)])
    assert made.command() == f"shardwright lab run --case '{file}' --seed 0"
    assert [(each.option, each.path, each.sha256) for each in made.files] == [
        ("--case", str(file), sha256(b"{}").hexdigest())
    ]
    assert made.version
