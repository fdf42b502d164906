"""The verbs of the operator against a Kubernetes API server.

Children are written once, by POST, and never applied again. Every write names what it expects to
find: a status the resourceVersion and uid it was decided from, a deletion the uid.
"""

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from fedoperator import errors
from fedoperator.api import API_VERSION, GROUP, VERSION
from fedoperator.api import round as round_api
from fedoperator.api import training as training_api
from fedoperator.api.round import Record
from fedoperator.api.training import Training
from fedoperator.cluster.api import JSON, Api, Object
from fedoperator.rounds import jobs, observed
from fedoperator.rounds.observed import Identity

CHUNK = 50
"""Objects of one answer to a list; whoever makes them may give each a megabyte."""

NAMED = 25
"""Jobs whose pods are asked for by name; a list of all is no longer than a longer question."""

METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""Asks for a list of objects without spec and status."""

EVENTS = 20
"""Events of one object; the last complaint is enough."""

_COLLECTIONS = {
    "Job": ("/apis/batch/v1", "jobs"),
    "Service": ("/api/v1", "services"),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims"),
    "PodGroup": ("/apis/scheduling.k8s.io/v1beta1", "podgroups"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    training_api.KIND: (f"/apis/{GROUP}/{VERSION}", training_api.PLURAL),
    round_api.KIND: (f"/apis/{GROUP}/{VERSION}", round_api.PLURAL),
}


class Cluster(Protocol):
    """What a look needs of a cluster, and nothing else: first what it reads, then what it writes.

    All raise errors.ClusterError. Documents are dicts as the API server sent them, except for
    records, which only this operator writes.
    """

    async def jobs(self, namespace: str, training: str) -> list[Object]:
        """The Jobs labelled with the training, whoever owns them."""

    async def pods(self, namespace: str, training: str, owners: Collection[str]) -> list[Object]:
        """Those of the training's Jobs with the uids `owners`; maybe more."""

    async def events(self, namespace: str, uid: str) -> list[Object]:
        """A few events about the object of that uid."""

    async def training(self, namespace: str, name: str) -> Object:
        """Raises Gone."""

    async def record(self, namespace: str, name: str, owner: str) -> Record | None:
        """None if there is no such round of the training whose uid is `owner`."""

    async def records(self, namespace: str, training: str) -> list[Object]:
        """The metadata, and no more, of the FederatedRounds labelled with the training."""

    async def create_record(self, training: Training, record: Record) -> None:
        """Raises Conflict if the round has begun already, NameTaken if it is somebody else's."""

    async def put_record_status(self, namespace: str, record: Record) -> None:
        """Raises Conflict if the record is not what was read any more."""

    async def put_training_status(self, read: Object, status: Object) -> Object:
        """The training as written. Raises Conflict if it is not `read` any more."""

    async def create(self, document: Object, owner: str) -> bool:
        """False if it is there already, and ours. Raises NameTaken, Refused.

        owner: the uid of its controller.
        """

    async def delete_job(self, namespace: str, name: str, uid: str) -> None:
        """With its pods. Gone, or another by now, is fine."""

    async def delete_record(self, namespace: str, name: str, uid: str) -> None:
        """Gone, or another by now, is fine."""

    async def post_event(self, event: Object) -> None: ...


