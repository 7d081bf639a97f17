"""iceoryx2: publish and subscribe in shared memory. A channel, not a store.

There are no names and nothing to delete; a value is got once, by a subscriber that was there before. So it is
measured where one process puts and another gets what was put, in order.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import iceoryx2 as iox
import pyarrow as pa
from codec import Codec

from stores.base import Backend, Factory, Side

SMALL_SLOTS = 256
BULK_SLOTS = 2
ALIGNMENT = 64


class Iceoryx2Side(Side):
    """A publisher, or a subscriber where it is to get."""

    def __init__(self, root: Path, prefix: str, service: str, slots: int, codec: Codec) -> None:
        iox.set_log_level(iox.LogLevel.Error)
        self.codec = codec
        config = iox.config.default()
        config.global_cfg.root_path = iox.Path.new(str(root))
        config.global_cfg.prefix = iox.FileName.new(prefix)
        self._node: Any = iox.NodeBuilder.new().config(config).create(iox.ServiceType.Ipc)
        builder = self._node.service_builder(iox.ServiceName.new(service))
        self._service: Any = (
            builder.publish_subscribe(iox.Slice[ctypes.c_uint8])
            .payload_alignment(iox.Alignment.new(ALIGNMENT))
            .subscriber_max_buffer_size(slots)
            .subscriber_max_borrowed_samples(slots)
            .enable_safe_overflow(False)
            .history_size(0)
            .open_or_create()
        )
        self._slots = slots
        self._publisher: Any = None
        self._subscriber: Any = None

    def attach(self) -> None:
        self._subscriber = self._service.subscriber_builder().buffer_size(self._slots).create()

    def put(self, name: str, value: Any) -> None:
        form = self.codec.form(value)
        size = self.codec.size(form)
        if self._publisher is None:
            self._publisher = self._service.publisher_builder().initial_max_slice_len(size).create()
        sample = self._publisher.loan_slice_uninit(size)
        address = sample.payload().data_ptr
        target = pa.py_buffer(memoryview((ctypes.c_char * size).from_address(address)))
        self.codec.write(form, pa.FixedSizeBufferWriter(target))
        sample.assume_init().send()

    def get(self, token: Any) -> Any:
        sample = self._subscriber.receive()
        data = sample.payload()
        buffer = pa.foreign_buffer(data.data_ptr, data.number_of_elements, sample)
        return memoryview(buffer) if self.codec.kind == "bytes" else self.codec.decode(buffer)

    def delete(self, name: str) -> None:
        return

    def close(self) -> None:
        for port in (self._publisher, self._subscriber):
            if port is not None:
                port.delete()
        self._publisher = self._subscriber = self._service = self._node = None


class Iceoryx2(Backend):
    """A service for each workload; files of its own, to be removed by their prefix."""

    label = "iceoryx2"
    libraries = ("iceoryx2",)
    gets_once = True

    def __init__(self, scratch: Path, work: Path, room_bytes: int) -> None:
        super().__init__(scratch, work, room_bytes)
        self._prefix = f"bench{os.getpid()}_"

    def factory(self, name: str, room_bytes: int, codec: Codec, bulk: bool) -> Factory:
        slots = BULK_SLOTS if bulk else SMALL_SLOTS
        return (Iceoryx2Side, self.work, self._prefix, name, slots, codec)

    def close(self) -> None:
        for file in Path("/dev/shm").glob(f"{self._prefix}*"):
            file.unlink(missing_ok=True)
