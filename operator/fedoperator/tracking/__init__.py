"""Rounds, as MLflow and TensorBoard know them. A reader: it changes nothing that others read.

    training, FederatedRounds → figures (pure: a run and its steps) → sending → mlflow, tensorboard

Whoever sends asks the tracker which steps are there and sends the others, each as a whole and in
order. So it may end, be killed and begin again anywhere, and nobody waits for it.
"""
