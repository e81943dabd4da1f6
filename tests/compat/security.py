"""TLS, credentials of channels and calls, and who calls."""

from __future__ import annotations

import asyncio
import tempfile
from typing import Any

import grpc
import grpc.aio

from tests.compat.certificates import certificates
from tests.compat.lab import ALL_KINDS, Lab, Seen, attempt, case, drained, method, outcome, unary


async def who(request: bytes, context: Any) -> bytes:
    """Reply with what is known of the caller."""
    auth = context.auth_context()
    return repr(
        {
            "peer": context.peer().split(":")[0],
            "identities": None if context.peer_identities() is None else sorted(context.peer_identities()),
            "identity key": context.peer_identity_key(),
            "keys": sorted(
                key for key in auth if key in ("transport_security_type", "x509_common_name", "security_level")
            ),
            "type": list(auth.get("transport_security_type", ())),
        }
    ).encode()


async def tokens(request: bytes, context: Any) -> bytes:
    """Reply with the tokens that came with the call."""
    return " ".join(sorted(str(value) for key, value in context.invocation_metadata() if key == "token")).encode()


class Tokens(grpc.AuthMetadataPlugin):
    """Gives each call a token of its own."""

    def __init__(self, name: str = "t") -> None:
        self.name = name
        self.asked = 0

    def __call__(self, context: Any, callback: Any) -> None:
        self.asked += 1
        callback((("token", f"{self.name}{self.asked}"),), None)


class Refuses(grpc.AuthMetadataPlugin):
    """Gives none."""

    def __call__(self, context: Any, callback: Any) -> None:
        callback((), RuntimeError("no token today"))


@case(managers=True)
async def an_insecure_caller(lab: Lab) -> Seen:
    return {"who": await method(await lab.channel({"Who": unary(who)}), "Who")(b"")}


@case(managers=True)
async def a_caller_over_tls(lab: Lab) -> Seen:
    made = certificates()
    served = await lab.serve({"Who": unary(who), **ALL_KINDS}, address="localhost:0", credentials=made.server())
    channel = lab.connect(served.target, credentials=made.client())
    return {
        "who": await method(channel, "Who")(b""),
        "chat": await drained(method(channel, "Chat", "stream_stream")(iter([b"a", b"b"]))),
        "join": await method(channel, "Join", "stream_unary")(iter([b"a", b"b"])),
    }


@case(managers=True)
async def a_caller_with_a_certificate(lab: Lab) -> Seen:
    made = certificates()
    served = await lab.serve({"Who": unary(who)}, address="localhost:0", credentials=made.server(ask=True))
    channel = lab.connect(served.target, credentials=made.client(show=True))
    return {"who": await method(channel, "Who")(b"")}


@case()
async def a_server_that_is_not_trusted(lab: Lab) -> Seen:
    made = certificates()
    served = await lab.serve(ALL_KINDS, address="localhost:0", credentials=made.server())
    channel = lab.connect(served.target, credentials=grpc.ssl_channel_credentials())
    return {"code": (await method(channel, "Echo")(b"").code()).name}


@case(managers=True)
async def call_credentials(lab: Lab) -> Seen:
    made, plugin = certificates(), Tokens()
    served = await lab.serve({"Tokens": unary(tokens)}, address="localhost:0", credentials=made.server())
    call = method(lab.connect(served.target, credentials=made.client()), "Tokens")
    credentials = grpc.metadata_call_credentials(plugin)
    return {
        "first": await call(b"", credentials=credentials),
        "second": await call(b"", credentials=credentials),
        "without": await call(b""),
    }


@case()
async def call_credentials_that_refuse(lab: Lab) -> Seen:
    made = certificates()
    served = await lab.serve({"Tokens": unary(tokens)}, address="localhost:0", credentials=made.server())
    call = method(lab.connect(served.target, credentials=made.client()), "Tokens")
    failed = await outcome(call(b"", credentials=grpc.metadata_call_credentials(Refuses())))
    return {"failed": str(failed).split(":")[0], "says why": "no token today" in str(failed)}


@case()
async def call_credentials_without_tls(lab: Lab) -> Seen:
    channel = await lab.channel(ALL_KINDS)
    credentials = grpc.access_token_call_credentials("secret")
    down = method(channel, "Count", "unary_stream")
    return {
        "unary": await attempt(lambda: method(channel, "Echo")(b"", credentials=credentials)),
        "down": await attempt(lambda: down(b"1", credentials=credentials)),
    }


@case(managers=True)
async def composite_channel_credentials(lab: Lab) -> Seen:
    made, plugin = certificates(), Tokens("channel")
    served = await lab.serve({"Tokens": unary(tokens)}, address="localhost:0", credentials=made.server())
    composite = grpc.composite_channel_credentials(made.client(), grpc.metadata_call_credentials(plugin))
    call = method(lab.connect(served.target, credentials=composite), "Tokens")
    of_call = grpc.metadata_call_credentials(Tokens("call"))
    return {"each call": [await call(b"") for _ in range(3)], "with the call's": await call(b"", credentials=of_call)}


@case(managers=True)
async def local_credentials(lab: Lab) -> Seen:
    kind = grpc.LocalConnectionType.LOCAL_TCP
    served = await lab.serve({"Who": unary(who)}, credentials=grpc.local_server_credentials(kind))
    channel = lab.connect(served.target, credentials=grpc.local_channel_credentials(kind))
    return {"who": await method(channel, "Who")(b"")}


@case(managers=True)
async def an_authority_of_ones_own(lab: Lab) -> Seen:
    made = certificates()
    served = await lab.serve(ALL_KINDS, address="127.0.0.1:0", credentials=made.server())
    options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.default_authority", "localhost")]
    channel = lab.connect(served.target, credentials=made.client(), options=options)
    return {"replies": await asyncio.gather(*(method(channel, "Echo")(b"x") for _ in range(3)))}


@case(managers=True)
async def a_caller_over_a_unix_socket(lab: Lab) -> Seen:
    with tempfile.TemporaryDirectory() as folder:
        target = f"unix:{folder}/s"
        await lab.serve({"Who": unary(who)}, address=target)
        seen = {"who": await method(lab.connect(target), "Who")(b"")}
        await lab.stack.aclose()
    return seen
