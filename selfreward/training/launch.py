"""Several trainer processes on one machine: torchrun, tied to the driver as a single trainer would be.

`python -m selfreward.training.launch FOLDER PROCESSES`; the ranks are tied to this process in turn.
"""

from __future__ import annotations

import sys

from selfreward.engines.process import join_driver

if __name__ == "__main__":
    join_driver(watch=True)
    from torch.distributed.run import main

    folder, processes = sys.argv[1:]
    main(["--standalone", "--nproc-per-node", processes, "-m", "selfreward.training", folder])
