"""The tracker's process: looks at the store every few seconds, and once more when the command ends."""

import contextlib
import json
import sys
from pathlib import Path

from selfreward.engines.process import join_driver
from selfreward.store.accounts import Accounts
from selfreward.track.points import Told
from selfreward.track.trackers import Tracker, open_tracker

EVERY = 5.0  # seconds between two looks


def main() -> None:
    """Follows the store that is named by the job in the first argument."""
    job = json.loads(sys.argv[1])
    pipe = join_driver(watch=False)
    views = Accounts(Path(job["database"]), write=False)
    run = views.run()
    tracker = open_tracker(job["kind"], Path(job["folder"]), run.name, json.loads(run.recipe))
    told = Told(job["texts"])
    ended = False
    while not ended:
        with contextlib.suppress(EOFError):
            ended = pipe.poll(EVERY)  # the driver says nothing: what can be read is the end
        look(views, told, tracker)
    tracker.close()


def look(views: Accounts, told: Told, tracker: Tracker) -> None:
    """Tells what is new."""
    for point in told.points(views):
        tracker.point(point)
    for tag, x, text in told.texts(views):
        tracker.text(tag, x, text)
    tracker.flush()


if __name__ == "__main__":
    main()
