import threading

from helios_fs.store.cache import ByteCache


def test_the_least_recently_used_goes_first() -> None:
    cache: ByteCache[str] = ByteCache(80)
    for name in (b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h"):
        cache.add(name, name.decode(), 10)
    assert cache.find(b"a") == "a"
    cache.add(b"i", "i", 10)
    assert cache.find(b"b") is None
    assert cache.find(b"a") == "a"
    assert cache.size_bytes == 80


def test_what_would_push_out_everything_is_not_kept() -> None:
    cache: ByteCache[str] = ByteCache(80)
    cache.add(b"a", "a", 11)
    assert cache.find(b"a") is None
    assert cache.size_bytes == 0


def test_adding_again_replaces() -> None:
    cache: ByteCache[str] = ByteCache(80)
    cache.add(b"a", "old", 10)
    cache.add(b"a", "new", 4)
    assert cache.find(b"a") == "new"
    assert cache.size_bytes == 4
    cache.clear()
    assert cache.find(b"a") is None
    assert cache.size_bytes == 0


def test_an_item_that_another_thread_evicts_while_it_is_found_is_still_returned() -> None:
    cache: ByteCache[str] = ByteCache(80)
    cache.add(b"a", "a", 10)
    touch = cache._touch

    def evicted_first(key: bytes) -> None:
        cache.clear()
        touch(key)

    cache._touch = evicted_first  # type: ignore[assignment]  # the moment that threads meet at by chance
    assert cache.find(b"a") == "a"


def test_threads_leave_the_count_right() -> None:
    cache: ByteCache[int] = ByteCache(1000)

    def work(seed: int) -> None:
        for number in range(3000):
            key = b"%d" % ((number * seed) % 200)
            if cache.find(key) is None:
                cache.add(key, number, 10 + seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (3, 5, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.size_bytes == sum(size for _, size in cache._items.values()) <= 1000
