"""`python -m fedtrain.aggregation`: does the task in the environment and exits by the contract."""

import os
import sys

if __name__ == "__main__":
    # Before numpy is loaded: the sums are elementwise, so BLAS threads would only cost memory,
    # and inspection forks, which wants a process of a single thread.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from fedtrain.aggregation.process import main

    sys.exit(main())
