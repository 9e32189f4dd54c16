"""A page in a real browser: its images, its width, and what it would fetch."""

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
# The browser blocks and reports whatever is not in the page itself.
WATCH = """<meta http-equiv="Content-Security-Policy" content="default-src data: 'unsafe-inline'">
<script>const fetched = []
addEventListener("securitypolicyviolation", e => fetched.push(e.blockedURI))
addEventListener("load", () => parent.postMessage(JSON.stringify({
    widths: [...document.images].map(i => i.naturalWidth), complete: [...document.images].every(i => i.complete),
    fetched, inner: innerWidth, scroll: document.documentElement.scrollWidth}), "*"))</script>"""
FRAME = """<!doctype html>
<script>addEventListener("message", e => { document.title = "page:" + e.data })</script>
<iframe src="copy.html" style="width: WIDTHpx; height: 900px; border: 0"></iframe>"""  # a window has a minimum width


def _run(folder, *arguments):
    command = [CHROMIUM, *QUIET, f"--user-data-dir={folder / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def measure_page(page, width, folder):
    """Return what a copy of the page reports from a frame of this width in pixels; fetched: blocked addresses."""
    text = page.read_text()
    assert "<head>" in text
    (folder / "copy.html").write_text(text.replace("<head>", "<head>" + WATCH, 1))
    (folder / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
    dom = _run(folder, "--window-size=1200,1000", "--dump-dom", (folder / "frame.html").as_uri())
    return json.loads(html.unescape(re.search(r"<title>page:(.*?)</title>", dom, re.DOTALL).group(1)))


def screenshot(page, width, height, folder, *flags):
    """Return an image of the page, uint8 [height, width, 3]. flags: more of the browser's."""
    _run(folder, *flags, f"--window-size={width},{height}", f"--screenshot={folder / 'shot.png'}", page.as_uri())
    return np.asarray(Image.open(folder / "shot.png").convert("RGB"))
