"""The fault bench: the operator as a process, killed before, in and after every one of its writes.

The operator talks to a real API server through a proxy of ours (`proxy`) that kills it, answers in
the server's place, loses, delays and repeats. A player (`player`, `garbage`) does what Job
controller, kubelet and garbage collector would; a mirror (`mirror`) sees everything that is ever
stored. A scenario (`scenarios`) is run undisturbed, then once for every write and position, and
each run has to come to the same end (`verdict`). `docs/explanation/faults.md` has the promise.
"""
