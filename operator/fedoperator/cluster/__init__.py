"""The shell on a cluster: it watches, asks `decide`, and carries the plan out in one order.

    watch (kopf, eyes only) → workqueue (one look per key at a time) → reconcile: list the
    children, then read the parent and its records, decide, commit → client (the verbs) → api

Only the lease's holder looks (leader); telemetry and health tell what happens.
"""
