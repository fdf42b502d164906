"""The cluster's verbs with processes for pods and folders for volumes: `fedtrain run`.

`applied` takes the file as an API server would, `machine` says which processes a workload is,
`children` queues and ends them by means of `processes`, `evidence` is how they ended, `shell`
carries out what `decide` decides, `report` tells.
"""
