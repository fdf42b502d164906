"""`python -m fedtrain.aggregation`: does the task in the environment and exits by the contract."""

import os
import sys

if __name__ == "__main__":
    # Before numpy is loaded: sums are elementwise and inner products are taken by threads of our
    # own, of which each product has one, so that its bits do not depend on how many there are.
    # And intake forks, which wants a process of a single thread.
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    from fedtrain.aggregation.process import main

    sys.exit(main())
