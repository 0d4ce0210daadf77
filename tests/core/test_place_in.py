"""A folder of moments or errors holds a file for everything that one can be made from."""

from pathlib import Path

from kdna_convert.core.fingerprint import place_in


def test_a_folder_has_a_file_by_the_hash_of_what_it_was_made_from_and_a_file_is_itself(tmp_path: Path) -> None:
    one, other = (place_in(tmp_path, "moments.safetensors", mark * 32) for mark in ("ab", "cd"))
    assert one.parent == other.parent == tmp_path
    assert one != other
    assert one.name == "moments-abababababababab.safetensors"
    assert place_in(tmp_path / "new.safetensors", "moments.safetensors", "ab" * 32) == tmp_path / "new.safetensors"
