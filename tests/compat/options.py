"""What the options of a channel, a call and a server do."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import grpc.aio

from tests.compat.lab import ALL_KINDS, SERVICE, Lab, Seen, case, drained, method, outcome, unary


async def encodings(request: bytes, context: Any) -> bytes:
    """Reply with how the request came, as far as a handler can see it."""
    return b"%d" % len(request)


@case(managers=True)
async def compression_of_the_channel(lab: Lab) -> Seen:
    served = await lab.serve(ALL_KINDS)
    seen = {}
    for kind in (grpc.Compression.Gzip, grpc.Compression.Deflate, grpc.Compression.NoCompression):
        channel = lab.connect(served.target, compression=kind)
        seen[kind.name] = (
            len(await method(channel, "Echo")(bytes(100_000))),
            [len(reply) for reply in await drained(method(channel, "Chat", "stream_stream")(iter([bytes(1000)])))],
        )
    return seen


class Counting:
    """Carries bytes between a client and a server, and counts them."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.up = 0
        self.down = 0
        self.tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", self._port)
        for source, sink, way in ((reader, forth, "up"), (back, writer, "down")):
            task = asyncio.ensure_future(self._carry(source, sink, way))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: str) -> None:
        try:
            while data := await source.read(65536):
                setattr(self, way, getattr(self, way) + len(data))
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()

    async def stop(self) -> None:
        self._server.close()
        tasks = tuple(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@case()
async def compression_shows_on_the_wire(lab: Lab) -> Seen:
    served = await lab.serve(ALL_KINDS)
    proxy = Counting(served.port)
    target = await proxy.start()
    size = 200_000
    squeezed = await method(lab.connect(target, compression=grpc.Compression.Gzip), "Echo")(bytes(size))
    first = proxy.up < size // 10, len(squeezed) == size
    proxy.up = 0
    call = method(lab.connect(target), "Echo")
    await call(bytes(size), compression=grpc.Compression.Gzip)
    second = proxy.up < size // 10
    proxy.up = 0
    await call(bytes(size))
    third = proxy.up < size // 10
    await lab.stack.aclose()
    await proxy.stop()
    return {"channel": first, "call": second, "none": third}


@case()
async def compression_by_the_server(lab: Lab) -> Seen:
    async def squeeze(request: bytes, context: Any) -> bytes:
        if request == b"no":
            context.disable_next_message_compression()
        elif request == b"gzip":
            context.set_compression(grpc.Compression.Gzip)
        return bytes(1000)

    served = await lab.serve({"Squeeze": unary(squeeze)}, compression=grpc.Compression.Deflate)
    call = method(lab.connect(served.target), "Squeeze")
    return {text: len(await call(text.encode())) for text in ("yes", "no", "gzip")}


@case()
async def message_limits_of_the_client(lab: Lab) -> Seen:
    served = await lab.serve(ALL_KINDS)
    options = [("grpc.max_send_message_length", 100), ("grpc.max_receive_message_length", 50)]
    call = method(lab.connect(served.target, options=options), "Echo")

    async def one(size: int) -> str:
        try:
            return str(len(await call(bytes(size))))
        except Exception as error:
            return error.code().name if isinstance(error, grpc.aio.AioRpcError) else type(error).__name__

    return {"small": await one(10), "reply too large": await one(80), "request too large": await one(200)}


@case()
async def message_limits_of_the_server(lab: Lab) -> Seen:
    async def large(request: bytes, context: Any) -> bytes:
        return bytes(200) if request == b"large" else request

    options = [("grpc.max_send_message_length", 100), ("grpc.max_receive_message_length", 50)]
    call = method(await lab.channel({"Large": unary(large)}, options=options), "Large")

    async def one(request: bytes) -> str:
        try:
            return str(len(await call(request)))
        except grpc.aio.AioRpcError as error:
            return error.code().name

    return {"small": await one(b"x"), "request too large": await one(bytes(80)), "reply too large": await one(b"large")}


@case()
async def message_limits_of_one_mebibyte(lab: Lab) -> Seen:
    async def grow(request: bytes, context: Any) -> bytes:
        return request * 2

    options = [("grpc.max_receive_message_length", 1 << 20), ("grpc.max_send_message_length", 3 << 20)]
    limited, free = await lab.serve({"Grow": unary(grow)}, options=options), await lab.serve({"Grow": unary(grow)})

    async def one(target: str, size: int, **made: Any) -> str:
        try:
            return str(len(await method(lab.connect(target, **made), "Grow")(bytes(size))))
        except grpc.aio.AioRpcError as error:
            return error.code().name

    return {
        "small": await one(limited.target, 1000),
        "over what the server takes": await one(limited.target, 2 << 20),
        "over what the client takes": await one(free.target, 900_000, options=options),
    }


@case()
async def messages_over_four_mebibytes(lab: Lab) -> Seen:
    call = method(await lab.channel(ALL_KINDS), "Echo")
    failed = await outcome(call(bytes(5 << 20)))
    return {"five MiB": "taken" if isinstance(failed, bytes) else str(failed).split(":")[0]}


@case()
async def metadata_limits(lab: Lab) -> Seen:
    call = method(await lab.channel(ALL_KINDS), "Echo")
    return {
        "6 KiB": await outcome(call(b"x", metadata=(("big", "v" * 6144),))),
        "2 MiB": str(await outcome(call(b"x", metadata=(("big", "v" * (2 << 20)),)))).split(":")[0],
    }


RETRY = {
    "methodConfig": [
        {
            "name": [{"service": SERVICE}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.01s",
                "maxBackoff": "0.01s",
                "backoffMultiplier": 1,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


@case()
async def retries(lab: Lab) -> Seen:
    tries = []

    async def flaky(request: bytes, context: Any) -> bytes:
        tries.append(request)
        if len(tries) < 3:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        return b"at last"

    served = await lab.serve({"Flaky": unary(flaky)})
    channel = lab.connect(served.target, options=[("grpc.service_config", json.dumps(RETRY))])
    reply = await outcome(method(channel, "Flaky")(b"x"))
    return {"reply": reply, "tries": len(tries)}


@case()
async def a_timeout_by_service_config(lab: Lab) -> Seen:
    async def forever(request: bytes, context: Any) -> bytes:
        await asyncio.Event().wait()
        return b""

    config = json.dumps({"methodConfig": [{"name": [{"service": SERVICE}], "timeout": "0.2s"}]})
    served = await lab.serve({"Wait": unary(forever)})
    channel = lab.connect(served.target, options=[("grpc.service_config", config)])
    return {"code": (await method(channel, "Wait")(b"").code()).name}


@case()
async def load_balancing(lab: Lab) -> Seen:
    called = []

    def named(name: str) -> Any:
        async def reply(request: bytes, context: Any) -> bytes:
            called.append(name)
            return request

        return unary(reply)

    first, second = await lab.serve({"Who": named("first")}), await lab.serve({"Who": named("second")})
    target = f"ipv4:{first.target},{second.target}"
    call = method(lab.connect(target, options=[("grpc.lb_policy_name", "round_robin")]), "Who")
    while len(set(called)) < 2:  # until both are connected
        await call(b"")
    called.clear()
    for _ in range(10):
        await call(b"")
    return {"first": called.count("first"), "second": called.count("second")}


@case()
async def a_proxy(lab: Lab) -> Seen:
    served = await lab.serve(ALL_KINDS)
    asked = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.split(b" ")[0].decode())
        back, forth = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        carrying = Counting(0)
        await asyncio.gather(carrying._carry(reader, forth, "up"), carrying._carry(back, writer, "down"))

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    options = [("grpc.http_proxy", f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")]
    channel = lab.connect(served.target, options=options)
    reply = await method(channel, "Echo")(b"through")
    down = await drained(method(channel, "Count", "unary_stream")(b"2"))
    await channel.close()
    proxy.close()
    return {"reply": reply, "down": down, "asked": sorted(set(asked))}


@case(managers=True)
async def keepalive(lab: Lab) -> Seen:
    options = [
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    served = await lab.serve(ALL_KINDS, options=[("grpc.http2.min_ping_interval_without_data_ms", 1000)])
    channel = lab.connect(served.target, options=options)
    return {
        "reply": await method(channel, "Echo")(b"x"),
        "down": await drained(method(channel, "Count", "unary_stream")(b"2")),
    }


@case()
async def a_user_agent_of_ones_own(lab: Lab) -> Seen:
    async def agent(request: bytes, context: Any) -> bytes:
        return b" ".join(value.encode() for key, value in context.invocation_metadata() if key == "user-agent")

    served = await lab.serve({"Agent": unary(agent)})
    options = [("grpc.primary_user_agent", "mine/1"), ("grpc.secondary_user_agent", "last/1")]
    first: bytes = await method(lab.connect(served.target, options=options), "Agent")(b"")
    parts = first.split(b" ")
    return {"starts": parts[0], "ends": parts[-1]}
