"""A report as a process of its own, beside a run: `python -m selfreward.report DATABASE FILE`."""

import sys
from pathlib import Path

from selfreward.errors import SelfRewardError
from selfreward.files import write_text
from selfreward.report.facts import gather
from selfreward.report.page import page
from selfreward.report.text import markdown

if __name__ == "__main__":
    database, to = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        facts = gather(database)
        write_text(to, page(facts) if to.suffix == ".html" else markdown(facts))
    except SelfRewardError as error:
        sys.exit(str(error))
