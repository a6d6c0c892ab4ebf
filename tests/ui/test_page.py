"""The page as a person sees it: in Chromium, in both themes, on a wide screen and a phone, and by keyboard."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.fleet.cluster import WAIT_SECONDS, wait_for
from tests.programs import find_program
from tests.ui.site import GOOD_RUNS, Site

pytestmark = pytest.mark.xdist_group("page")  # one Airflow for all of them

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
SANDBOX = "An iframe which has both allow-scripts and allow-same-origin"  # Airflow's own choice, and its warning
Open = Callable[..., Any]


@pytest.fixture
def chromium() -> Iterator[Any]:
    """Have the system's browser, whose driver downloads none; it runs an event loop in this thread until it ends."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    program = find_program("chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS.split())
        yield browser
        browser.close()


@pytest.fixture
def browse(chromium: Any, site: Site) -> Iterator[Open]:
    """Open a path of the site; in the end check that nothing was complained of, and nothing asked of other hosts."""
    complaints: list[str] = []
    hosts: set[str] = set()

    with contextlib.ExitStack() as stack:

        def open_(path: str, *, user: str | None = "admin", theme: str = "light", width: int = 1280) -> Any:
            context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
            stack.callback(context.close)
            context.set_default_timeout(WAIT_SECONDS * 1000)
            if user is not None:
                context.add_cookies([{"name": "_token", "value": site.log_in(user), "url": site.url}])
            context.add_init_script(f"localStorage.setItem('theme', '{theme}')")
            page = context.new_page()
            page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
            page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(site.url + path)
            return page

        yield open_
    assert [text for text in complaints if SANDBOX not in text] == []
    assert hosts - {""} == {urlsplit(site.url).netloc}


def shoot(page: Any, name: str, directory: Path) -> None:
    """Take a picture, for a person to look at: into the directory that SCREENSHOTS names."""
    page.screenshot(path=Path(os.environ.get("SCREENSHOTS", directory)) / f"{name}.png", full_page=True)


def framed(page: Any) -> Any:
    """Return the page's own frame in Airflow's window, when it is there."""
    page.frame_locator("iframe").locator(".verdict").wait_for()
    (frame,) = page.frames[1:]
    return frame


def row(frame: Any, name: str) -> str:
    """Return the words of a database's row."""
    return re.sub(r"\s+", " ", frame.locator("tr").filter(has=frame.get_by_role("link", name=name)).inner_text())


def test_walk(browse: Open, site: Site, tmp_path: Path) -> None:
    """From a DAG by its run and its task's link to the backup on the page, and from there to the task's log."""
    page = browse("/dags/orders_backup/runs")
    page.locator("tbody a[href*='/runs/manual']").first.click()
    page.locator("tbody a[href*='/tasks/backup']").first.click()
    page.get_by_role("link", name="Details").last.click()
    link = page.get_by_role("link", name="RocksDB backup", exact=True)
    link.wait_for()
    shoot(page, "walk-1-task", tmp_path)
    link.click()
    frame = framed(page)
    frame.locator("tr.chosen").wait_for()
    assert frame.locator("tr.chosen th").inner_text() == "Backup 4"
    assert frame.locator("h1").inner_text() == "orders"
    assert f"--backup-id {GOOD_RUNS}" in frame.locator(".command code").inner_text()
    shoot(page, "walk-2-page", tmp_path)
    frame.locator("tr.chosen").get_by_role("link", name="Log").click()
    page.wait_for_url("**/dags/orders_backup/runs/*/tasks/backup")
    page.get_by_text("were sent").first.wait_for()
    assert len(page.frames) == 1  # Airflow's own window, and not Airflow in a frame of itself
    shoot(page, "walk-3-log", tmp_path)


