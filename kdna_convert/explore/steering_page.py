"""The page as NiceGUI serves it: events of explore.js to the session, and its changes back."""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

from nicegui import background_tasks, run, ui
from nicegui.client import Client
from nicegui.events import GenericEventArguments

from ..core.errors import KdnaError, cause
from ..core.shown import shown
from ..html.steering_view import script, steering_page_of, style
from .session import SteeringSession
from .words import NAMES

IDLE = 0.15  # seconds without another budget, before the slower parts are drawn
POLL = 0.3  # seconds between two looks at a conversion


class View:
    """The page of one browser tab. While a plan is solved, only the last budget that was asked for waits."""

    def __init__(self, session: SteeringSession, client: Client) -> None:
        self.session, self.client = session, client
        self.asked = 0
        self.busy = False

    def push(self, changes: dict[str, Any] | None) -> None:
        """Show these changes; None comes from a server that is ending."""
        if changes and not self.client.is_deleted:
            self.client.run_javascript(f"kdna({json.dumps(changes)})")

    async def refresh(self) -> None:
        """Solve again, now or after the solution that runs; then, if nothing more was asked, draw the slower parts."""
        self.asked += 1
        if self.busy:
            return
        self.busy = True
        try:
            done = 0
            while done != self.asked:
                done = self.asked
                self.push(await run.io_bound(self.session.solve))
                await asyncio.sleep(IDLE)
                for slow in (self.session.edits, self.session.curve):
                    if done == self.asked:
                        self.push(await run.io_bound(slow))
        finally:
            self.busy = False

    async def change(self, action: Callable[[], None]) -> None:
        """Change the session and solve again. What cannot be done is said."""
        try:
            action()
        except KdnaError as error:
            self.push({"refused": error.message})
            return
        self.push({"refused": None})
        await self.refresh()

    async def write(self, what: str, path: str, force: bool) -> None:
        self.push({"told": "", "replace": None} | self.session.write(what, path, bool(force)))
        if self.session.outputs.converts:
            await self.follow()

    async def follow(self) -> None:
        """Show the progress of a conversion until it ends."""
        while self.session.outputs.converts and not self.client.is_deleted:
            self.push(self.session.outputs.progress())
            await asyncio.sleep(POLL)
        self.push(self.session.outputs.progress())


def steering_page(session: SteeringSession) -> None:
    """Build the page for a browser tab."""
    exploration, client = session.exploration, ui.context.client
    view = View(session, client)
    kinds = [(kind, NAMES[kind]) for kind in session.kinds]
    title, sentence = f"Explore {exploration.model}", _sentence(session)
    body = steering_page_of(title, sentence, exploration.notes, kinds, exploration.database.layers)
    ui.add_head_html(f"<style>{style()}</style>")
    ui.html(str(body), sanitize=False)
    listen: dict[str, Callable[..., Any]] = {
        "budget": lambda kind, share: view.change(partial(session.set_budget, kind, float(share))),
        "nearest": lambda: view.change(session.take_nearest),
        "select": lambda place: _pushed(view, session.select(int(place))),
        "edit": lambda layers, offer, size: view.change(partial(session.edit, layers, offer, size)),
        "undo": lambda place: view.change(partial(session.undo, int(place))),
        "write": view.write,
        "cancel": lambda: _pushed(view, _stopped(session)),
    }
    for name, action in listen.items():
        ui.on(f"kdna:{name}", partial(called, view, action))

    async def begin() -> None:
        await client.connected()
        client.run_javascript(script())
        await guarded(view, view.refresh)
        if session.outputs.conversion is not None:
            await guarded(view, view.follow)

    background_tasks.create(begin())


async def called(view: View, action: Callable[..., Any], event: GenericEventArguments) -> None:
    """Do what the page asks for."""
    values = event.args if isinstance(event.args, list) else [] if event.args in (None, {}) else [event.args]
    await guarded(view, action, *values)


async def guarded(view: View, action: Callable[..., Any], *values: Any) -> None:
    """Await an action. What nobody foresaw is a line on the page, and a traceback in the terminal."""
    try:
        await action(*values)
    except Exception as error:  # noqa: BLE001 - the page must not fall silent
        sys.stderr.write(shown(traceback.format_exc(), lines=True))
        view.push({"failed": f"That did not work, by a bug in kdna: {shown(cause(error))}"})
    else:
        view.push({"failed": None})


async def _pushed(view: View, changes: dict[str, Any]) -> None:
    view.push(changes)


def _stopped(session: SteeringSession) -> dict[str, Any]:
    session.outputs.stop()
    return session.outputs.progress()


def _sentence(session: SteeringSession) -> str:
    one = session.exploration
    data = "synthetic noise" if one.arguments.get("data") is None else f"`{shown(str(one.arguments['data']))}`"
    layers = len({name for choice in one.database.choices for name in choice.family.members})
    return f"{layers} layers can be converted by the recipe. Their errors were predicted on {data}."
