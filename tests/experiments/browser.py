"""A page as a real browser shows it: its pictures, its width, and whatever it would fetch."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-quic", "--hide-scrollbars")  # fmt: skip
# Whatever is not in the page itself is refused by the browser, and told of.
WATCH = """<meta http-equiv="Content-Security-Policy" content="default-src data: 'unsafe-inline'">
<script>const fetched = []
addEventListener("securitypolicyviolation", e => fetched.push(e.blockedURI))
addEventListener("load", () => parent.postMessage(JSON.stringify({
    widths: [...document.images].map(i => i.naturalWidth), complete: [...document.images].every(i => i.complete),
    fetched, inner: innerWidth, scroll: document.documentElement.scrollWidth}), "*"))</script>"""
FRAME = """<!doctype html>
<script>addEventListener("message", e => { document.title = "found:" + e.data })</script>
<iframe src="copy.html" style="width: WIDTHpx; height: 900px; border: 0"></iframe>"""  # a window can't be so narrow


def _run(folder, *arguments):
    command = [CHROMIUM, *QUIET, f"--user-data-dir={folder / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def measured(page, width, folder):
    """What a copy of the page finds out of itself in a frame of this width in pixels; fetched: all from elsewhere."""
    text = page.read_text()
    assert "<head>" in text
    (folder / "copy.html").write_text(text.replace("<head>", "<head>" + WATCH, 1))
    (folder / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
    shown = _run(folder, "--window-size=1200,1000", "--dump-dom", (folder / "frame.html").as_uri())
    return json.loads(html.unescape(re.search(r"<title>found:(.*?)</title>", shown, re.DOTALL).group(1)))


def screenshot(page, width, height, folder):
    """The page itself, [height, width, 3]."""
    _run(folder, f"--window-size={width},{height}", f"--screenshot={folder / 'shot.png'}", page.as_uri())
    return np.asarray(Image.open(folder / "shot.png").convert("RGB"))
