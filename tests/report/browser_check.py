#!/usr/bin/env python3
"""Opens a report.html in a real browser and checks that it stands alone and works.

    tests/report/browser_check.py REPORT.html [FOLDER FOR SCREENSHOTS]

Needs chromium (Debian: apt-get install chromium) and nothing else: it speaks the DevTools protocol
over a pipe.
"""

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


class Browser:
    """One headless browser with one page."""

    def __init__(self, program, profile):
        to_browser, self.to = os.pipe()
        self.back, from_browser = os.pipe()

        def wire():
            # The browser reads commands from 3 and writes answers to 4; clear of each other first.
            inward, outward = os.dup(to_browser), os.dup(from_browser)
            os.dup2(inward, 3)
            os.dup2(outward, 4)

        self.process = subprocess.Popen(
            [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--no-first-run", "--disable-background-networking", "--remote-debugging-pipe",
             f"--user-data-dir={profile}"],
            close_fds=False, preexec_fn=wire, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.last, self.buffer, self.session, self.events = 0, b"", None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Log", "Network"]:
            self.call(f"{domain}.enable")

    def message(self):
        while b"\0" not in self.buffer:
            part = os.read(self.back, 1 << 20)
            if not part:
                sys.exit("the browser is gone")
            self.buffer += part
        one, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(one)

    def call(self, method, **params):
        self.last += 1
        request = {"id": self.last, "method": method, "params": params}
        if self.session:
            request["sessionId"] = self.session
        data = json.dumps(request).encode() + b"\0"
        while data:
            data = data[os.write(self.to, data):]
        while True:
            message = self.message()
            if message.get("id") == self.last:
                if "error" in message:
                    sys.exit(f"{method}: {message['error']}")
                return message["result"]
            self.events.append(message)

    def open(self, url):
        before = len(self.events)
        self.call("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events[before:]):
            self.events.append(self.message())

    def ask(self, script):
        """The value of a JavaScript expression on the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in result:
            sys.exit(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def look(self, width, height, scheme, media=""):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", media=media,
                  features=[{"name": "prefers-color-scheme", "value": scheme}])

    def stop(self):
        """Ends the browser and its helpers, which outlive it a moment and write to the profile."""
        self.process.terminate()
        for _ in range(200):
            if not self.lives():
                return
            time.sleep(0.05)
        # Also where only dead processes are left, that nobody waits for.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def lives(self):
        """Whether a process of its group is left."""
        self.process.poll()
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True


FAILED = []


def check(what, holds, seen=""):
    print(("ok     " if holds else "FAILED ") + what + (f": {seen}" if seen != "" else ""))
    if not holds:
        FAILED.append(what)


COLUMN = """(function (click) {
  var table = document.querySelector('#cells table.sortable');
  var heads = Array.from(table.tHead.rows[0].cells);
  var at = heads.findIndex(function (head) { return head.textContent.indexOf('TTFT p50 ms') === 0 ||
                                                    head.textContent.indexOf('TTFT p50 s') === 0; });
  for (var i = 0; i < click; i++) { heads[at].querySelector('[role=button]').click(); }
  return Array.from(table.tBodies[0].rows).map(function (row) {
    return parseFloat(row.cells[at].textContent.replace(/,(?=[0-9]{3})/g, '')); });
})"""
LIGHTNESS = """getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g)
  .slice(0, 3).map(Number).reduce(function (a, b) { return a + b; })"""


def main():
    report = Path(sys.argv[1]).resolve()
    shots = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not program:
        sys.exit("no chromium in PATH")
    # Its crash handler leaves the group and may still write there.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, profile)
        try:
            judge(browser, report.as_uri(), shots)
        finally:
            browser.stop()
    sys.exit(1 if FAILED else 0)


def timelines(browser, shoot, scheme):
    """Timelines cost nothing until they are opened, and are drawn in the page's colours."""
    if not browser.ask("document.querySelectorAll('details.timeline').length"):
        print("none   timelines: the run has no telemetry")
        return
    shut = browser.ask("document.querySelector('details.timeline svg').checkVisibility()")
    check(f"{scheme}: a timeline is not laid out before it is opened", not shut)
    box = browser.ask("""(function () { var one = document.querySelector('details.timeline');
      one.parentElement.open = true; one.open = true; one.scrollIntoView();
      var box = one.querySelector('svg').getBoundingClientRect();
      return [box.width, box.height]; })()""")
    check(f"{scheme}: once opened it is", box[0] > 600 and box[1] > 100, box)
    ink = browser.ask(f"""(function () {{ var text = document.querySelector('details.timeline svg text.t');
      return getComputedStyle(text).fill.match(/[0-9]+/g).slice(0, 3).map(Number)
        .reduce(function (a, b) {{ return a + b; }}); }})()""")
    check(f"{scheme}: its words stand out", (ink > 500) == (scheme == "dark"), ink)
    shoot(f"timeline_{scheme}")


# Words of a figure that stick out of it, and the sum of red, green and blue of its words and of its ground.
STICK_OUT = """Array.from(document.querySelectorAll('figure svg')).flatMap(function (svg) {
  var all = svg.getBoundingClientRect();
  return Array.from(svg.querySelectorAll('text')).filter(function (text) {
    var box = text.getBoundingClientRect();
    return box.left < all.left - 1 || box.right > all.right + 1 || box.top < all.top - 1 || box.bottom > all.bottom + 1;
  }).map(function (text) { return text.textContent; }); })"""
SUM = """.match(/[0-9]+/g).slice(0, 3).map(Number).reduce(function (a, b) { return a + b; })"""
# On a coloured ground the words keep their colour: those of heat maps and of the mark.
INK = "getComputedStyle(document.querySelector('figure svg text[fill=\"#222222\"]')).fill" + SUM
GROUND = "getComputedStyle(document.querySelector('figure svg > rect')).fill" + SUM
LINE = "getComputedStyle(document.querySelector('figure svg [stroke=\"#222222\"], figure svg [stroke=\"#6E6E6E\"]')).stroke" + SUM


def sizes(browser, url, shoot):
    """Nothing is cut off and nothing scrolls sideways, from a telephone to a wall, light and dark."""
    for width in (420, 1400, 2200):
        for scheme in ("light", "dark"):
            browser.look(width, 1200, scheme)
            browser.open(url)
            at = f"{width} {scheme}"
            wide = browser.ask("document.documentElement.scrollWidth")
            check(f"{at}: the page does not scroll sideways", wide <= width, wide)
            out = browser.ask(STICK_OUT)
            check(f"{at}: no word sticks out of its figure", out == [], out[:3] or "")
            ink, ground, line = (browser.ask(one) for one in (INK, GROUND, LINE))
            check(f"{at}: figures are in the page's colours",
                  (ink > 500 and ground < 150 and line > 250) if scheme == "dark" else (ink < 200 and ground > 700),
                  [ink, ground, line])
            shoot(f"page_{width}_{scheme}")
            browser.ask("document.querySelector('#figures, #time').scrollIntoView()")
            shoot(f"figures_{width}_{scheme}")
        held = browser.ask("""(function () { var box = document.querySelector('#cells .scroll');
          box.scrollLeft = 10000; var cell = box.querySelector('tbody td');
          return [box.scrollLeft, cell.getBoundingClientRect().left - box.getBoundingClientRect().left]; })()""")
        check(f"{width}: the first column stays where a table scrolls", held[0] == 0 or abs(held[1]) < 2, held)


# A4 within its margins of 12 mm, pixels of 1/96 inch: upright, and across for the wide tables.
UPRIGHT, ACROSS = (703, 1032), (1032, 703)
# What is wider than the page, or would have to be cut: figures and rows higher than the page.
TOO_LARGE = """(function (sections, width, height) {
  var inside = Array.from(document.querySelectorAll(sections)).flatMap(function (section) {
    return Array.from(section.querySelectorAll('*')); });
  var seen = inside.filter(function (one) { return one.checkVisibility(); });
  var named = function (one) { return one.tagName + ' ' + one.textContent.trim().slice(0, 30); };
  var wide = seen.filter(function (one) { return one.getBoundingClientRect().right > width + 1; });
  var high = seen.filter(function (one) {
    return one.matches('figure, tr, .timeline svg') && one.getBoundingClientRect().height > height; });
  return wide.concat(high).map(named); })"""
SCREEN_ONLY = """Array.from(document.querySelectorAll('nav, button, th button')).filter(function (one) {
  return one.checkVisibility() || one.closest('th'); }).length"""
STUCK = """Array.from(document.querySelectorAll('td, th')).filter(function (one) {
  return getComputedStyle(one).position === 'sticky'; }).length"""


def printed(browser, url, shoot):
    """On paper nothing is cut off, nothing overlaps, and all is dark on white, whatever the screen was."""
    for scheme in ("light", "dark"):
        for (width, height), sections in ((UPRIGHT, "header, section:not(.wide)"), (ACROSS, "section.wide")):
            browser.look(width, height, scheme, "print")
            browser.open(url)
            # As the button leaves it, and with a cell's evidence open.
            browser.ask(f"document.documentElement.setAttribute('data-theme', '{scheme}')")
            browser.ask("document.querySelectorAll('#evidence details').forEach(function (one, at) {"
                        " one.open = at < 2; })")
            at = f"printed {width} {scheme}"
            large = browser.ask(f"{TOO_LARGE}('{sections}', {width}, {height})")
            check(f"{at}: nothing is larger than the page", large == [], large[:3] or "")
            ink, ground = browser.ask(INK), browser.ask(GROUND)
            paper = browser.ask(LIGHTNESS)
            check(f"{at}: dark on white", ink < 200 and ground > 700 and paper > 700, [ink, ground, paper])
            stuck, left = browser.ask(STUCK), browser.ask(SCREEN_ONLY)
            check(f"{at}: no column sticks and no button is left", stuck == 0 and left == 0, [stuck, left])
            split = browser.ask("""Array.from(document.querySelectorAll('figure, tr, thead')).filter(function (one) {
              return getComputedStyle(one).breakInside !== 'avoid'; }).length""")
            check(f"{at}: no figure, row or head is cut by a page's end", split == 0, split)
            shoot(f"print_{width}_{scheme}")
    told = browser.ask("document.querySelector('#glossary dl').checkVisibility()")
    folded = browser.ask("document.querySelector('#evidence details:last-of-type .pairs').checkVisibility()")
    check("printed: the glossary is unfolded, the evidence of a cell as it was left", told and not folded, [told, folded])


def paper(browser, shots):
    """The PDF itself: upright pages, and pages across for the wide tables."""
    pdf = base64.b64decode(browser.call("Page.printToPDF", preferCSSPageSize=True)["data"])
    boxes = re.findall(rb"/MediaBox \[0 0 ([0-9]+)[0-9.]* ([0-9]+)[0-9.]*\]", pdf)
    across = sum(int(width) > int(height) for width, height in boxes)
    check("it can be printed", pdf.startswith(b"%PDF") and len(pdf) > 20_000, f"{len(pdf)} bytes")
    check("pages are upright, and across for wide tables", 0 < across < len(boxes), f"{across} of {len(boxes)}")
    if shots:
        (shots / "print.pdf").write_bytes(pdf)


def judge(browser, url, shots):
    def shoot(name):
        if shots:
            shots.mkdir(parents=True, exist_ok=True)
            data = browser.call("Page.captureScreenshot", format="png")["data"]
            (shots / f"{name}.png").write_bytes(base64.b64decode(data))

    browser.look(1300, 1000, "light")
    browser.open(url)
    light = browser.ask(LIGHTNESS)
    check("light where the system is light", light > 700, light)
    check("the page does not scroll sideways at 1300",
          browser.ask("document.documentElement.scrollWidth <= innerWidth"))
    check("the answer is on the first screen",
          browser.ask("document.querySelector('#answer table').getBoundingClientRect().bottom < 1000"))
    figures = browser.ask("document.querySelectorAll('figure svg').length")
    check("figures are part of the page", figures >= 2, figures)
    shoot("light")
    rows = browser.ask(COLUMN + "(0)")
    up = browser.ask(COLUMN + "(1)")
    check("a click sorts upwards", up == sorted(rows) and len(rows) > 1, len(rows))
    down = browser.ask(COLUMN + "(1)")
    check("another sorts downwards", down == sorted(rows, reverse=True))
    browser.ask("document.getElementById('theme').click()")
    check("the button makes it dark", browser.ask(LIGHTNESS) < 150)
    opened = browser.ask("""(function () { var link = document.querySelector('#cells a.verdict');
      link.click(); return link.hash; })()""")
    check("a verdict leads to its evidence", browser.ask(f"document.querySelector('{opened}').open"), opened)
    shoot("evidence")
    timelines(browser, shoot, "dark")
    browser.look(1300, 1000, "light")
    browser.open(url)
    timelines(browser, shoot, "light")

    browser.look(1300, 1000, "dark")
    browser.open(url)
    dark = browser.ask(LIGHTNESS)
    check("dark where the system is dark", dark < 150, dark)
    shoot("dark")
    browser.look(390, 844, "light")
    browser.open(url)
    check("the page does not scroll sideways at 390",
          browser.ask("document.documentElement.scrollWidth <= innerWidth"),
          browser.ask("document.documentElement.scrollWidth"))
    shoot("narrow")
    sizes(browser, url, shoot)
    printed(browser, url, shoot)

    complaints = [event["params"] for event in browser.events if event["method"] == "Runtime.exceptionThrown"
                  or (event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error")]
    check("no error in the console", complaints == [], complaints or "")
    asked = [event["params"]["request"]["url"] for event in browser.events
             if event["method"] == "Network.requestWillBeSent"]
    foreign = [one for one in asked if one.split("#")[0] != url]
    check("nothing but the file is asked for", asked != [] and foreign == [], foreign or len(asked))
    dialogs = [event for event in browser.events if event["method"] == "Page.javascriptDialogOpening"]
    check("no dialog", dialogs == [])

    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.look(1300, 1000, "light")
    browser.open(url)
    check("tables are there without scripts",
          browser.ask("document.querySelectorAll('#cells tbody tr').length") == len(rows))
    check("no dead button without scripts",
          browser.ask("getComputedStyle(document.getElementById('theme')).display") == "none")
    browser.ask("document.querySelectorAll('details.timeline').forEach(function (one, at) {"
                " if (at < 2) { one.parentElement.open = true; one.open = true; } })")
    paper(browser, shots)


main()
