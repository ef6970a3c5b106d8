"""How long the page of a report takes: to be made, to open in headless Chromium, to be searched.

    python benchmarks/report_page.py [--images 5000] [--runs 5] [--keep DIR]

The report is that of a bulk push by the real engine to simulated registries (tests/bulkpush.py),
the same each time. Opening is measured in the browser, from the begin of the navigation to the
page's own mark "ready", which it sets when all of it is drawn; so is a search.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from bulkpush import bulk_push
from chromium import chromium

from asyncpush.report.file import read_report
from asyncpush.report.page.render import write_page

_SEARCH = """(() => {
  const input = document.getElementById("search");
  const begin = performance.now();
  input.value = "us-east-1 status:failed";
  input.dispatchEvent(new Event("input"));
  return performance.now() - begin;
})()"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="where to leave report and page")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = args.keep or Path(folder)
        report, page = place / "report.json", place / "report.html"
        bulk_push(report, args.images)
        begin = time.monotonic()
        write_page(page, read_report(report))
        made = time.monotonic() - begin
        ready, found = [], []
        for _ in range(args.runs):
            with chromium() as tab:
                tab.size(1440, 1000)
                tab.open(page.as_uri())
                ready.append(tab.run("performance.getEntriesByName('ready')[0].startTime") / 1000)
                found.append(tab.run(_SEARCH) / 1000)
                assert not tab.problems, tab.problems
        print("images   report MB   page MB   made s   ready s (median, most)   search s")
        sizes = [path.stat().st_size / 1e6 for path in (report, page)]
        print(
            f"{args.images:>6} {sizes[0]:>11.1f} {sizes[1]:>9.1f} {made:>8.1f}"
            f" {statistics.median(ready):>10.2f} {max(ready):>12.2f}"
            f" {statistics.median(found):>10.3f}"
        )


if __name__ == "__main__":
    main()
