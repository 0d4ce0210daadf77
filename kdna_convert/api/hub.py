"""The verbs of the Hugging Face Hub: `push_to_hub`, `from_pretrained` and `save_pretrained`.

Only files of kdna's names are sent. All must match the folder's record but the model card, which its owner may edit.
What is fetched is checked as a folder from elsewhere is: nothing in it is run.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ..core.atomic import disk_errors, new_folder
from ..core.errors import FolderError, cause
from ..network.folder import Conversion, load, require_free, save
from ..network.folder.contents import read_contents
from ..network.folder.record import CONFIG, FILES

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def push_to_hub(
    folder: str | Path | Conversion,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    token: str | bool | None = None,
) -> str:
    """Send a converted folder to the Hub and return the URL of the commit. A repository that is missing is created.

    Args:
        folder: a converted folder, or a conversion.
        repo_id: OWNER/NAME.
        private: whether a new repository is private. Default: the owner's setting.
        revision: the branch. Default: main.
        commit_message: of the commit.
        token: of the Hub. Default: the one that `hf auth login` stored.

    Raises:
        FolderError: KD602 or KD603 for a folder that is not whole, KD612 if the Hub refuses or cannot be reached.
    """
    if isinstance(folder, Conversion):
        with tempfile.TemporaryDirectory() as place:
            saved = save(folder, Path(place) / repo_id.rsplit("/", 1)[-1])
            return push_to_hub(
                saved, repo_id, private=private, revision=revision, commit_message=commit_message, token=token
            )
    read_contents(Path(folder))
    message = commit_message or "Upload a net converted by kdna"
    with _hub_errors(repo_id):
        hub = _hub(token)
        hub.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            hub.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = hub.upload_folder(
            repo_id=repo_id,
            folder_path=str(folder),
            allow_patterns=[CONFIG, *FILES],
            revision=revision,
            commit_message=message,
        )
        return str(commit.commit_url)


def fetched(
    repo_id: str, *, revision: str | None = None, cache_dir: str | Path | None = None, token: str | bool | None = None
) -> Path:
    """The folder of a repository in the Hub's cache. Only files that kdna writes are fetched.

    Raises:
        FolderError: KD602 if the repository holds no converted net, KD612 as for push_to_hub.
    """
    with _hub_errors(repo_id):
        found = _hub(token).snapshot_download(
            repo_id, revision=revision, cache_dir=cache_dir, allow_patterns=[CONFIG, *FILES]
        )
    return Path(str(found))


def pull(repo_id: str, directory: str | Path, *, force: bool = False, **options: Any) -> Path:
    """Copy a converted net from the Hub to a folder.

    Args:
        repo_id: OWNER/NAME.
        directory: the folder to write.
        force: whether to replace a folder that kdna wrote.
        **options: revision, cache_dir and token, as for from_pretrained.

    Raises:
        FolderError: KD601 or KD604 as for `save`; KD602, KD603 and KD612 as for from_pretrained.
    """
    target = Path(directory)
    require_free(target, force)
    found = fetched(repo_id, **options)
    read_contents(found)
    with disk_errors(target), new_folder(target) as folder:
        for name in (CONFIG, *FILES):
            shutil.copyfile(found / name, folder / name)
    return target


def from_pretrained(
    name: str | Path,
    *,
    folded: bool = False,
    model: nn.Module | None = None,
    trust_code: bool = False,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
) -> nn.Module:
    """Load a converted net from a folder, or from the Hub: OWNER/NAME.

    Args:
        name: a folder, if there is one of this name; else a repository.
        folded: whether kernels become ordinary weights.
        model: the architecture, converted in place, as for `load`.
        trust_code: whether to run the code that the folder names, as for `load`.
        revision: a branch, tag or commit. Default: main.
        cache_dir: the Hub's cache. Default: huggingface_hub's own.
        token: of the Hub. Default: the one that `hf auth login` stored.

    Raises:
        FolderError: As `load`, and KD612 if the Hub refuses or cannot be reached.
    """
    place = Path(name)
    if not place.is_dir():
        place = fetched(str(name), revision=revision, cache_dir=cache_dir, token=token)
    return load(place, folded=folded, model=model, trust_code=trust_code)


def save_pretrained(
    conversion: Conversion, directory: str | Path, *, force: bool = False, repo_id: str | None = None, **options: Any
) -> Path:
    """Write the folder, as `save` does; with `repo_id` also send it to the Hub.

    Args:
        conversion: what `convert`, `finetune` or `open_folder` returned.
        directory: the folder.
        force: whether to replace a folder that kdna wrote.
        repo_id: OWNER/NAME.
        **options: private, revision, commit_message and token, as for push_to_hub.
    """
    folder = save(conversion, directory, force)
    if repo_id is not None:
        push_to_hub(folder, repo_id, **options)
    return folder


def _hub(token: str | bool | None) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name="kdna-convert")


@contextmanager
def _hub_errors(repo_id: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into FolderError KD612, in a line."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        yield
    except RepositoryNotFoundError as error:
        raise FolderError("KD612", f"{repo_id}: not on the Hub, or private; see `hf auth login`") from error
    except Exception as error:  # its own errors, and those of the HTTP library, which differs from version to version
        raise FolderError("KD612", f"{repo_id}: {cause(error)}") from error
