"""Whatever way the bytes are cut, the same frames come out."""

from hypothesis import given, settings
from hypothesis import strategies as st

from explainers.messages import TYPES, Array, Decoder, Frame, FrameError, encode

json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
fields = st.dictionaries(
    st.text(max_size=6).filter(lambda k: k not in {"v", "type", "job", "arrays"}), json, max_size=3
)
arrays = st.builds(
    lambda name, data: Array(name=name, dtype="u1", shape=(len(data),), data=data),
    st.text(max_size=5),
    st.binary(max_size=40),
)
frames = st.builds(
    lambda kind, job, given_fields, given_arrays: Frame(
        type=kind, job=job, fields=given_fields, arrays=tuple(given_arrays)
    ),
    st.sampled_from(sorted(TYPES)),
    st.text(max_size=8),
    fields,
    st.lists(arrays, max_size=2),
)


@given(st.lists(frames, max_size=4), st.data())
@settings(max_examples=60, deadline=None)
def test_byte_by_byte_equals_all_at_once_equals_any_cut(sent: list[Frame], data: st.DataObject) -> None:
    stream = b"".join(encode(frame) for frame in sent)
    assert Decoder().feed(stream) == sent
    single = Decoder()
    assert [frame for byte in stream for frame in single.feed(bytes([byte]))] == sent
    assert single.pending_bytes == 0
    cut = data.draw(st.integers(0, len(stream)))
    parted = Decoder()
    assert parted.feed(stream[:cut]) + parted.feed(stream[cut:]) == sent


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_random_bytes_give_an_error_or_wait_and_never_anything_else(junk: bytes) -> None:
    decoder = Decoder()
    try:
        for frame in decoder.feed(junk):
            assert frame.type in TYPES
    except FrameError:
        assert decoder.pending_bytes == 0
