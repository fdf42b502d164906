"""Synthetic(α, β) of FedProx, by `fedtrain run` and in one process."""
