from gateway.proxy import headers as heads


def test_hop_by_hop_headers_end_here_with_those_that_connection_names():
    headers = [
        (b"Connection", b"close, X-Mine ,keep-alive"),
        (b"X-Mine", b"1"),
        (b"x-mine", b"2"),
        (b"TE", b"trailers"),
        (b"Upgrade", b"h2c"),
        (b"Accept", b"*/*"),
        (b"Host", b"here"),
    ]
    assert heads.passed(headers, heads.REQUEST_DROPPED, heads.OURS_IN_REQUESTS) == [b"Accept: */*\r\n"]


def test_headers_keep_their_order_spelling_and_repetition():
    headers = [(b"Set-Cookie", b"a=1"), (b"X-b", b"\xff"), (b"Set-Cookie", b"b=2")]
    lines = heads.passed(headers, heads.ANSWER_DROPPED, heads.OURS_IN_ANSWERS)
    assert lines == [b"Set-Cookie: a=1\r\n", b"X-b: \xff\r\n", b"Set-Cookie: b=2\r\n"]


def test_our_own_names_pass_in_neither_direction():
    assert heads.passed([(b"ANSWERABLE-Case", b"x")], heads.REQUEST_DROPPED, heads.OURS_IN_REQUESTS) == []
    assert heads.passed([(b"Decision-Receipt", b"x")], heads.ANSWER_DROPPED, heads.OURS_IN_ANSWERS) == []


def test_a_smuggled_line_end_is_seen():
    assert heads.is_clean(b"A: b\r\nC: d\r\n", 2)
    assert not heads.is_clean(b"A: b\r\nC: d\r\n", 1)
    assert not heads.is_clean(b"A: b\rC: d\r\n", 1)
    assert not heads.is_clean(b"A: b\0\r\n", 1)
    assert not heads.is_clean(b"A: b\nC: d\r\n", 1)


def test_recorded_headers_are_those_on_the_list_with_repetitions_joined():
    headers = [(b"X-A", b" 1 "), (b"x-a", b"2"), (b"Cookie", b"secret")]
    assert heads.recorded(headers, heads.names(["X-A"])) == {"x-a": "1, 2"}


def test_any_status_has_a_line():
    assert heads.status_line(404) == b"HTTP/1.1 404 Not Found\r\n"
    assert heads.status_line(299) == b"HTTP/1.1 299 \r\n"


def test_spellings_of_names_are_remembered_up_to_a_bound():
    for number in range(heads.NAMES_MAX + 10):
        assert heads.lowered(b"X-%d" % number) == b"x-%d" % number
    assert len(heads._lowered) <= heads.NAMES_MAX
