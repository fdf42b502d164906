"""The cluster's verbs with processes for pods and folders for volumes: `fedtrain run`.

`applied` takes the file as an API server would, `machine` says which processes a workload is,
`processes` and `children` run them, `shell` carries out what `decide` decides, `report` tells.
"""
