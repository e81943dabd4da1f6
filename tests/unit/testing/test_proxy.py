"""`testing/proxy.py`: a connection that is cut, stalled and refused when the test says so."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from rpc_async.testing import CuttingProxy
from tests.harness import PATIENCE, until


@asynccontextmanager
async def echo_through_a_proxy() -> AsyncIterator[CuttingProxy]:
    """Run a server that echoes, and a proxy to it."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1024):
                writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, CuttingProxy(f"127.0.0.1:{port}") as proxy:
        yield proxy


async def connect(proxy: CuttingProxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a proxy."""
    host, _, port = proxy.target.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def ends(reader: asyncio.StreamReader) -> bytes:
    """Read to the end of a connection that is cut, and return what came."""
    try:
        return await asyncio.wait_for(reader.read(), PATIENCE)
    except ConnectionError:
        return b""


async def test_it_carries_both_ways() -> None:
    async with echo_through_a_proxy() as proxy:
        reader, writer = await connect(proxy)
        large = bytes(range(256)) * 4096
        writer.write(large)
        assert await asyncio.wait_for(reader.readexactly(len(large)), PATIENCE) == large
        assert proxy.connections == 1
        assert proxy.cuts == 0
        writer.close()


async def test_a_cut_ends_every_connection_and_new_ones_are_carried() -> None:
    async with echo_through_a_proxy() as proxy:
        connections = [await connect(proxy) for _ in range(2)]
        for reader, writer in connections:
            writer.write(b"there?")
            assert await asyncio.wait_for(reader.readexactly(6), PATIENCE) == b"there?"
        proxy.cut()
        for reader, writer in connections:
            assert await ends(reader) == b""
            writer.close()
        reader, writer = await connect(proxy)
        writer.write(b"again")
        assert await asyncio.wait_for(reader.readexactly(5), PATIENCE) == b"again"
        assert (proxy.cuts, proxy.connections) == (1, 3)
        writer.close()


async def test_a_stalled_proxy_carries_nothing_and_loses_nothing() -> None:
    async with echo_through_a_proxy() as proxy:
        reader, writer = await connect(proxy)
        writer.write(b"before")
        assert await asyncio.wait_for(reader.readexactly(6), PATIENCE) == b"before"
        proxy.stall()
        writer.write(b"during")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(1), 0.05)
        proxy.resume()
        assert await asyncio.wait_for(reader.readexactly(6), PATIENCE) == b"during"
        writer.close()


async def test_a_stalled_proxy_can_be_cut_and_closed() -> None:
    async with echo_through_a_proxy() as proxy:
        reader, writer = await connect(proxy)
        writer.write(b"before")
        await asyncio.wait_for(reader.readexactly(6), PATIENCE)
        proxy.stall()
        writer.write(b"lost")
        proxy.cut()
        assert await ends(reader) == b""
        writer.close()


async def test_a_refusing_proxy_closes_new_connections_and_keeps_the_old() -> None:
    async with echo_through_a_proxy() as proxy:
        old_reader, old_writer = await connect(proxy)
        await until(lambda: proxy.connections == 1)
        proxy.refusing = True
        reader, writer = await connect(proxy)
        assert await ends(reader) == b""
        writer.close()
        old_writer.write(b"kept")
        assert await asyncio.wait_for(old_reader.readexactly(4), PATIENCE) == b"kept"
        old_writer.close()
        assert proxy.connections == 1


async def test_where_nothing_listens_the_connection_ends() -> None:
    async with echo_through_a_proxy() as proxy:
        nowhere = proxy.target
    async with CuttingProxy(nowhere) as proxy:
        reader, writer = await connect(proxy)
        assert await ends(reader) == b""
        writer.close()


async def test_one_way_can_be_stalled_and_what_comes_is_counted_all_the_same() -> None:
    async with echo_through_a_proxy() as proxy:
        reader, writer = await connect(proxy)
        proxy.stall("to_client")
        writer.write(b"there")
        await until(lambda: proxy.bytes_to_client == 5)  # it got to the server, and the answer got half-way back
        assert proxy.bytes_to_server == 5
        proxy.resume()
        assert await asyncio.wait_for(reader.readexactly(5), PATIENCE) == b"there"
        proxy.stall("to_server")
        writer.write(b"more")
        await until(lambda: proxy.bytes_to_server == 9)
        for _ in range(20):
            await asyncio.sleep(0)
        assert proxy.bytes_to_client == 5
        proxy.resume()
        assert await asyncio.wait_for(reader.readexactly(4), PATIENCE) == b"more"
        writer.close()


async def test_it_can_lead_to_another_server() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"another")
        writer.close()

    other = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with other, echo_through_a_proxy() as proxy:
        proxy.lead_to(f"127.0.0.1:{other.sockets[0].getsockname()[1]}")
        reader, writer = await connect(proxy)
        assert await asyncio.wait_for(reader.read(), PATIENCE) == b"another"
        writer.close()


@pytest.mark.parametrize("turns", range(10))
def test_a_connection_that_comes_as_the_proxy_closes_is_not_left_behind(turns: int) -> None:
    async def main() -> None:
        async with CuttingProxy("127.0.0.1:1") as proxy:
            host, _, port = proxy.target.rpartition(":")
            client = socket.create_connection((host, int(port)))
            for _ in range(turns):
                await asyncio.sleep(0)
        client.close()

    asyncio.run(main())
    gc.collect()  # whatever is left open warns, which is an error
