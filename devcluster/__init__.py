"""A real Kubernetes on one Linux machine, built from Go modules, in a network namespace of its own.

Run it as ``python3 -m devcluster VERB`` from the repository root; README.md lists the verbs. The
package needs nothing but the standard library, because it also runs before any virtual environment
exists, and root, because it makes namespaces, mounts and containers.
"""