def test_failed_walk(browse: Open, site: Site) -> None:
    """The link of a task that failed leads to its database, whose failure says why and leads back to the log."""
    (run,) = site.runs("users_backup", "failed")
    page = browse(f"/dags/users_backup/runs/{run.run_id}/tasks/backup/details")
    page.get_by_role("link", name="RocksDB backup", exact=True).click()
    frame = framed(page)
    frame.locator(".verdict.failed").wait_for()
    assert "users: no such directory on host db-host-1" in frame.locator(".failures").inner_text()
    frame.get_by_role("link", name="Task log").click()
    page.wait_for_url("**/tasks/backup")
    page.get_by_text("no such directory on host").first.wait_for()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_looks(browse: Open, site: Site, tmp_path: Path, theme: str, width: int) -> None:
    """Each state is there in words; nothing is wider than the window; the theme is Airflow's; focus can be seen."""

    def grown_late() -> Any:
        frame = framed(browse("/plugin/rocksdb-backups", theme=theme, width=width))
        return frame if "Late" in row(frame, "events") else None

    frame = wait_for(grown_late, "a database to grow late", pause=5)
    states = {name: row(frame, name) for name in ("users", "events", "ledger", "sessions", "orders")}
    assert {name: text.split()[0] for name, text in states.items()} == {
        "users": "Failed",
        "events": "Late",
        "ledger": "Unknown",
        "sessions": "Unknown",
        "orders": "OK",
    }
    assert frame.locator("tbody th a").all_inner_texts() == list(states)  # the gravest first
    assert "4 of 5 databases need attention" in frame.locator(".verdict").inner_text()
    assert "DAG events_backup is paused" in states["events"]
    assert "it did not answer within 3 seconds" in states["ledger"]
    assert "No backup yet" in states["sessions"]
    check_looks(frame, theme)
    shoot(frame.page, f"overview-{theme}-{width}", tmp_path)
    for name in ("orders", "ledger", "sessions"):
        frame.get_by_role("link", name=name).click()
        frame.locator("h1", has_text=name).wait_for()
        check_looks(frame, theme)
        shoot(frame.page, f"{name}-{theme}-{width}", tmp_path)
        frame.get_by_role("link", name="RocksDB backups").click()
        frame.locator("table.databases").wait_for()


def check_looks(frame: Any, theme: str) -> None:
    """Check what every view has to keep to."""
    assert frame.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert frame.evaluate("document.documentElement.className") == theme
    light, dark = "rgb(255, 255, 255)", "rgb(0, 0, 0)"
    assert frame.evaluate("getComputedStyle(document.body).backgroundColor") == (light if theme == "light" else dark)
    frame.locator("body").focus()
    frame.evaluate("document.querySelector('main a').focus({focusVisible: true})")
    assert frame.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_keyboard(browse: Open) -> None:
    """Tab reaches every link and the command, in the order in which they stand there."""
    page = browse("/rocksdb/?connection=orders")
    reached = []
    for _ in range(GOOD_RUNS * 2 + 6):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break  # after the last
        reached.append(page.evaluate("document.activeElement.textContent.trim()"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert reached[:2] == ["RocksDB backups", "Log"]
    assert [text for text in reached if text.startswith("python -m airflow_provider_rocksdb restore")]
    assert reached.count("Restore") == GOOD_RUNS


def test_copy(browse: Open) -> None:
    """The command is there to copy, with one press of a button, also within the sandbox of Airflow's frame."""
    page = browse("/plugin/rocksdb-backups?connection=orders")
    frame = framed(page)
    frame.get_by_role("button", name="Copy").click()
    frame.get_by_role("button", name="Copied").wait_for()


def test_viewer(browse: Open, site: Site) -> None:
    """Who may only look sees what tasks reported, and nothing of connections; who is nobody sees nothing."""
    frame = framed(browse("/plugin/rocksdb-backups", user="viewer"))
    names = frame.locator("tbody th a").all_inner_texts()
    assert set(names) == {"users", "events", "orders"}
    text = frame.page.request.get(f"{site.url}/rocksdb/?connection=orders").text()
    assert "its storage was not asked" in text
