"""What schemathesis must know of the service besides its document: credentials, and things that exist.

Every request that the document wants signed is signed, each with a nonce of its own, by a key that is registered in the
role of the route. So what is tested lies behind the signature, where strangers do not get.
"""

import base64
import os
import secrets
import struct
import time

import requests
import schemathesis
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

URL = os.environ["GAINSAY_URL"]
API_KEY = os.environ["GAINSAY_API_KEY"]
OPERATOR_TOKEN = os.environ["GAINSAY_OPERATOR_TOKEN"]
PATIENCE_SECS = 60
# Inputs that one request may hold, and how many are enough here.
MOST_TEXTS, MANY_TEXTS = 2048, 64


def counted(data):
    """A byte string in the canonical encoding."""
    return struct.pack("<I", len(data)) + data


class Key:
    """An Ed25519 key of a party."""

    def __init__(self):
        self.secret = Ed25519PrivateKey.generate()
        self.public = self.secret.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, context, encoding):
        digest = blake3(encoding, derive_key_context=context).digest()
        return self.secret.sign(digest)


class SignedBy(requests.auth.AuthBase):
    """Signs a request as it leaves: docs/API.md says what the signature covers."""

    def __init__(self, key):
        self.key = key

    def __call__(self, request):
        body = request.body or b""
        body = body.encode() if isinstance(body, str) else body
        now, nonce = service_time_ms(), secrets.token_bytes(16)
        encoding = b"".join([
            b"\x01",
            COORDINATOR,
            counted(request.method.encode()),
            counted(request.path_url.encode()),
            blake3(body).digest(),
            struct.pack("<q", now),
            nonce,
        ])
        request.headers.update({
            "gainsay-party": self.key.public.hex(),
            "gainsay-time": str(now),
            "gainsay-nonce": nonce.hex(),
            "gainsay-signature": self.key.sign("gainsay v1 request", encoding).hex(),
        })
        return request


class Bearer(requests.auth.AuthBase):
    def __init__(self, token):
        self.token = token

    def __call__(self, request):
        request.headers["authorization"] = f"Bearer {self.token}"
        return request


def service_time_ms():
    """Now, from what the service said at the start: asking again for each request would double their number."""
    return int(TIME_MS + (time.monotonic() - ASKED_AT) * 1000)


def call(method, path, auth, **body):
    answer = requests.request(method, URL + path, auth=auth, timeout=PATIENCE_SECS, **body)
    answer.raise_for_status()
    return answer.json()


def enlistment(role, key):
    """A key's own statement that it serves the owner."""
    encoding = b"\x01" + COORDINATOR + OWNER.public + bytes([role])
    return encoding + key.public + key.sign("gainsay v1 enlistment", encoding)


def enlist(path, role, name):
    key = Key()
    body = {"name": name, "enlistment": base64.b64encode(enlistment(role, key)).decode()}
    call("POST", path, SignedBy(OWNER), json=body)
    return key


INFO = call("GET", "/v1/info", None)
ASKED_AT = time.monotonic()
TIME_MS = int(INFO["service_time_ms"])
COORDINATOR = bytes.fromhex(INFO["coordinator"])

# The parties that ask, with money.
SUBMITTER, OPERATOR = Bearer(API_KEY), Bearer(OPERATOR_TOKEN)
OWNER = Key()
ACCOUNT = call("POST", "/v1/owners", SignedBy(OWNER), json={"name": "conformance"})["owner"]
call("POST", "/v1/deposits", OPERATOR, json={"to": ACCOUNT, "amount": 10**9})
WORKER = enlist("/v1/workers", 0, "conformance worker")
CHALLENGER = enlist("/v1/challengers", 1, "conformance challenger")

# Things to ask for.
MODELS = {model["name"]: model for model in call("GET", "/v1/models", None)["data"]}
MODEL, LANGUAGE_MODEL = MODELS["all-MiniLM-L6-v2"], MODELS["tiny"]
ANSWERED = call("POST", "/v1/embeddings", SUBMITTER, json={"model": MODEL["name"], "input": "one two three"})
CLAIM = call("GET", f"/v1/claims/{ANSWERED['gainsay']['claim']}", None)
EXISTING = {
    "/v1/jobs/": ANSWERED["gainsay"]["job"],
    "/v1/claims/": CLAIM["id"],
    "/v1/models/": MODEL["id"],
    "/v1/leases/": CLAIM["lease_id"],
}

# Who asks for what. Where the document offers several ways, one of them. Nobody voids: the one model here would be gone.
for paths, method, credentials in [
    (r"^/v1/(embeddings|chat|completions|jobs|accounts|withdrawals)", None, SUBMITTER),
    (r"^/v1/(deposits|audit)", None, OPERATOR),
    (r"^/v1/disputes/{id}/resume$", None, OPERATOR),
    (r"^/v1/(models|blobs)/", "PUT", OPERATOR),
    (r"^/v1/(owners|workers|challengers)$", None, SignedBy(OWNER)),
    (r"^/v1/leases", None, SignedBy(WORKER)),
    (r"^/v1/claims$", "POST", SignedBy(WORKER)),
    (r"^/v1/disputes(/{id}/moves)?$", "POST", SignedBy(CHALLENGER)),
]:
    chosen = schemathesis.auth.set_from_requests(credentials)
    chosen.apply_to(path_regex=paths, **({"method": method} if method else {}))


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Random ids name nothing: let most of them name what exists."""
    path = context.operation.path if context.operation else ""
    for prefix, existing in EXISTING.items():
        given = (path_parameters or {}).get("id")
        if path.startswith(prefix) and isinstance(given, str) and len(given) == len(existing) and given[0] not in "0f":
            return {**path_parameters, "id": existing}
    return path_parameters


@schemathesis.hook
def map_body(context, body):
    """Random names name no model: let half of them name the one that is served, and deposits a holder."""
    if isinstance(body, dict):
        generates = context.operation and context.operation.path in ("/v1/chat/completions", "/v1/completions")
        if isinstance(body.get("model"), str) and len(body["model"]) % 2:
            body = {**body, "model": (LANGUAGE_MODEL if generates else MODEL)["name"]}
        # Long answers are much work.
        return {**body, **{name: min(body[name], 3) for name in ("n", "max_tokens", "max_completion_tokens")
                           if type(body.get(name)) is int}} if generates else body | deposit_to(body)
    return body


def deposit_to(body):
    """The holder of a deposit, where the body names one."""
    return {"to": ACCOUNT} if isinstance(body.get("to"), str) and len(body["to"]) == len(ACCOUNT) else {}


@schemathesis.hook
def before_call(context, case, kwargs):
    """Long waits are for clients that have time, a stream without news says nothing, and thousands of texts are much work."""
    query = case.query or {}
    if str(query.get("wait_ms", "")).isdigit() and int(query["wait_ms"]) < 2**64:
        case.query = {**query, "wait_ms": min(int(query["wait_ms"]), 50)}
    if case.path == "/v1/events" and not query and case.method.upper() == "GET":
        case.query = {"after": "0"}
    texts = case.body.get("input") if isinstance(case.body, dict) else None
    if isinstance(texts, list) and MANY_TEXTS < len(texts) <= MOST_TEXTS:
        case.body = {**case.body, "input": texts[:MANY_TEXTS]}