class Kubernetes:
    """`Cluster` by way of an API server."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def jobs(self, namespace: str, training: str) -> list[Object]:
        return await self._list(_path("Job", namespace), training)

    async def pods(self, namespace: str, training: str, owners: Collection[str]) -> list[Object]:
        path, of_few = f"/api/v1/namespaces/{namespace}/pods", ""
        if len(owners) <= NAMED:
            of_few = f",{observed.JOB_UID_LABEL} in ({','.join(sorted(owners))})"
        return await self._list(path, training, also=of_few)

    async def _list(
        self, path: str, training: str, accept: str = JSON, also: str = ""
    ) -> list[Object]:
        """All chunks of one consistent list. Raises Gone if it expires half-way."""
        found: list[Object] = []
        selector = f"{observed.TRAINING_LABEL}={training}{also}"
        query = {"labelSelector": selector, "limit": str(CHUNK)}
        while True:
            answer = await self._api.request("GET", path, query=query, accept=accept)
            for item in answer.get("items") or []:
                item["metadata"].pop("managedFields", None)  # a third of a Job, and nobody's here
                if path.endswith("/jobs") and not observed.stays(item):
                    jobs.strip(item)  # of a thousand only the hub's is read as a whole
                found.append(item)
            rest = (answer.get("metadata") or {}).get("continue")
            if not rest:
                return found
            query = {**query, "continue": rest}

    async def events(self, namespace: str, uid: str) -> list[Object]:
        path = f"/api/v1/namespaces/{namespace}/events"
        query = {"fieldSelector": f"involvedObject.uid={uid}", "limit": str(EVENTS)}
        answer = await self._api.request("GET", path, query=query)
        return list(answer.get("items") or [])

    async def training(self, namespace: str, name: str) -> Object:
        return await self._api.request("GET", _path(training_api.KIND, namespace, name))

    async def record(self, namespace: str, name: str, owner: str) -> Record | None:
        try:
            found = await self._api.request("GET", _path(round_api.KIND, namespace, name))
        except errors.Gone:
            return None
        # One of a training of the same name that is gone: garbage collection will come for it.
        if not is_owned(found, owner):
            return None
        record = Record.from_object(found)
        # Nor is one that somebody wrote by hand, of another round than its name says.
        said = round_api.record_name(record.spec.training, record.spec.round)
        return record if said == name else None

    async def records(self, namespace: str, training: str) -> list[Object]:
        # With a thousand participants a whole record has 175 KB.
        return await self._list(_path(round_api.KIND, namespace), training, METADATA)

    async def create_record(self, training: Training, record: Record) -> None:
        wanted: Object = {
            "apiVersion": API_VERSION,
            "kind": round_api.KIND,
            "metadata": {
                "name": record.name,
                "namespace": training.namespace,
                "labels": {observed.TRAINING_LABEL: training.name},
                "ownerReferences": [jobs.owner_reference(training)],
            },
            "spec": record.spec.to_dict(),
        }
        try:
            made = await self._api.request(
                "POST", _path(round_api.KIND, training.namespace), wanted
            )
        except errors.AlreadyExists as error:
            there = await self.record(training.namespace, record.name, training.uid)
            if there is None:
                raise _taken(wanted) from error
            raise errors.Conflict(f"{record.name} has begun already") from error
        begun = Record.from_object(made).model_copy(update={"status": record.status})
        await self.put_record_status(training.namespace, begun)

    async def put_record_status(self, namespace: str, record: Record) -> None:
        document = {
            "apiVersion": API_VERSION,
            "kind": round_api.KIND,
            "metadata": {
                "name": record.name,
                "namespace": namespace,
                "uid": record.uid,
                "resourceVersion": record.resource_version,
            },
            "spec": record.spec.to_dict(),
            "status": record.status.to_dict(),
        }
        path = _path(round_api.KIND, namespace, record.name)
        await self._put_status(path, document)

    async def put_training_status(self, read: Object, status: Object) -> Object:
        meta = read["metadata"]
        path = _path(training_api.KIND, meta["namespace"], meta["name"])
        return await self._put_status(path, {**read, "status": status})

    async def _put_status(self, path: str, document: Object) -> Object:
        try:
            return await self._api.request("PUT", f"{path}/status", document)
        except errors.Gone as error:
            raise errors.Conflict(str(error)) from error

    async def create(self, document: Object, owner: str) -> bool:
        kind, meta = document["kind"], document["metadata"]
        try:
            await self._api.request("POST", _path(kind, meta["namespace"]), document)
        except errors.AlreadyExists as error:
            there = await self._api.request("GET", _path(kind, meta["namespace"], meta["name"]))
            if "ownerReferences" in meta:
                ours = is_owned(there, owner)
            else:  # A claim: it outlives its training, and serves the next one of that name.
                ours = _label(there) == _label(document)
            if not ours:
                raise _taken(document) from error
            if kind == "Job" and _known_as(there) != _known_as(document):
                sentence = (
                    f"the labels of Job {meta['name']!r} were changed, so that it is not found"
                )
                raise errors.NameTaken(f"{sentence}; delete it, and it is made again") from error
            return False
        return True

    async def delete_job(self, namespace: str, name: str, uid: str) -> None:
        await self._delete(_path("Job", namespace, name), uid)

    async def delete_record(self, namespace: str, name: str, uid: str) -> None:
        await self._delete(_path(round_api.KIND, namespace, name), uid)

    async def _delete(self, path: str, uid: str) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        try:
            await self._api.request("DELETE", path, body)
        except (errors.Gone, errors.Conflict):
            return

    async def post_event(self, event: Object) -> None:
        path = f"/api/v1/namespaces/{event['metadata']['namespace']}/events"
        await self._api.request("POST", path, event)

    async def serves_trainings(self) -> bool:
        """Whether both our resources are installed."""
        try:
            answer = await self._api.request("GET", f"/apis/{GROUP}/{VERSION}")
        except errors.Gone:
            return False
        served = {resource["name"] for resource in answer.get("resources") or []}
        return {training_api.PLURAL, round_api.PLURAL} <= served


def is_owned(document: Mapping[str, Any], owner: str) -> bool:
    """Whether the controller of an object is the one with that uid."""
    references = document["metadata"].get("ownerReferences") or []
    return any(r.get("controller") and r.get("uid") == owner for r in references)


def _label(document: Mapping[str, Any]) -> str | None:
    """The training that an object says it is of."""
    label: str | None = (document["metadata"].get("labels") or {}).get(observed.TRAINING_LABEL)
    return label


def _known_as(job: Mapping[str, Any]) -> tuple[str | None, Identity | None]:
    """What a Job's labels say that it is; without them no list has it, and no look reads it."""
    return _label(job), observed.identity_of(job)


def _path(kind: str, namespace: str, name: str = "") -> str:
    prefix, plural = _COLLECTIONS[kind]
    path = f"{prefix}/namespaces/{namespace}/{plural}"
    return f"{path}/{name}" if name else path


def _taken(document: Mapping[str, Any]) -> errors.NameTaken:
    kind, meta = document["kind"], document["metadata"]
    remedy = "delete it"
    if kind == "PersistentVolumeClaim":  # It may hold what nobody has a copy of.
        remedy = "to keep the exchange on it name it in spec.exchange.claimName"
    sentence = f"{kind} {meta['name']!r} exists and belongs to somebody else; {remedy}, or give"
    return errors.NameTaken(f"{sentence} the training another name")
