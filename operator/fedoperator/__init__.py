"""The fedtrain operator: api describes, rounds decides, cluster does.

Imports point one way, `cluster → rounds → api` (and `local → rounds`, `cli → everything`); a test
keeps it so. `api` and `rounds` are pure: no kopf, asyncio, logging, clock, client or file system.
"""
