from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.data.token_files import Tokens, TokenWriter, open_array, token_dtype, verify_array, write_array
from sweep.errors import DataError


@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(sum),
    width=st.integers(1, 20),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_windows_equal_slices_across_shards(lengths: list[int], width: int, data: st.DataObject) -> None:
    whole = np.arange(sum(lengths), dtype=np.uint16)
    tokens = Tokens(np.split(whole, np.cumsum(lengths)[:-1]))
    assert len(tokens) == len(whole)
    if len(whole) >= width:
        starts = np.array(
            data.draw(st.lists(st.integers(0, len(whole) - width), max_size=12)), dtype=np.int64
        )
        found = tokens.windows(starts, width)
        assert found.dtype == np.int64
        assert found.tolist() == [whole[start : start + width].tolist() for start in starts]
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(whole))] * 2)))
    assert tokens.read(start, stop).tolist() == whole[start:stop].tolist()


@pytest.mark.parametrize(("vocab_size", "itemsize"), [(256, 2), (65_536, 2), (65_537, 4), (2**31, 4)])
def test_shards_hold_little_endian_ids_of_the_narrowest_type(
    vocab_size: int, itemsize: int, tmp_path: Path
) -> None:
    ids = [0, 1, 255, vocab_size - 1, 7]
    writer = TokenWriter(tmp_path, "train", vocab_size, 2)
    writer.append(np.array(ids[:1]))
    writer.append(np.array(ids[1:]))
    shards = writer.finish()
    assert [shard.n_items for shard in shards] == [2, 2, 1]
    assert np.dtype(token_dtype(vocab_size)).itemsize == itemsize
    raw = b"".join((tmp_path / shard.file).read_bytes() for shard in shards)
    assert raw == b"".join(token.to_bytes(itemsize, "little") for token in ids)
    assert Tokens([open_array(tmp_path, shard) for shard in shards]).read(0, 5).tolist() == ids


def test_what_is_not_as_written_is_refused(tmp_path: Path) -> None:
    array = write_array(tmp_path, "ends.bin", np.arange(5), "int64")
    assert (array.n_bytes, open_array(tmp_path, array).tolist()) == (40, [0, 1, 2, 3, 4])
    verify_array(tmp_path, array)
    file = tmp_path / "ends.bin"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"\x01")
    open_array(tmp_path, array)
    with pytest.raises(DataError, match=r"ends\.bin has SHA-256"):
        verify_array(tmp_path, array)
    file.write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"ends\.bin has 39 bytes, its manifest says 40"):
        open_array(tmp_path, array)
    file.unlink()
    with pytest.raises(DataError, match=r"ends\.bin not found"):
        open_array(tmp_path, array)


def test_an_empty_array_can_be_opened(tmp_path: Path) -> None:
    assert open_array(tmp_path, write_array(tmp_path, "none.bin", np.empty(0), "int64")).tolist() == []
