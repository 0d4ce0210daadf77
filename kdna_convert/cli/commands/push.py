"""`kdna push`: a converted folder to the Hugging Face Hub."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import show, show_json
from .grouped import grouped
from .options import Folder, OutputFlags

REPO_HELP = "Repository OWNER/NAME. It is created if it is missing."


@grouped
def push(
    folder: Folder,
    repo: Annotated[str, typer.Argument(metavar="REPO", help=REPO_HELP)],
    out: OutputFlags,
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
    revision: Annotated[str | None, typer.Option(metavar="BRANCH", help="Branch to write. Default: main.")] = None,
    message: Annotated[str | None, typer.Option(metavar="TEXT", help="Message of the commit.")] = None,
) -> None:
    """Send a converted folder to the Hugging Face Hub, as the user whom `hf auth login` stored.

    Example:
        kdna push half OWNER/resnet50-half
    """
    from ...api.hub import push_to_hub

    url = push_to_hub(folder, repo, private=private or None, revision=revision, commit_message=message)
    show_json({"url": url}) if out.json else show(url)
