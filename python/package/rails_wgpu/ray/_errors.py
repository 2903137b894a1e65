"""What can go wrong with shards, and nowhere else."""

from typing import List, Tuple, Type


class ShardUnavailable(RuntimeError):
    """No replica of a shard answers."""

    def __init__(self, shards: List[int], words: str) -> None:
        super().__init__(words)
        self.shards = shards
        """Numbers of the shards."""
        self._words = words

    def __reduce__(self) -> "Tuple[Type[ShardUnavailable], Tuple[List[int], str]]":
        return ShardUnavailable, (self.shards, self._words)


class OutOfDate(RuntimeError):
    """The folder of a shard is gone, because newer versions have replaced it."""
