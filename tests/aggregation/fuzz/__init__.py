"""A fuzzer of the intake that knows what an update is made of.

python -m tests.aggregation.fuzz --seconds 3600 --seed 7     # from the repository's root

mutations   spoil a draft of an update: receipt, header, tensors, bytes, kind of file
batch       a round of honest and mutated participants, and what must hold of it
__main__    batch after batch; a failing one is left on the disk, with its seed
"""
