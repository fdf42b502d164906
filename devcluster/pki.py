"""Certificates and kubeconfigs, made with the openssl command."""

import base64
import dataclasses
import json
import pathlib

from devcluster import shell

DAYS = "3650"
# openssl's own configuration would make every certificate an authority.
_CONFIGURATION = "[req]\ndistinguished_name=dn\n[dn]\n"
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whom a client certificate makes its holder: the user, and at most one group."""

    user: str
    group: str | None = None

    @property
    def subject(self) -> str:
        return f"/O={self.group}/CN={self.user}" if self.group else f"/CN={self.user}"


@dataclasses.dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority in a folder; whatever is there already is kept."""

    folder: pathlib.Path

    def certificate(self, name: str) -> pathlib.Path:
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> pathlib.Path:
        return self.folder / f"{name}.key"

    def create(self) -> None:
        """Make the authority ("ca") and the key that signs service accounts ("accounts")."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        shell.write(self.folder / "openssl.cnf", _CONFIGURATION)
        extensions = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")
        self._make("ca", Identity(user="fedtrain-dev"), extensions, signed=False)
        self._make("accounts", Identity(user="service-accounts"), (), signed=True)

    def issue(self, name: str, identity: Identity, *, names: tuple[str, ...] = ()) -> None:
        """Make a certificate for a client, and for a server too when `names` are given."""
        extensions = [
            "basicConstraints=critical,CA:FALSE",
            f"extendedKeyUsage=clientAuth{',serverAuth' if names else ''}",
        ]
        if names:
            kinds = ((("IP" if name[-1].isdigit() else "DNS"), name) for name in names)
            extensions.append(f"subjectAltName={','.join(f'{k}:{name}' for k, name in kinds)}")
        self._make(name, identity, tuple(extensions), signed=True)

    def kubeconfig(self, name: str, *, server: str) -> str:
        """A kubeconfig that holds everything inline, so that the file can be moved and mounted."""

        def inline(path: pathlib.Path) -> str:
            return base64.b64encode(path.read_bytes()).decode()

        authority = inline(self.certificate("ca"))
        user = {
            "client-certificate-data": inline(self.certificate(name)),
            "client-key-data": inline(self.key(name)),
        }
        cluster = {"server": server, "certificate-authority-data": authority}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fedtrain-dev", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [
                {"name": "fedtrain-dev", "context": {"cluster": "fedtrain-dev", "user": name}}
            ],
            "current-context": "fedtrain-dev",
        }
        return json.dumps(document, indent=2) + "\n"

    def _make(
        self, name: str, identity: Identity, extensions: tuple[str, ...], *, signed: bool
    ) -> None:
        certificate, key = self.certificate(name), self.key(name)
        if certificate.exists() and key.exists():
            return
        additions = [word for text in extensions for word in ("-addext", text)]
        authority = ("-CA", str(self.certificate("ca")), "-CAkey", str(self.key("ca")))
        issuer = authority if signed else ()
        shell.run(
            *("openssl", "req", "-x509", "-config", str(self.folder / "openssl.cnf"), *_KEY),
            *("-days", DAYS, "-subj", identity.subject, *additions, *issuer),
            *("-keyout", str(key), "-out", str(certificate)),
        )
        key.chmod(0o600)
