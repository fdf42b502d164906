"""The same federations run by fedtrain, by Flower and by FLARE, for benchmarks/rounds.py.

`tasks` names them, `work` is what each participant does in any of the systems; `ours`, `flower` and
`flare` run a task and say how long its rounds took, with the scripts a user of that system would
write (`script`, `flower_app`, `flare_job`, `flare_client`); `watching` keeps limits and memory.
"""
