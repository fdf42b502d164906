"""The aggregator: reads what participants published, refuses what is not sound, folds the rest.

    python -m fedtrain.aggregation        # the task is in FEDTRAIN_TASK, see fedtrain.contract

    process      one task, one message, one exit code
    prepare      the folders of a training          importing   a checkpoint becomes global/0
    engine       one aggregation: intake → passes → publication → pruning
    inspection   a candidate's receipt and header, in a child process that only it can crash
    round        the passes: again without whoever turned out unsound, until nobody does
    passes       one pass by threads; units: how it is cut; updates: what all of them read, hash and
                 look at (soundness); measuring and fold: what they do with it
    weighting    how the updates are put together, from what was measured; sums: the arithmetic
    server       the server's own state             parts       the files that are written
    report       what a pass found, the same for one process (peers) or many shards
    prune        what no round needs any more; removal   whatever is in it

Numpy and the standard library only; neither torch nor pickle ever sees a participant's bytes.
"""
