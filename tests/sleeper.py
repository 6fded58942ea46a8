"""A child that does nothing but live: what a trainer is to its driver."""

import time

from selfreward.engines.process import join_driver

if __name__ == "__main__":
    join_driver(watch=True).send("ready")
    time.sleep(600)
