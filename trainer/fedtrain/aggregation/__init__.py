"""The aggregator: reads what participants published, refuses what is not sound, folds the rest.

    python -m fedtrain.aggregation        # the task is in FEDTRAIN_TASK, see fedtrain.contract

    process      one task, one message, one exit code
    prepare      the folders of a training          importing   a checkpoint becomes global/0
    engine       one aggregation: inspection → fold → publication → pruning
    inspection   one candidate, in a child process (children) that only it can crash
    fold         the accepted updates, a tile at a time
    prune        what no round needs any more; removal   whatever is in it

Numpy and the standard library only; neither torch nor pickle ever sees a participant's bytes.
"""
