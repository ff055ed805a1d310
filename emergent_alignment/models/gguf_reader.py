"""How a GGUF file's header is read: by the `gguf` package's reader, held to the file's end and to
what a header may hold, with arrays read at once."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

# A file of many gigabytes has room for headers that take hours to read, or all memory. These are
# far beyond what models have; llama.cpp allows four dimensions, and no arrays of arrays.
_MOST_FIELDS = 1 << 16
_MOST_TENSORS = 1 << 20
_MOST_ITEMS = 1 << 24
_MOST_TEXT_BYTES = 1 << 26
_MOST_DIMENSIONS = 4


class _Bounds:
    """Refuses, in front of a GGUFReader, counts and lengths that no model's header has."""

    def _get_str(self, offset: int) -> tuple[Any, Any]:
        _bounded(self._get(offset, np.uint64)[0], _MOST_TEXT_BYTES, "a text of {} bytes")
        return super()._get_str(offset)

    def _build_fields(self, offs: int, count: int) -> int:
        _bounded(count, _MOST_FIELDS, "{} metadata fields")
        return super()._build_fields(offs, count)

    def _build_tensor_info(self, offs: int, count: int) -> tuple[int, list]:
        _bounded(count, _MOST_TENSORS, "{} tensors")
        return super()._build_tensor_info(offs, count)

    def _get_tensor_info_field(self, orig_offs: int) -> Any:
        field = super()._get_tensor_info_field(orig_offs)
        _bounded(field.parts[2][0], _MOST_DIMENSIONS, "a tensor of {} dimensions")
        return field


def reader_class(gguf: Any) -> Any:
    """GGUFReader, failing at the end of the file, and reading arrays at once.

    By itself it reads nothing there and goes on, so a broken array length keeps it busy forever;
    and it makes several NumPy views of every item: SmolLM2's file opens in 0.4 s of a core, where
    it took 3.5. Raises ValueError for counts and lengths that no model's header has.
    """

    class BoundedReader(_Bounds, gguf.GGUFReader):
        def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
            part = super()._get(offset, dtype, count, override_order)
            if len(part) != count:
                raise self._ended()
            return part

        def _ended(self) -> ValueError:
            return ValueError(f"it ends at byte {len(self.data)}, amid what it announces")

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> tuple[int, list, list, list]:
            if raw_type != gguf.GGUFValueType.ARRAY:
                return super()._get_field_parts(orig_offs, raw_type)
            head = [self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)]
            kind, count = gguf.GGUFValueType(head[0][0]), int(head[1][0])
            _bounded(count, _MOST_ITEMS, "a list of {} items")
            start = orig_offs + 12
            if kind == gguf.GGUFValueType.STRING:
                end, items = self._strings(start, count)
            elif kind in self.gguf_scalar_to_np:
                items = [self._get(start, self.gguf_scalar_to_np[kind], count)]
                end = start + items[0].nbytes
            else:
                raise ValueError("a list of lists")
            places = list(range(2, 2 + len(items)))
            return end - orig_offs, head + items, places, [gguf.GGUFValueType.ARRAY, kind]

        def _strings(self, offset: int, count: int) -> tuple[int, list[memoryview]]:
            """Where they end, and the bytes of each: a length in 8 bytes, and so many bytes."""
            data, order = memoryview(self.data), "<Q" if self.endianess.name == "LITTLE" else ">Q"
            strings = []
            for _ in range(count):
                start = offset + 8
                if start > len(data):
                    raise self._ended()
                length = struct.unpack_from(order, data, offset)[0]
                if length > _MOST_TEXT_BYTES:  # spares hundreds of thousands of calls
                    _bounded(length, _MOST_TEXT_BYTES, "a text of {} bytes")
                offset = start + length
                if offset > len(data):
                    raise self._ended()
                strings.append(data[start:offset])
            return offset, strings

    return BoundedReader


def _bounded(count: Any, most: int, what: str) -> None:
    if int(count) > most:
        raise ValueError(f"it announces {what.format(int(count))}, more than {most}")
