"""The operator's process on a control plane whose nodes and pods are played, and what it did."""
